"""Lines of a file or a pipe, read without ever blocking the loop."""

import os
import stat
from collections import deque

import anyio
import anyio.lowlevel

from flow.errors import DecodeError

CHUNK = 1 << 16
LONGEST = 192 << 20  # bytes of a line: RabbitMQ takes bodies of 128 MiB, which base64 makes longer by a third


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

    async def document(self, most: int) -> bytes:
        """Return everything up to the end; no more than *most* bytes are kept in memory.

        Raises:
            DecodeError: there are more.
        """
        parts = []
        while part := await self.read():
            parts.append(part)
            if self.consumed > most:
                raise DecodeError(
                    f"the document is longer than {most} bytes, which is the most that RabbitMQ takes: "
                    "push it as several, with --lines"
                )
        return b"".join(parts)


class Lines:
    """Iterates over the lines of a source, without their ends; the last one needs no end.

    A line that is too long ends it, as if the source had ended before that line: no more is kept in memory.
    """

    def __init__(self, source: Source, *, longest: int = LONGEST) -> None:
        """Read from *source*; *longest*: bytes that a line may have."""
        self._source = source
        self._longest = longest
        self._waiting: deque[bytes] = deque()
        self._begun: list[bytes] = []  # parts of a line whose end was not read yet
        self._size = 0  # bytes of those parts
        self._number = 1  # of that line, from 1
        self._fault: DecodeError | None = None  # a line was too long, which was not said yet
        self._ended = False

    @property
    def endless(self) -> bool:
        """Whether the source may go on for ever."""
        return self._source.endless

    def __aiter__(self) -> "Lines":
        return self

    async def __anext__(self) -> bytes:
        """Return the next line; a cancelled wait loses nothing.

        Raises:
            DecodeError: the line is too long; it, and what follows it, is not read.
        """
        while not self._waiting and not self._ended:
            part = await self._source.read()
            if part:
                self._cut(part)
            else:
                self._finish()
                self._ended = True
        if self._waiting:
            return self._waiting.popleft()
        fault, self._fault = self._fault, None
        raise fault or StopAsyncIteration

    def taken(self) -> list[bytes]:
        """Take out the lines that were read from the source already, an unfinished one as the last."""
        self._finish()
        lines = list(self._waiting)
        self._waiting.clear()
        return lines

    def _cut(self, part: bytes) -> None:
        """Put the lines that end in *part* where they wait."""
        first, *others = part.split(b"\n")
        self._begin(first)
        for line in others:
            if self._ended:
                return
            self._waiting.append(b"".join(self._begun))
            self._begun, self._size = [], 0
            self._number += 1
            self._begin(line)

    def _begin(self, part: bytes) -> None:
        """Add *part* to the line whose end was not read yet, or end here when it gets too long."""
        self._begun.append(part)
        self._size += len(part)
        if self._size > self._longest:
            self._begun, self._ended = [], True
            too_long = f"line {self._number} is longer than {self._longest} bytes"
            self._fault = DecodeError(f"{too_long}: it and what follows it is not read")

    def _finish(self) -> None:
        if any(self._begun):
            self._waiting.append(b"".join(self._begun))
        self._begun, self._size = [], 0
