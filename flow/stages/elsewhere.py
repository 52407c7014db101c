"""Messages whose claims somebody else has, until they are to be looked at again."""

from collections.abc import Callable
from typing import Any

from flow.clock import Clock, Timer
from flow.message import Message, State

SOON = 0.5  # seconds; a claim has ended by then, or another copy of the message here
LOOK, LONGEST = 5.0, 30.0  # seconds between two looks at a claim, before it ends
AGE = 4  # they grow with its age, as an old one is most likely a killed worker's: a quarter of it

Later = Callable[[Message[Any]], None]


class Elsewhere:
    """Keeps messages outside of the stages, unacknowledged."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        """Take for how many *seconds* things are claimed."""
        self._clock = clock
        self._seconds = seconds
        self._timers: dict[Message[Any], Timer] = {}

    def __len__(self) -> int:
        """Return how many messages are kept."""
        return len(self._timers)

    def keep(self, message: Message[Any], left: float, later: Later) -> None:
        """Keep *message*, then give it to *later*; its claim ends in *left* seconds, 0 if not known."""
        message.state = State.BATCHED
        delay = SOON if left <= 0 else min(left + SOON, LONGEST, max(LOOK, (self._seconds - left) / AGE))
        when = self._clock.now() + delay
        self._timers[message] = self._clock.call_at(when, lambda: self._look(message, later))

    def discard_stale(self) -> None:
        """Forget those whose session ended: the broker delivers them again."""
        for message in [one for one in self._timers if one.state is State.STALE]:
            self._timers.pop(message).cancel()

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Keep the messages of *queue*, or all, no longer, and return them."""
        found = [message for message in self._timers if queue in (None, message.queue)]
        for message in found:
            self._timers.pop(message).cancel()
        return found

    def _look(self, message: Message[Any], later: Later) -> None:
        del self._timers[message]
        if message.state is State.BATCHED:
            later(message)
