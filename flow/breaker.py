"""When a target that does not work is called again; pure: time comes in as a number."""

import random
from collections.abc import Callable
from enum import Enum

ROW = 5  # failures in a row that open the breaker
FIRST = 1.0  # seconds until the first probe
LONGEST = 60.0  # seconds between two probes at most


class Position(Enum):
    """Where a breaker stands."""

    CLOSED = "closed"  # every call may start
    OPEN = "open"  # none may
    PROBING = "probing"  # one with a single message is on its way
    CLOSING = "closing"  # the probe succeeded; with each success one more may run at once


class Breaker:
    """Decides whether calls to one target may start.

    Each call is announced by `start`, and its end by one of `succeeded`, `failed`, `abandoned` or `open`.
    What is still under way from before the breaker opened proves nothing: such ends are not counted.
    """

    __slots__ = (
        "_allowed",
        "_epoch",
        "_random",
        "_row",
        "_running",
        "_slots",
        "_tries",
        "opened_at",
        "position",
        "reason",
        "retry_at",
    )

    def __init__(self, slots: int, random: Callable[[], float] = random.random) -> None:
        """Take the number of calls that run at once when all is well, and a source of numbers in [0, 1)."""
        self.position = Position.CLOSED
        self.reason = ""
        """Why it opened last."""
        self.opened_at: float | None = None
        """Since when the target does not work; None while closed."""
        self.retry_at = 0.0
        """When a probe may start; read only while open."""
        self._slots = slots
        self._random = random
        self._epoch = 0  # counts the openings: calls of an earlier one are stragglers
        self._row = 0
        self._tries = 0  # openings since it was closed
        self._running = 0  # calls of this epoch
        self._allowed = slots

    @property
    def closed(self) -> bool:
        """Whether nothing is held back."""
        return self.position is Position.CLOSED

    @property
    def single(self) -> bool:
        """Whether the next call is the probe, which takes one message only."""
        return self.position is Position.OPEN

    def may_start(self, now: float) -> bool:
        """Tell whether a call may start at *now*."""
        if self.position is Position.CLOSED:
            return True
        if self.position is Position.OPEN:
            return now >= self.retry_at
        return self.position is Position.CLOSING and self._running < self._allowed

    def start(self) -> int:
        """Take note that a call starts that `may_start` allowed; return the epoch to report its end with."""
        if self.position is Position.OPEN:
            self.position = Position.PROBING
        self._running += 1
        return self._epoch

    def succeeded(self, epoch: int) -> None:
        """Take note that a call returned, or ended in a verdict other than `Unavailable`."""
        if epoch != self._epoch:
            return
        self._running -= 1
        self._row = 0
        if self.position is Position.CLOSED:
            return
        self._allowed = 2 if self.position is Position.PROBING else self._allowed + 1
        self.position = Position.CLOSING
        if self._allowed > self._slots:
            self._close()

    def failed(self, epoch: int, reason: str, now: float) -> bool:
        """Take note that a call failed as a whole with anything but a verdict.

        Returns whether the target counts as down: the messages are kept then, and no attempt is spent.
        """
        if epoch == self._epoch:
            self._running -= 1
            self._row += 1
            if self.position is not Position.CLOSED or self._row >= ROW:
                self.open(reason, None, now)
        return not self.closed

    def abandoned(self, epoch: int) -> None:
        """Take note that a call ended without telling anything about the target: it was cancelled."""
        if epoch != self._epoch:
            return
        self._running -= 1
        if self.position is Position.PROBING:
            self.position = Position.OPEN

    def open(self, reason: str, after: float | None, now: float) -> None:
        """Start nothing until *after* seconds from *now*.

        None or 0: after 1 second, doubling up to 60 with each opening until it is closed again; each wait is
        shortened at random by up to half, so that workers do not probe in step.
        """
        self.reason = reason
        if self.position is Position.OPEN:
            if after is not None:
                self.retry_at = max(self.retry_at, now + after)
            return
        if after is None or after <= 0:
            after = min(LONGEST, FIRST * 2.0 ** min(self._tries, 10)) * (1 - self._random() / 2)
        self.position = Position.OPEN
        self.retry_at = now + after
        if self.opened_at is None:
            self.opened_at = now
        self._tries += 1
        self._epoch += 1
        self._row = self._running = 0

    def _close(self) -> None:
        self.position = Position.CLOSED
        self.opened_at = None
        self._tries = self._row = 0
