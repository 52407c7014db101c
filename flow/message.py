"""A message on its way through a pipeline, and where it came from."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from enum import IntEnum
from hashlib import blake2b
from struct import unpack_from
from typing import Any, Generic, Protocol

from typing_extensions import TypeVar

from flow.errors import DecodeError
from flow.outcome import Decision

B = TypeVar("B", default=Any)

REPLAYS = "x-flow-replays"
"""The header that says how often a message has come back from the park."""

ENCODING_FLAG = 0x40  # in the first byte of the property flags, AMQP 0-9-1 section 4.2.6.1


class State(IntEnum):
    """Where a delivery stands: it moves from WAITING to one of the last three, once."""

    WAITING = 0  # received, no callback has seen it
    RUNNING = 1  # a callback works on it, or its fate is being carried out
    BATCHED = 2  # handled; waits in a batch that is not being delivered yet
    HELD = 3  # decided as retrying; kept unacknowledged until its time
    DECIDED = 4  # its fate is known and could not be told to the broker yet
    SETTLED = 5  # acknowledged, rejected or returned, once
    STALE = 6  # its session ended before anything was decided; the broker delivers it again


@dataclass(frozen=True, slots=True, kw_only=True)
class Properties:
    """The AMQP properties that flow reads, decoded."""

    headers: Mapping[str, Any] = field(default_factory=dict)
    message_id: str | None = None
    content_type: str | None = None
    content_encoding: str | None = None
    timestamp: datetime | None = None


class Origin(Protocol):
    """Where a delivery came from and where it is settled: one queue within one broker session."""

    queue: str
    prefetch: int
    """How many unsettled deliveries the broker grants."""
    outstanding: int
    """How many deliveries are unsettled now."""
    alive: bool
    """False once the session has ended: nothing can be settled through it any more."""

    def ack(self, message: "Message[Any]") -> None:
        """Acknowledge; written together with everything else of this turn of the loop."""

    def reject(self, message: "Message[Any]") -> None:
        """Reject towards the queue's dead-letter exchange."""

    def release(self, message: "Message[Any]") -> None:
        """Give back to the queue."""

    def properties(self, header: bytes) -> Properties:
        """Decode a raw content header.

        Raises:
            DecodeError: it cannot be decoded.
        """


