"""Time as the stages see it, so that a test can turn the clock."""

import asyncio
import time
from collections.abc import Callable
from typing import Protocol


class Timer(Protocol):
    """A callback that has not been called yet."""

    def cancel(self) -> None:
        """Do not call it."""


class Clock(Protocol):
    """Monotonic seconds and timers."""

    def now(self) -> float:
        """Return monotonic seconds."""

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* once `now()` has reached *when*."""


class LoopClock:
    """The clock of the running event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = time.monotonic  # without the way through the loop: it is read for every message

    def call_at(self, when: float, callback: Callable[[], None]) -> Timer:
        """Call *callback* once `now()` has reached *when*."""
        return self._loop.call_later(max(0.0, when - time.monotonic()), callback)
