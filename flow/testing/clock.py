"""A clock that a test turns."""

from collections.abc import Callable
from heapq import heappop, heappush

ROUNDING = 1e-6  # seconds; a timer may find that it was called a little early, and wait for the rest


class VirtualTimer:
    """A callback that has not been called yet."""

    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        """Do not call it."""
        self.cancelled = True


class VirtualClock:
    """Time that stands still until it is turned; timers are called in order while it is."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.armed = 0
        """How many timers were ever set."""
        self._timers: list[tuple[float, int, VirtualTimer]] = []

    def now(self) -> float:
        """Return the virtual seconds."""
        return self.time

    def call_at(self, when: float, callback: Callable[[], None]) -> VirtualTimer:
        """Call *callback* once the clock is turned to *when*."""
        timer = VirtualTimer(callback)
        self.armed += 1
        heappush(self._timers, (when, self.armed, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Turn the clock by *seconds*, calling what is due on the way at its time."""
        end = self.time + seconds
        while (when := self._next()) is not None and when <= end:
            self.jump()
        self.time = max(self.time, end)

    def jump(self) -> bool:
        """Turn the clock to the next timer and call all that are due then; False when there is none."""
        when = self._next()
        if when is None:
            return False
        # Time never stands still between two jumps: a timer that waits for a rounding error would be set for
        # ever.
        self.time = when if when > self.time else self.time + ROUNDING
        due = []
        while (when := self._next()) is not None and when <= self.time:
            due.append(heappop(self._timers)[2])
        for timer in due:
            if not timer.cancelled:
                timer.callback()
        return True

    def _next(self) -> float | None:
        while self._timers and self._timers[0][2].cancelled:
            heappop(self._timers)
        return self._timers[0][0] if self._timers else None
