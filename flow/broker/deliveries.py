"""Puts deliveries together from the frames of one channel."""

import struct
from struct import Struct
from typing import Any

from flow.broker.frames import BODY, END, HEADER, METHOD, BrokenStream
from flow.broker.settling import Consumer, Settler
from flow.message import Message

DELIVER = b"\0\x3c\0\x3c"  # class and method
CLOSE, CLOSE_OK = b"\0\x14\0\x28", b"\0\x14\0\x29"
ARGUMENTS = Struct(">QBB").unpack_from  # delivery tag, redelivered, length of the exchange's name
BODY_SIZE = Struct(">Q").unpack_from
# From the end mark of one frame into the next: end mark, type and channel as one number; size; ...
TO_HEADER = Struct(">IIIQ").unpack_from  # ... class and weight; size of the body
TO_BODY = Struct(">II").unpack_from
LEAST_HEADER = 14  # bytes: class, weight, size of the body, flags
NAMES = {METHOD: "method", HEADER: "content header", BODY: "body"}


class Inbox:
    """What one read from the socket brings: its time, and the messages that it completes."""

    __slots__ = ("messages", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.messages: list[Message[Any]] = []


class Deliveries:
    """Collects method, header and bodies of each delivery on one channel; the channel must only consume.

    The rule is a delivery that is in the buffer as a whole: it is taken in one step. Otherwise each frame is
    taken as it comes; both ways give the same message.
    """

    def __init__(
        self, channel: int, settler: Settler, inbox: Inbox, *, max_body: int, max_frame: int
    ) -> None:
        """Put messages into *inbox* and register them with *settler*; the limits are in bytes.

        A body above *max_body* is not kept: its message has an empty one, and its `size` tells why.
        """
        self.settler = settler
        self.touched_at = 0.0
        """When the last frame of an unfinished delivery came, monotonic seconds."""
        self._inbox = inbox
        self._consumers = settler.consumers
        self._outstanding = settler.outstanding
        self._max_body = max_body
        self._max_frame = max_frame
        self._whole = min(max_body, max_frame)  # the largest body that may come in one frame
        self._to_header = END << 24 | HEADER << 16 | channel
        self._to_body = END << 24 | BODY << 16 | channel
        self._expected = METHOD
        # Of the delivery that has begun:
        self._delivery: tuple[Consumer, int, bool, bytes]  # tag, redelivered, routing
        self._header = b""
        self._left = 0  # bytes of the body still to come
        self._kept = True  # whether the body is within the limit
        self._parts: list[bytes] = []

    @property
    def unfinished(self) -> bool:
        """Whether a delivery has begun and not ended."""
        return self._expected != METHOD

    def take(self, data: bytes, kind: int, start: int, end: int) -> int:
        """Take a frame whose content is `data[start:end]`; return the position after what was taken, or 0.

        Raises:
            BrokenStream: the frames of the channel are in no legal order.
        """
        if kind != self._expected:
            raise BrokenStream(
                f"The broker sent a frame of type {kind} where a {NAMES[self._expected]} frame was due"
            )
        if kind == METHOD:
            method = data[start : start + 4]
            if method == DELIVER:
                return self._begin(data, start, end)
            if method in (CLOSE, CLOSE_OK):
                self.end()
            return 0
        self.touched_at = self._inbox.now
        if kind == HEADER:
            self._head(data, start, end)
        else:
            self._add(data, start, end)
        return end + 1

    def end(self) -> None:
        """Note that the channel is closed: what nobody has seen yet is dropped, and all that follows."""
        self.settler.end()
        inbox = self._inbox
        for message in inbox.messages:
            if not message.origin.alive:
                self.settler.withdraw(message)
        inbox.messages = [message for message in inbox.messages if message.origin.alive]

    def _begin(self, data: bytes, start: int, end: int) -> int:
        """Take a delivery from its method frame on: as far as it goes, all of it or that frame alone."""
        try:
            at = start + 5 + data[start + 4]
            tag, redelivered, exchange = ARGUMENTS(data, at)
            key = at + 10 + exchange
            fits = key + 1 + data[key] == end
        except (IndexError, struct.error):
            fits = False
        if not fits:
            raise BrokenStream("The broker sent a delivery whose arguments do not fit their frame")
        consumer = self._consumers.get(data[start + 5 : at])
        if consumer is None:
            raise BrokenStream("The broker sent a delivery for a consumer that does not exist")
        routing = data[at + 9 : end]
        redelivered = redelivered == 1
        total = len(data)
        if total - end > 30:
            mark, size, _, left = TO_HEADER(data, end)
            head_end = end + 8 + size
            if mark == self._to_header and LEAST_HEADER <= size <= self._max_frame and head_end + 8 < total:
                mark, length = TO_BODY(data, head_end)
                stop = head_end + 8 + length
                if (
                    mark == self._to_body
                    and 0 < length == left <= self._whole
                    and stop < total
                    and data[stop] == END
                ):
                    self._finish(
                        consumer,
                        tag,
                        redelivered,
                        routing,
                        data[end + 8 : head_end],
                        data[head_end + 8 : stop],
                    )
                    return stop + 1
        self._delivery = consumer, tag, redelivered, routing
        self._expected = HEADER
        self.touched_at = self._inbox.now
        return end + 1

    def _head(self, data: bytes, start: int, end: int) -> None:
        """Take the content header of the delivery that has begun."""
        if end - start < LEAST_HEADER:
            raise BrokenStream(f"The broker sent a content header of {end - start} bytes")
        self._header = data[start:end]
        (self._left,) = BODY_SIZE(data, start + 4)
        self._kept = self._left <= self._max_body
        self._expected = BODY
        if not self._left:
            self._complete()

    def _add(self, data: bytes, start: int, end: int) -> None:
        """Take a part of the body of the delivery that has begun."""
        self._left -= end - start
        if self._left < 0:
            raise BrokenStream("The broker sent a body that is longer than its header says")
        if self._kept:
            self._parts.append(data[start:end])
        if not self._left:
            self._complete()

    def _complete(self) -> None:
        """Hand on the delivery that came frame by frame."""
        raw, self._parts = b"".join(self._parts), []
        self._expected = METHOD
        self._finish(*self._delivery, self._header, raw)

    def _finish(
        self, consumer: Consumer, tag: int, redelivered: bool, routing: bytes, header: bytes, raw: bytes
    ) -> None:
        """Hand on a delivery, unless the channel is closed."""
        if not consumer.alive:
            self.settler.dropped += 1
            return
        inbox = self._inbox
        message: Message[Any] = Message(consumer, tag, redelivered, routing, header, raw, inbox.now)
        self._outstanding[tag] = message
        consumer.outstanding += 1
        inbox.messages.append(message)
