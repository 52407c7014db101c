"""Bodies in files: copied there from a queue, and read from there instead of a queue."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import msgspec

from flow.errors import ConfigError
from flow.message import Message

log = logging.getLogger("flow")


class Dump:
    """Copies raw bodies into a folder: one file for each, byte for byte, which only its owner may read."""

    def __init__(self, folder: Path) -> None:
        """Make the *folder* unless it is there.

        Raises:
            ConfigError: nothing can be written there.
        """
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with TemporaryFile(dir=folder):
                pass
        except OSError as error:
            raise ConfigError(
                f"the folder {folder} cannot be written to ({error.strerror}): name another for the copies"
            ) from None
        self.copied = 0
        self.missed = 0
        """How many bodies could not be copied."""
        self._folder = folder
        self._stem = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{os.getpid()}"  # no two processes share it

    def copy(self, messages: Sequence[Message[Any]]) -> None:
        """Copy the bodies of *messages*. Never raises: the first that cannot be copied is logged."""
        for message in messages:
            try:
                self.write(message)
            except OSError as error:
                self.missed += 1
                if self.missed == 1:
                    log.error(
                        "messages are not copied to %s, and consumed all the same: %s",
                        self._folder,
                        error.strerror,
                    )

    def write(self, message: Message[Any]) -> None:
        """Copy the body of *message*; one above the pipeline's `max_body` is not here, and left out.

        Raises:
            OSError: it cannot be written, not as a whole.
        """
        if len(message.raw) != message.size:
            log.warning("a body of %d bytes is above max_body and not copied", message.size)
            return
        path = self._folder / f"{self._stem}-{self.copied + self.missed + 1:06}.json"
        with open(path, "xb", opener=private) as file:
            try:
                file.write(message.raw)
                file.flush()
            except OSError:
                with suppress(OSError):
                    path.unlink()  # half a copy would be taken for a whole one
                raise
        self.copied += 1

    def tell(self) -> None:
        """Log how many messages were copied."""
        log.info("%d messages were copied to %s, %d were not", self.copied, self._folder, self.missed)


def private(path: str, flags: int) -> int:
    """Open *path* for `open`; a new file may be read by its owner only."""
    return os.open(path, flags, 0o600)


def bodies(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the bodies in *path*, each with the place where it stands.

    Of a folder those in its files: `.json` holds one, as a dump writes it, `.jsonl` one on each line. A
    file holds one on each line too, unless its first line is no JSON by itself: then it is one document.
    """
    if path.is_dir():
        for file in sorted(path.iterdir()):
            if file.suffix == ".json":
                yield file.name, file.read_bytes()
            elif file.suffix == ".jsonl":
                yield from lines(file)
    elif path.suffix != ".jsonl" and is_document(path):
        yield path.name, path.read_bytes()
    else:
        yield from lines(path)


def lines(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield every line of the file that is not blank, without its end."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                yield f"{path.name}:{number}", line.removesuffix(b"\n").removesuffix(b"\r")


def is_document(path: Path) -> bool:
    """Tell whether the first line of the file is no JSON by itself."""
    for _, line in lines(path):
        try:
            msgspec.json.decode(line)
        except (ValueError, RecursionError):
            return True
        return False
    return False


def as_line(body: bytes) -> bytes:
    """Return *body* as one line, which means the same.

    Where JSON allows a line feed it allows a carriage return, and where it forbids one it forbids both.
    """
    return body.replace(b"\n", b"\r") + b"\n"
