"""What a broker sends, marshalled by pamqp, and what our side made of it."""

from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import Any

import pamqp.frame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from flow.broker.deliveries import Deliveries, Inbox
from flow.broker.frames import FrameCutter
from flow.broker.settling import Consumer, Settler
from flow.message import Message

HEARTBEAT = pamqp.frame.marshal(Heartbeat(), 0)


def frame(method: Any, channel: int = 1) -> bytes:
    return pamqp.frame.marshal(method, channel)


@dataclass
class Delivery:
    """One delivery as the broker means it."""

    tag: int
    body: bytes = b"{}"
    channel: int = 1
    consumer: str = "one"
    exchange: str = "deliver"
    key: str = "org.system.action"
    redelivered: bool = False
    headers: dict[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    timestamp: datetime | None = None

    def header(self) -> bytes:
        """The content of the header frame."""
        properties = Basic.Properties(
            headers=self.headers or None, message_id=self.message_id, timestamp=self.timestamp
        )
        return ContentHeader(body_size=len(self.body), properties=properties).marshal()

    def frames(self, frame_max: int = 4096) -> list[bytes]:
        """Method, header and as many bodies as *frame_max* asks for; 0 is no limit."""
        method = Basic.Deliver(self.consumer, self.tag, self.redelivered, self.exchange, self.key)
        header = self.header()
        piece = frame_max - 8 if frame_max else len(self.body) or 1
        bodies = [self.body[start : start + piece] for start in range(0, len(self.body), piece)]
        return [
            frame(method, self.channel),
            raw_frame(2, self.channel, header),
            *(frame(ContentBody(body), self.channel) for body in bodies),
        ]

    def wire(self, frame_max: int = 4096) -> bytes:
        return b"".join(self.frames(frame_max))

    def expected(self) -> tuple[Any, ...]:
        """What `seen` says of its message."""
        routing = short(self.exchange) + short(self.key)
        return self.consumer, self.tag, self.redelivered, routing, self.header(), self.body


def raw_frame(kind: int, channel: int, content: bytes, end: bytes = b"\xce") -> bytes:
    size = len(content).to_bytes(4, "big")
    return bytes([kind]) + channel.to_bytes(2, "big") + size + content + end


def short(text: str) -> bytes:
    return bytes([len(text.encode())]) + text.encode()


def seen(message: Message[Any]) -> tuple[Any, ...]:
    origin = message.origin
    assert isinstance(origin, Consumer)
    return (
        origin.consumer_tag,
        message.tag,
        message.redelivered,
        message.routing,
        message.header,
        message.raw,
    )


class Line:
    """Cutter and deliveries without a socket: what is fed, and what comes out of it."""

    def __init__(
        self, channels: tuple[int, ...] = (1,), *, max_body: int = 1 << 20, limit: int = 4096 - 8
    ) -> None:
        self.passed: list[bytes] = []
        self.written: list[bytes] = []
        self.inbox = Inbox()
        self.cutter = FrameCutter(self.passed.append)
        self.cutter.limit = limit
        self.settlers: dict[int, Settler] = {}
        self.deliveries: dict[int, Deliveries] = {}
        for channel in channels:
            settler = Settler(channel, self.written.append, lambda callback: None)
            settler.consumer("queue", "one", 100)
            settler.consumer("other queue", "two", 100)
            deliveries = Deliveries(channel, settler, self.inbox, max_body=max_body, max_frame=limit)
            self.cutter.routes[channel] = deliveries.take
            self.settlers[channel], self.deliveries[channel] = settler, deliveries

    def feed(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self.cutter.feed(chunk)

    @property
    def messages(self) -> list[tuple[Any, ...]]:
        return [seen(message) for message in self.inbox.messages]


def cut(data: bytes, offsets: list[int]) -> list[bytes]:
    """Cut *data* at *offsets*, which may repeat and come in any order."""
    edges = [0, *sorted(offset % (len(data) + 1) for offset in offsets), len(data)]
    return [data[start:end] for start, end in pairwise(edges) if start < end]
