"""Which suspect messages were started and have no outcome yet, in a folder: it survives what kills us."""

import time
from collections.abc import Collection
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import anyio.to_thread

from flow.ledger import KEPT
from flow.records.files import usable_folder, write_durably


class Starts:
    """One small file for each suspect message that is being worked, with the number of its starts."""

    def __init__(self, folder: Path) -> None:
        """Keep the files in *folder*, which workers of one machine may share.

        Raises:
            ConfigError: it cannot be written.
        """
        self._folder = usable_folder(folder, "the folder")
        for path in folder.glob("*.started"):
            with suppress(FileNotFoundError):  # another worker has ended it
                if time.time() - path.stat().st_mtime > KEPT.total_seconds():
                    path.unlink()

    async def started(self, identity: object) -> int:
        """Note that the message called *identity* is started; return how often it was, without an outcome.

        Raises:
            OSError: it cannot be noted.
        """
        return await anyio.to_thread.run_sync(self._started, self._path(identity))

    async def ended(self, identities: Collection[object]) -> None:
        """Note that the messages called *identities* have an outcome, whatever it is."""
        for identity in identities:
            self._path(identity).unlink(missing_ok=True)

    def _started(self, path: Path) -> int:
        try:
            earlier = int(path.read_bytes() or b"0")
        except FileNotFoundError:
            earlier = 0
        write_durably(path, b"%d" % (earlier + 1))
        return earlier

    def _path(self, identity: object) -> Path:
        return self._folder / f"{blake2b(repr(identity).encode(), digest_size=16).hexdigest()}.started"
