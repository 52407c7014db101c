"""The time of the broker, which a test can move forward."""

import heapq
import logging
import time
from collections.abc import Callable
from itertools import count

import anyio

log = logging.getLogger(__name__)


class Alarm:
    """A call at a time; `cancel` takes it back."""

    __slots__ = ("call", "when")

    def __init__(self, when: float, call: Callable[[], None]) -> None:
        self.when = when
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        """Do not call."""
        self.call = None


class Clock:
    """Seconds that pass by themselves, and by `advance` when a test does not want to wait."""

    def __init__(self) -> None:
        self._ahead = 0.0
        self._alarms: list[tuple[float, int, Alarm]] = []
        self._numbers = count()
        self._changed = anyio.Event()

    def now(self) -> float:
        """Monotonic seconds."""
        return time.monotonic() + self._ahead

    def time(self) -> int:
        """Seconds since 1970, for timestamps."""
        return int(time.time() + self._ahead)

    def at(self, when: float, call: Callable[[], None]) -> Alarm:
        """Call *call* once *when*, a time of `now`, has come."""
        alarm = Alarm(when, call)
        heapq.heappush(self._alarms, (when, next(self._numbers), alarm))
        if self._alarms[0][2] is alarm:
            self._changed.set()
        return alarm

    def advance(self, seconds: float) -> None:
        """Let *seconds* pass at once: each alarm on the way rings at its own time."""
        target = self.now() + seconds
        while self._alarms and self._alarms[0][0] <= target:
            self._ahead += max(0.0, self._alarms[0][0] - self.now())
            self._ring()
        self._ahead += max(0.0, target - self.now())

    async def run(self) -> None:
        """Ring the alarms until cancelled."""
        while True:
            self._changed = anyio.Event()
            wait = self._alarms[0][0] - self.now() if self._alarms else float("inf")
            with anyio.move_on_after(wait):
                await self._changed.wait()
            self._ring()

    def _ring(self) -> None:
        now = self.now()
        while self._alarms and self._alarms[0][0] <= now:
            call = heapq.heappop(self._alarms)[2].call
            if call is None:
                continue
            try:
                call()
            except Exception:
                log.exception("The broker failed; this is a defect of it")
