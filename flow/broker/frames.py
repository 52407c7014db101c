"""Cuts AMQP frames out of what a socket gives, from the first byte on."""

from collections.abc import Callable
from struct import Struct

from aiormq.exceptions import AMQPError

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
KINDS = frozenset({METHOD, HEADER, BODY, HEARTBEAT})
END = 0xCE  # the last byte of every frame
HEAD = 7  # bytes before the content: type, channel, size
AROUND = 8  # bytes of a frame that are not its content
UNTUNED = 1 << 20  # bytes of content, until the broker has said how large a frame may be
LARGEST = 1 << 29  # bytes of content when the broker sets no limit: the largest message it can be set to take
FRAME = Struct(">BHI").unpack_from  # type, channel, size of the content

Route = Callable[[bytes, int, int, int], int]


class BrokenStream(AMQPError):
    """What the broker sends is not AMQP, or not in the order that AMQP prescribes."""

    reason = "%s"


class FrameCutter:
    """Cuts the bytes of one connection into frames and hands each to the route of its channel.

    A route is called with the bytes, the type of a frame, and where its content starts and ends in them.
    It returns the position after all that it took, which may be several frames, or 0 when it took nothing.
    Frames that nobody took go to *other*, consecutive ones together.
    """

    def __init__(self, other: Callable[[bytes], None]) -> None:
        self.routes: dict[int, Route] = {}
        """By channel."""
        self.limit = UNTUNED
        """The largest content of a frame, in bytes."""
        self._other = other
        self._started = False
        self._chunks: list[bytes] = []  # of an unfinished frame: joined once, when all of it is there
        self._there = 0  # bytes in the chunks
        self._needed = 0  # bytes that must be there before it is worth looking again

    @property
    def unfinished(self) -> bool:
        """Whether a frame has begun and not ended."""
        return bool(self._chunks)

    def feed(self, chunk: bytes) -> None:
        """Take what was read from the socket and hand on every frame that it completes.

        Raises:
            BrokenStream: this is not AMQP. All that came before was handed on; nothing may be fed any more.
        """
        data = self._joined(chunk) if self._chunks else chunk
        total = len(data)
        position = passed = 0  # between them: frames that nobody took
        needed = AROUND
        try:
            while total - position >= AROUND:
                kind, channel, size = FRAME(data, position)
                end = position + HEAD + size
                if kind not in KINDS or size > self.limit or (end < total and data[end] != END):
                    position = self._odd(data, position, kind, size)
                    continue
                if end >= total:
                    needed = AROUND + size
                    break
                route = self.routes.get(channel)
                taken = route(data, kind, position + HEAD, end) if route else 0
                if taken:
                    if passed < position:
                        self._other(data[passed:position])
                    passed = position = taken
                else:
                    position = end + 1
                self._started = True
        finally:
            if passed < position:
                self._other(data[passed:position])
        if position < total:
            self._chunks = [data[position:]]
            self._there = total - position
            self._needed = needed

    def _joined(self, chunk: bytes) -> bytes:
        """Add *chunk* to the unfinished frame; return all that is there once it is enough, else nothing."""
        self._chunks.append(chunk)
        self._there += len(chunk)
        if self._there < self._needed:
            return b""
        data = b"".join(self._chunks)
        self._chunks = []
        return data

    def _odd(self, data: bytes, position: int, kind: int, size: int) -> int:
        """Return the position after what a broker answers to a client of another protocol version.

        Raises:
            BrokenStream: it is something else that is no frame.
        """
        if not self._started and not position and data.startswith(b"AMQP"):
            self._started = True
            return AROUND
        if kind not in KINDS:
            raise BrokenStream(
                f"The broker sent a frame of the unknown type {kind}: this may be no AMQP port"
            )
        if size > self.limit:
            raise BrokenStream(f"The broker sent a frame of {size} bytes; at most {self.limit} were agreed")
        raise BrokenStream(f"The broker sent a frame of {size} bytes that does not end with the end mark")