class Message(Generic[B]):
    """One delivery: its body, and what the broker says about it.

    `body` is what the queue held, decoded; after `handle_message`, what that returned. Everything that is
    not needed for every message (headers, exchange, routing key, attempt) is decoded when it is asked for.
    """

    __slots__ = (
        "_properties",
        "_record_id",
        "alone",
        "body",
        "decision",
        "entry",
        "header",
        "held",
        "occurred_at",
        "origin",
        "partition",
        "prepared",
        "raw",
        "received_at",
        "redelivered",
        "routing",
        "state",
        "successor",
        "tag",
        "target_id",
    )

    def __init__(
        self,
        origin: Origin,
        tag: int,
        redelivered: bool,
        routing: bytes,
        header: bytes,
        raw: bytes,
        received_at: float,
    ) -> None:
        """Take what the broker sent; made by the broker wing and by `flow.testing` only."""
        self.origin = origin
        self.tag = tag
        self.redelivered = redelivered
        self.routing = routing  # exchange and routing key as two AMQP short strings
        self.header = header  # the content header frame, class id first
        self.raw = raw
        self.received_at = received_at  # monotonic seconds
        self.state = State.WAITING
        self.partition: int | None = None  # with `partition_key`: which worker and whose batches it is for
        self.alone = False  # suspected of crashing the worker: not to be batched with others
        self.held = 0  # how often it was held here for another attempt
        self.decision: Decision | None = None
        self.entry: Any = None  # with a ledger: what is written of the decision
        self.occurred_at: datetime | None = None  # the record's own time, set by the codec
        self.prepared: Any = None
        self.body: B = None  # type: ignore[assignment]  # set by the codec before any callback sees it
        self.target_id: str | None = None
        """What the target calls the record. A delivering callback may set it; the ledger keeps it."""
        self.successor: Message[B] | None = None  # its redelivery, settled with it when its session has ended
        self._properties: Properties | None = None
        self._record_id: str | None = None

    def __repr__(self) -> str:
        """Show ids only: bodies never appear in logs."""
        name = self.record_id or f"with delivery tag {self.tag}"
        return f"<Message {name} from {self.queue}>"

    @property
    def queue(self) -> str:
        """The name of the queue it was consumed from."""
        return self.origin.queue

    @property
    def exchange(self) -> str:
        """The exchange it was last published to; the retry exchange after a retry."""
        return self.routing[1 : 1 + self.routing[0]].decode("utf-8", "surrogateescape")

    @property
    def routing_key(self) -> str:
        """The key it was last published with; the queue's name after a retry."""
        start = 1 + self.routing[0]
        return self.routing[start + 1 : start + 1 + self.routing[start]].decode("utf-8", "surrogateescape")

    @property
    def properties(self) -> Properties:
        """The AMQP properties, decoded at the first use.

        Raises:
            DecodeError: they cannot be decoded.
        """
        if self._properties is None:
            self._properties = self.origin.properties(self.header)
        return self._properties

    def preload(self) -> None:
        """Decode the properties now; for headers too large for the loop's thread."""
        with suppress(DecodeError):
            self._properties = self.properties

    @property
    def headers(self) -> Mapping[str, Any]:
        """The header table, decoded at the first use; empty when there is none."""
        return self.properties.headers

    @property
    def message_id(self) -> str | None:
        """The AMQP message id, or None."""
        return self.properties.message_id

    @property
    def record_id(self) -> str | None:
        """The id of the record it is about (an action's, a supporter's), for logs and the ledger."""
        return self._record_id

    @property
    def size(self) -> int:
        """The size of the body in bytes as announced; above `len(raw)` when it was too large to be taken."""
        size: int = unpack_from(">Q", self.header, 4)[0]
        return size

    @property
    def encoded(self) -> bool:
        """Whether a content encoding is set; a look at one bit, nothing is decoded."""
        return bool(self.header[12] & ENCODING_FLAG) if len(self.header) > 12 else False

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1: rejections of this queue in `x-death`, and holds in this process.

        Unreadable properties count as none.
        """
        return 1 + self.held + self._rejections()

    def identity(self) -> tuple[str, int, int, str | None, int, bytes]:
        """Return what tells this message from others when its delivery comes again.

        That is the queue, the replays from the park, the rejections, the AMQP message id, and the size and
        the BLAKE2b digest of the body: publishers give one id to several messages, and a body that is too
        large is not here at all.
        """
        try:
            identifier = self.message_id
        except DecodeError:
            identifier = None
        digest = blake2b(self.raw, digest_size=16).digest()
        return self.queue, self._replays(), self._rejections(), identifier, self.size, digest

    def living(self) -> "Message[B] | None":
        """Return the delivery through which this can still be settled: itself, or its latest redelivery.

        That one takes over what was made of it. None: there is none yet; it is stale, to be worked again.
        """
        message = self
        while not message.origin.alive:
            message.state = State.STALE
            successor = message.successor
            if successor is None:
                return None
            successor.body, successor.prepared, successor.held = message.body, message.prepared, message.held
            successor._record_id, successor.occurred_at = message._record_id, message.occurred_at
            successor.alone, successor.target_id = message.alone, message.target_id
            message = successor
        return message

    def _replays(self) -> int:
        if REPLAYS.encode() not in self.header:
            return 0
        try:
            count = self.headers.get(REPLAYS)
        except DecodeError:
            return 0
        return count if isinstance(count, int) else 0

    def _rejections(self) -> int:
        if b"x-death" not in self.header:
            return 0
        try:
            return rejections(self.headers.get("x-death"), self.queue)
        except DecodeError:
            return 0


def rejections(deaths: object, queue: str) -> int:
    """Return how often *queue* rejected, from an `x-death` header.

    Entries are searched by queue and reason, never taken by place: their order differs between broker
    versions (rabbitmq.com/docs/dlx).
    """
    if not isinstance(deaths, list):
        return 0
    for death in deaths:
        if isinstance(death, dict) and death.get("queue") == queue and death.get("reason") == "rejected":
            count = death.get("count", 1)
            return count if isinstance(count, int) and count > 0 else 1
    return 0


def plain_header(size: int) -> bytes:
    """Return the content header of a body of *size* bytes: class Basic, weight 0, no properties."""
    return b"\x00\x3c\x00\x00" + size.to_bytes(8, "big") + b"\x00\x00"


def routed(key: str) -> bytes:
    """Return the routing of a message that the default exchange has brought by *key*.

    Raises:
        ValueError: the key has more than 255 bytes.
    """
    raw = key.encode()
    if len(raw) > 255:
        raise ValueError(f"queues and routing keys have at most 255 bytes, got {len(raw)}")
    return bytes([0, len(raw)]) + raw
