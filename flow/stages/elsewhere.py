"""Messages whose claims somebody else has, until they are to be looked at again."""

import logging
from collections.abc import Callable
from typing import Any

from flow.clock import Clock, Timer
from flow.message import Message, State

log = logging.getLogger("flow")

SOON = 0.5  # seconds; a claim has ended by then, or another copy of the message here
LOOK, LONGEST = 5.0, 30.0  # seconds between two looks at a claim, before it ends
AGE = 4  # they grow with its age, as an old one is most likely a killed worker's: a quarter of it

QUIET = 60.0  # seconds between two words about what waits

Later = Callable[[Message[Any]], None]


class Elsewhere:
    """Keeps messages outside of the stages, unacknowledged."""

    def __init__(self, name: str, clock: Clock, seconds: float) -> None:
        """Take the *name* of the pipeline, and for how many *seconds* things are claimed."""
        self._name = name
        self._clock = clock
        self._seconds = seconds
        self._timers: dict[Message[Any], Timer] = {}
        self._ends: dict[Message[Any], float] = {}  # when the claims end that another worker holds
        self._teller: Timer | None = None
        self._quiet_until = 0.0

    def __len__(self) -> int:
        """Return how many messages are kept."""
        return len(self._timers)

    def keep(self, message: Message[Any], left: float, later: Later) -> None:
        """Keep *message*, then give it to *later*; its claim ends in *left* seconds, 0 if not known."""
        message.state = State.BATCHED
        delay = SOON if left <= 0 else min(left + SOON, LONGEST, max(LOOK, (self._seconds - left) / AGE))
        when = self._clock.now() + delay
        self._timers[message] = self._clock.call_at(when, lambda: self._look(message, later))
        if left > 0:
            self._ends[message] = self._clock.now() + left
            if self._teller is None:  # later, so that it counts all that begin to wait together
                soon = self._clock.now() + SOON
                self._teller = self._clock.call_at(max(soon, self._quiet_until), self._tell)

    def discard_stale(self) -> None:
        """Forget those whose session ended: the broker delivers them again."""
        for message in [one for one in self._timers if one.state is State.STALE]:
            self._drop(message)

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Keep the messages of *queue*, or all, no longer, and return them."""
        found = [message for message in self._timers if queue in (None, message.queue)]
        for message in found:
            self._drop(message)
        return found

    def _look(self, message: Message[Any], later: Later) -> None:
        self._drop(message)
        later(message)

    def _drop(self, message: Message[Any]) -> None:
        self._timers.pop(message).cancel()
        self._ends.pop(message, None)

    def _tell(self) -> None:
        self._teller = None
        if self._ends:
            now = self._clock.now()
            self._quiet_until = now + QUIET
            left = max(0.0, max(self._ends.values()) - now)
            log.info(
                "%s: messages wait for claims that another worker holds: %d, for %.0f s at most",
                self._name,
                len(self._ends),
                left,
            )
