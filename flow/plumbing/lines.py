"""Lines of a file or a pipe, read without ever blocking the loop."""

import os
import stat
from collections import deque

import anyio
import anyio.lowlevel

CHUNK = 1 << 16


class Source:
    """An open file or pipe; a wait for more of it can be cancelled, and reading goes on later."""

    def __init__(self, descriptor: int) -> None:
        """Read from the open file *descriptor*, which stays open."""
        self._descriptor = descriptor
        found = os.fstat(descriptor)
        self.endless = not stat.S_ISREG(found.st_mode)
        """Whether it may go on for ever: a pipe or a terminal."""
        self.size = 0 if self.endless else found.st_size
        """Bytes of a file; 0 when that is not known."""
        self.consumed = 0
        """Bytes that were read so far."""

    async def read(self) -> bytes:
        """Return the next bytes; empty at the end."""
        await anyio.lowlevel.checkpoint()
        if self.endless:
            try:
                await anyio.wait_readable(self._descriptor)
            except PermissionError:  # nothing to wait for, such as the null device
                self.endless = False
        part = os.read(self._descriptor, CHUNK)
        self.consumed += len(part)
        return part

    async def document(self) -> bytes:
        """Return everything up to the end."""
        parts = []
        while part := await self.read():
            parts.append(part)
        return b"".join(parts)


class Lines:
    """Iterates over the lines of a source, without their ends; the last one needs no end."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._waiting: deque[bytes] = deque()
        self._begun: list[bytes] = []  # parts of a line whose end was not read yet

    @property
    def endless(self) -> bool:
        """Whether the source may go on for ever."""
        return self._source.endless

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> bytes:
        """Return the next line; a cancelled wait loses nothing."""
        while not self._waiting:
            part = await self._source.read()
            if not part:
                self._finish()
                break
            first, *others = part.split(b"\n")
            self._begun.append(first)
            for line in others:
                self._waiting.append(b"".join(self._begun))
                self._begun = [line]
        if not self._waiting:
            raise StopAsyncIteration
        return self._waiting.popleft()

    def taken(self) -> list[bytes]:
        """Take out the lines that were read from the source already, an unfinished one as the last."""
        self._finish()
        lines = list(self._waiting)
        self._waiting.clear()
        return lines

    def _finish(self) -> None:
        if any(self._begun):
            self._waiting.append(b"".join(self._begun))
        self._begun = []
