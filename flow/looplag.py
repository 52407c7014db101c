"""How late the event loop is: what blocks it delays heartbeats, deadlines and everything else."""

import asyncio

from flow.histogram import Histogram

INTERVAL = 0.5  # seconds between two measurements
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class LoopLag:
    """Measures how late a timer fires, twice a second."""

    def __init__(self) -> None:
        """Measure nothing yet; `start` does."""
        self.last = 0.0
        """How late the last timer was, in seconds."""
        self.histogram = Histogram(BUCKETS)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Measure the running loop from now on."""
        self._wait(asyncio.get_running_loop())

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, loop: asyncio.AbstractEventLoop) -> None:
        due = loop.time() + INTERVAL
        self._timer = loop.call_at(due, self._measure, loop, due)

    def _measure(self, loop: asyncio.AbstractEventLoop, due: float) -> None:
        self.last = max(0.0, loop.time() - due)
        self.histogram.observe(self.last)
        self._wait(loop)
