"""What a worker has in hand since when, and the watchdog that looks at it."""

from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import anyio

from flow.clock import Clock, Timer
from flow.message import Message

T = TypeVar("T")
Work = Message[Any] | list[Message[Any]]
"""What a worker of the processor has in hand: a message, or a chunk that it prepares."""

NOT_STARTED = -1  # in place of an epoch: the delivering call has not started, or its end was taken note of


class Mark(Generic[T]):
    """One worker's work in hand; the watchdog and a drain end it by cancelling its scope."""

    __slots__ = ("epoch", "scope", "since", "work")

    def __init__(self) -> None:
        self.work: T | None = None
        self.since = 0.0  # monotonic seconds
        self.epoch = NOT_STARTED  # of the breaker, when the delivering call started
        self.scope = anyio.CancelScope()


def in_hand(mark: Mark[Work]) -> list[Message[Any]]:
    """Return the messages that a worker has in hand."""
    work = mark.work
    return work if isinstance(work, list) else [] if work is None else [work]


class Watchdog:
    """Ends callbacks that run longer than *timeout* seconds; one timer for all of them, none per message."""

    def __init__(self, marks: Sequence[Mark[T]], timeout: float, clock: Clock) -> None:
        self._marks = marks
        self._timeout = timeout
        self._clock = clock
        self._timer: Timer | None = None

    def watch(self) -> None:
        """Look at the marks from now on; called when work starts."""
        if self._timer is None:
            self._timer = self._clock.call_at(self._clock.now() + self._timeout, self._look)

    def stop(self) -> None:
        """Look no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        now = self._clock.now()
        oldest = now  # one that was cancelled and goes on is looked at no sooner than a new one
        for mark in self._marks:
            if mark.work is None:
                continue
            if now >= mark.since + self._timeout:  # the very sum for which the timer was set
                mark.scope.cancel()
            else:
                oldest = min(oldest, mark.since)
        if any(mark.work is not None for mark in self._marks):
            self._timer = self._clock.call_at(oldest + self._timeout, self._look)
