"""Messages and an origin in memory, for tests of the parts behind the broker wing."""

from collections.abc import Mapping
from typing import Any

import msgspec

from flow.message import Message, Properties


class MemoryOrigin:
    """A queue in memory: it keeps what was settled how, in order."""

    def __init__(self, queue: str = "numbers", prefetch: int = 1000) -> None:
        self.queue = queue
        self.prefetch = prefetch
        self.outstanding = 0
        self.alive = True
        self.tag = 0
        self.made: list[Message[Any]] = []
        self.acked: list[Message[Any]] = []
        self.rejected: list[Message[Any]] = []
        self.released: list[Message[Any]] = []
        self.headers: Mapping[str, Any] = {}
        self.given: dict[bytes, Properties] = {}

    def message(
        self, body: Any, *, received_at: float = 0.0, redelivered: bool = False, attempt: int = 1
    ) -> Message[Any]:
        """Make the delivery of *body* (JSON unless bytes), counted as outstanding."""
        self.tag += 1
        self.outstanding += 1
        raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
        header = b"\x00\x3c\x00\x00" + len(raw).to_bytes(8, "big") + b"\x00\x00"
        if attempt > 1:
            header += b"x-death" + self.tag.to_bytes(8, "big")
            deaths = [{"queue": self.queue, "reason": "rejected", "count": attempt - 1}]
            self.given[header] = Properties(headers={"x-death": deaths})
        routing = b"\x00" + bytes([len(self.queue)]) + self.queue.encode()
        made: Message[Any] = Message(self, self.tag, redelivered, routing, header, raw, received_at)
        self.made.append(made)
        return made

    def ack(self, message: Message[Any]) -> None:
        self._settle(message, self.acked)

    def reject(self, message: Message[Any]) -> None:
        self._settle(message, self.rejected)

    def release(self, message: Message[Any]) -> None:
        self._settle(message, self.released)

    def properties(self, header: bytes) -> Properties:
        return self.given.get(header, Properties())

    @property
    def settled(self) -> list[Message[Any]]:
        return [*self.acked, *self.rejected, *self.released]

    def _settle(self, message: Message[Any], verb: list[Message[Any]]) -> None:
        assert self.alive, "settled on a dead session"
        assert all(message is not one for one in self.settled), "settled twice"
        verb.append(message)
        self.outstanding -= 1


class ManualClock:
    """A clock that a test turns; timers fire in order while it is turned."""

    def __init__(self) -> None:
        self.time = 1000.0
        self._timers: list[ManualTimer] = []

    def now(self) -> float:
        return self.time

    def call_at(self, when: float, callback: Any) -> "ManualTimer":
        timer = ManualTimer(when, callback)
        self._timers.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        """Turn the clock, firing what is due at its time."""
        end = self.time + seconds
        while True:
            self._timers = [timer for timer in self._timers if not timer.cancelled]
            due = min(
                (timer for timer in self._timers if timer.when <= end), key=lambda t: t.when, default=None
            )
            if due is None:
                break
            self._timers.remove(due)
            self.time = max(self.time, due.when)
            due.callback()
        self.time = end


class ManualTimer:
    """One timer of a `ManualClock`."""

    def __init__(self, when: float, callback: Any) -> None:
        self.when = when
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True
