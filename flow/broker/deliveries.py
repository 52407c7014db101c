"""Puts deliveries together from the frames of one channel."""

import struct
from contextlib import suppress
from struct import Struct
from typing import Any

from flow.broker.frames import BODY, END, HEAD, HEADER, METHOD, BrokenStream
from flow.broker.settling import Consumer, Settler
from flow.message import Message

DELIVER, CLOSE, CLOSE_OK = 60 << 16 | 60, 20 << 16 | 40, 20 << 16 | 41  # class and method
LEAST_METHOD = 4  # bytes: class and method
LEAST_HEADER = 14  # bytes: class, weight, size of the body, flags
NAMES = {METHOD: "method", HEADER: "content header", BODY: "body"}

CLASS_AND_METHOD = Struct(">I").unpack_from
ARGUMENTS = Struct(">QBB").unpack_from  # after the consumer tag: delivery tag, redelivered, exchange's length
BODY_SIZE = Struct(">Q").unpack_from
TO_CONSUMER = Struct(">BHIIB").unpack_from  # type, channel, size; class and method; length of the tag
# From the end mark of one frame into the next: end mark, type and channel as one number; size; and more.
TO_HEADER = Struct(">IIIQ").unpack_from  # class and weight; size of the body
TO_BODY = Struct(">II").unpack_from


class Inbox:
    """What one read from the socket brings: its time, and the messages that it completes."""

    __slots__ = ("messages", "now")

    def __init__(self) -> None:
        self.now = 0.0
        self.messages: list[Message[Any]] = []


class Deliveries:
    """Collects method, header and body of each delivery on one channel, which must do nothing but consume.

    Deliveries that are in the buffer as a whole, the rule, are taken in one step each. Otherwise each frame
    is taken as it comes. Both ways give the same messages.
    """

    def __init__(
        self, channel: int, settler: Settler, inbox: Inbox, *, max_body: int, max_frame: int
    ) -> None:
        """Put messages into *inbox* and register them with *settler*; the limits are in bytes.

        A body above *max_body* is not kept: its message has an empty one, and its `size` tells why.
        """
        self.settler = settler
        self.touched_at = 0.0
        """When the last frame of an unfinished delivery came, in seconds of the inbox's clock."""
        self._inbox = inbox
        self._consumers = settler.consumers
        self._outstanding = settler.outstanding
        self._max_body = max_body
        self._max_frame = max_frame
        self._channel = channel
        self._to_header = END << 24 | HEADER << 16 | channel
        self._to_body = END << 24 | BODY << 16 | channel
        self._expected = METHOD
        # Of the delivery that has begun:
        self._method: tuple[Consumer, int, bool, bytes]  # tag, redelivered, routing
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
            due = NAMES[self._expected]
            raise BrokenStream(f"The broker sent a frame of type {kind} where a {due} frame was due")
        if kind == METHOD:
            return self._take_method(data, start, end)
        self.touched_at = self._inbox.now
        if kind == HEADER:
            self._take_header(data, start, end)
        else:
            self._take_body(data, start, end)
        return end + 1

    def end(self) -> None:
        """Note that the channel is closed: what nobody has seen yet is dropped, and all that follows."""
        self.settler.end()
        inbox = self._inbox
        for message in inbox.messages:
            if not message.origin.alive:
                self.settler.withdraw(message)
        inbox.messages = [message for message in inbox.messages if message.origin.alive]

    def _take_method(self, data: bytes, start: int, end: int) -> int:
        if end - start < LEAST_METHOD:
            raise BrokenStream(f"The broker sent a method frame of {end - start} bytes")
        (method,) = CLASS_AND_METHOD(data, start)
        if method == DELIVER:
            first = start - HEAD
            after = self._take_whole(data, first) if self.settler.alive else first
            return after if after > first else self._begin(data, start, end)
        if method in (CLOSE, CLOSE_OK):
            self.end()
        return 0

    def _take_whole(self, data: bytes, position: int) -> int:
        """Take the deliveries that are there as a whole from *position* on; return where they end."""
        channel, to_header, to_body = self._channel, self._to_header, self._to_body
        max_frame, max_whole = self._max_frame, min(self._max_body, self._max_frame)
        consumers, outstanding = self._consumers, self._outstanding
        now, hand_on = self._inbox.now, self._inbox.messages.append
        with suppress(IndexError, KeyError, struct.error):  # the rest is not all here, or not sound
            while True:
                kind, number, size, method, length = TO_CONSUMER(data, position)
                at = position + 12 + length
                tag, redelivered, exchange = ARGUMENTS(data, at)
                key = at + 10 + exchange
                end = position + HEAD + size
                header_mark, header_size, _, body_size = TO_HEADER(data, end)
                header_end = end + 8 + header_size
                body_mark, length = TO_BODY(data, header_end)
                body_end = header_end + 8 + length
                if (
                    data[body_end] != END
                    or body_mark != to_body
                    or header_mark != to_header
                    or not 0 < length == body_size <= max_whole
                    or not LEAST_HEADER <= header_size <= max_frame
                    or key + 1 + data[key] != end
                    or method != DELIVER
                    or number != channel
                    or kind != METHOD
                ):
                    break
                consumer = consumers[data[position + 12 : at]]
                outstanding[tag] = message = Message(
                    consumer,
                    tag,
                    redelivered == 1,
                    data[at + 9 : end],
                    data[end + 8 : header_end],
                    data[header_end + 8 : body_end],
                    now,
                )
                consumer.outstanding += 1
                hand_on(message)
                position = body_end + 1
        return position

    def _begin(self, data: bytes, start: int, end: int) -> int:
        """Take the method frame of a delivery."""
        try:
            at = start + 5 + data[start + 4]
            tag, redelivered, exchange = ARGUMENTS(data, at)
            key = at + 10 + exchange
            fits = key + 1 + data[key] == end
        except (IndexError, struct.error):
            fits = False
        if not fits:
            raise BrokenStream("The broker sent a delivery whose arguments do not fill their frame")
        consumer = self._consumers.get(data[start + 5 : at])
        if consumer is None:
            raise BrokenStream("The broker sent a delivery for a consumer that does not exist")
        self._method = consumer, tag, redelivered == 1, data[at + 9 : end]
        self._expected = HEADER
        self.touched_at = self._inbox.now
        return end + 1

    def _take_header(self, data: bytes, start: int, end: int) -> None:
        if end - start < LEAST_HEADER:
            raise BrokenStream(f"The broker sent a content header of {end - start} bytes")
        self._header = data[start:end]
        (self._left,) = BODY_SIZE(data, start + 4)
        self._kept = self._left <= self._max_body
        self._expected = BODY
        if not self._left:
            self._finish()

    def _take_body(self, data: bytes, start: int, end: int) -> None:
        self._left -= end - start
        if self._left < 0:
            raise BrokenStream("The broker sent a body that is longer than its header says")
        if self._kept:
            self._parts.append(data[start:end])
        if not self._left:
            self._finish()

    def _finish(self) -> None:
        """Hand on the delivery that came frame by frame, unless the channel is closed."""
        raw, self._parts = b"".join(self._parts), []
        self._expected = METHOD
        consumer, tag, redelivered, routing = self._method
        if not consumer.alive:
            self.settler.dropped += 1
            return
        inbox = self._inbox
        message: Message[Any] = Message(consumer, tag, redelivered, routing, self._header, raw, inbox.now)
        self._outstanding[tag] = message
        consumer.outstanding += 1
        inbox.messages.append(message)
