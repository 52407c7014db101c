"""Keeps messages unacknowledged until the time they asked for has come."""

from collections import Counter
from collections.abc import Callable
from typing import Any

from flow.clock import Clock, Timer
from flow.message import Message, State

LONGEST = 600.0  # seconds; a hold must end well before the broker's acknowledgement timeout of 30 minutes
SHARE = 4  # at most a quarter of a queue's window is held


class Holder:
    """Holds retried messages whose `after` differs from the delay of the retry loop.

    Shorter: held, then worked again here. Longer: held for the difference, then rejected into the loop.
    """

    def __init__(
        self,
        clock: Clock,
        retry_delay: float,
        *,
        again: Callable[[Message[Any]], None],
        reject: Callable[[Message[Any]], None],
        early: Callable[[], None],
    ) -> None:
        """Take what to do when the time has come, and *early*, called for each that had to go before it."""
        self._clock = clock
        self._retry_delay = retry_delay
        self._again = again
        self._reject = reject
        self._early = early
        self._timers: dict[Message[Any], Timer] = {}
        self._counts: Counter[str] = Counter()  # of what is held, by queue

    @property
    def held(self) -> int:
        """How many messages are held."""
        return len(self._timers)

    def hold(self, message: Message[Any], after: float) -> bool:
        """Hold *message* for another attempt in *after* seconds; False when it must be rejected now."""
        here = after < self._retry_delay
        wait = after if here else after - self._retry_delay
        if wait <= 0 and not here:
            return False
        if wait > LONGEST or self._counts[message.queue] >= max(1, message.origin.prefetch // SHARE):
            if not here:
                self._early()
            return False
        if not message.origin.alive:
            return False
        self._keep(message, wait, self._ready if here else self._over)
        return True

    def keep(self, message: Message[Any]) -> None:
        """Hold *message* for another attempt after the retry delay; for queues that cannot reject safely."""
        self._keep(message, self._retry_delay, self._ready)

    def let_go(self, message: Message[Any]) -> None:
        """Forget *message*, whose session ended."""
        if message in self._timers:
            self._take(message).cancel()

    def release(self, queue: str) -> list[Message[Any]]:
        """Hold the messages of *queue* no longer, and return them."""
        held = [message for message in self._timers if message.queue == queue]
        for message in held:
            self.let_go(message)
        return held

    def drain(self) -> None:
        """Reject everything that is held."""
        for message in list(self._timers):
            self.let_go(message)
            self._reject(message)

    def _keep(self, message: Message[Any], wait: float, over: Callable[[Message[Any]], None]) -> None:
        message.state = State.HELD
        self._counts[message.queue] += 1
        self._timers[message] = self._clock.call_at(self._clock.now() + wait, lambda: over(message))

    def _take(self, message: Message[Any]) -> Timer:
        self._counts[message.queue] -= 1
        return self._timers.pop(message)

    def _ready(self, message: Message[Any]) -> None:
        self._take(message)
        message.held += 1
        message.decision = None
        message.state = State.WAITING
        self._again(message)

    def _over(self, message: Message[Any]) -> None:
        self._take(message)
        self._reject(message)
