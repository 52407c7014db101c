"""A queue in memory: deliveries are made here, and it keeps what was settled how."""

import math
from collections.abc import Mapping
from typing import Any

import msgspec

from flow.message import Message, Properties, plain_header, routed


class MemoryOrigin:
    """A queue in memory: it keeps what was settled how, in order."""

    def __init__(self, queue: str, prefetch: int = 1000, max_body: float = math.inf) -> None:
        """Take the most bytes of a body; a larger one is announced and not taken, as from a broker."""
        self.queue = queue
        self.prefetch = prefetch
        self.outstanding = 0
        self.alive = True
        self.made: list[Message[Any]] = []
        self.acked: list[Message[Any]] = []
        self.rejected: list[Message[Any]] = []
        self.released: list[Message[Any]] = []
        self.given: dict[bytes, Properties] = {}  # by content header
        self._max_body = max_body
        self._settled: set[Message[Any]] = set()

    def message(
        self,
        body: Any,
        *,
        received_at: float = 0.0,
        redelivered: bool = False,
        attempt: int = 1,
        headers: Mapping[str, Any] | None = None,
        message_id: str | None = None,
        routing_key: str | None = None,
    ) -> Message[Any]:
        """Make the delivery of *body*, counted as outstanding; not decoded.

        An *attempt* above 1 is told by an `x-death` header, as the retry loop of a broker does.
        """
        tag = len(self.made) + 1
        raw = encoded(body)
        headers = dict(headers or {})
        if attempt > 1:
            headers["x-death"] = [{"queue": self.queue, "reason": "rejected", "count": attempt - 1}]
        header = plain_header(len(raw))
        if headers or message_id is not None:
            header += b"x-death" * ("x-death" in headers) + tag.to_bytes(8, "big")
            self.given[header] = Properties(headers=headers, message_id=message_id)
        routing = routed(routing_key or self.queue)
        taken = raw if len(raw) <= self._max_body else b""
        made: Message[Any] = Message(self, tag, redelivered, routing, header, taken, received_at)
        self.made.append(made)
        self.outstanding += 1
        return made

    def ack(self, message: Message[Any]) -> None:
        """Keep *message* as acknowledged."""
        self._settle(message, self.acked)

    def reject(self, message: Message[Any]) -> None:
        """Keep *message* as rejected."""
        self._settle(message, self.rejected)

    def release(self, message: Message[Any]) -> None:
        """Keep *message* as given back."""
        self._settle(message, self.released)

    def properties(self, header: bytes) -> Properties:
        """Return the properties that a message was made with."""
        return self.given.get(header, Properties())

    @property
    def settled(self) -> list[Message[Any]]:
        """What is settled, in whatever way."""
        return [*self.acked, *self.rejected, *self.released]

    def _settle(self, message: Message[Any], verb: list[Message[Any]]) -> None:
        assert self.alive, "settled on a dead session"
        assert message not in self._settled, "settled twice"
        self._settled.add(message)
        verb.append(message)
        self.outstanding -= 1


def encoded(body: Any) -> bytes:
    """Return the bytes of *body*: bytes as they are, text as UTF-8, all else as JSON."""
    if isinstance(body, bytes):
        return body
    return body.encode() if isinstance(body, str) else msgspec.json.encode(body)
