"""Hopeless messages in a folder, for accounts that may not publish to the park; and their way back to it."""

from collections.abc import Callable, Iterable
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread
import msgspec

from flow.broker.publisher import Publisher
from flow.errors import PublishFailed
from flow.parking import MESSAGE_ID
from flow.records.files import usable_folder, write_durably
from flow.topology import PARK_EXCHANGE

Headers = dict[str, str | int]


class Spooled(msgspec.Struct, frozen=True):
    """One parked message as its file holds it."""

    queue: str
    headers: Headers
    body: bytes

    def __repr__(self) -> str:
        """Name the queue only: bodies are shown nowhere."""
        return f"Spooled({self.queue})"


class Spool:
    """A folder with a file for each parked message, which only its owner may read."""

    def __init__(self, folder: Path) -> None:
        """Use *folder*, which is made when there is none.

        Raises:
            ConfigError: it cannot be written.
        """
        self._folder = usable_folder(folder, "the spool")

    async def put(self, queue: str, headers: Headers, body: bytes) -> None:
        """Write one message and return when the disk has it; the same message twice is one file.

        Raises:
            PublishFailed: it cannot be written.
        """
        content = msgspec.json.encode(Spooled(queue, headers, body))
        identity = f"{queue}\0{headers.get(MESSAGE_ID, '')}\0".encode() + body
        name = blake2b(identity, digest_size=16).hexdigest()
        try:
            await anyio.to_thread.run_sync(write_durably, self._folder / f"{name}.parked", content)
        except OSError as error:
            raise PublishFailed(f"The spool {self._folder} cannot be written: {error.strerror}") from error


def spooled(folder: Path) -> list[Path]:
    """Return the files of the spool *folder*."""
    return sorted(folder.glob("*.parked"))


async def load(files: Iterable[Path], publisher: Publisher, loaded: Callable[[], None]) -> list[str]:
    """Publish the message of each file to the park, confirmed, and delete the file; call *loaded* for each.

    Returns a sentence for each file that holds no parked message.

    Raises:
        BrokerError: the park does not take one; what is not published stays where it is.
    """
    odd = []
    for path in files:
        try:
            message = msgspec.json.decode(await anyio.to_thread.run_sync(path.read_bytes), type=Spooled)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
            odd.append(f"{path} holds no parked message; it stays where it is")
            continue
        await publisher.publish(PARK_EXCHANGE, message.queue, message.body, headers=message.headers)
        path.unlink()
        loaded()
    return odd
