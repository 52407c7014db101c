"""When the slots of a batcher wake up: a batch may go, or the next one is due."""

import math

from flow.batcher import Batcher
from flow.clock import Clock, Timer
from flow.stages.bell import Bell
from flow.stages.pace import Pace


class Alarm:
    """Wakes one slot at a time: it wakes the next one while there is more to take."""

    def __init__(self, batcher: Batcher, pace: Pace, clock: Clock) -> None:
        self.bell = Bell()
        self._batcher = batcher
        self._pace = pace
        self._clock = clock
        self._timer: Timer | None = None
        self._late: Timer | None = None
        self._rung = False  # a slot was woken and has not run yet

    async def wait(self) -> None:
        """Wait to be woken."""
        await self.bell.wait()
        self._rung = False

    def look(self) -> None:
        """Wake a slot when a batch may go, else see to it that one is woken when the next is due."""
        if not self._batcher.ready:
            self.arm()
        elif not self._rung:
            self._rung = self.bell.waiting > 0
            self.bell.ring()

    def arm(self) -> None:
        """See to it that a slot is woken when the next open batch is due."""
        if self._timer is None and not self._pace.halted:
            due = self._batcher.deadline()
            if due is not None:
                self._timer = self._clock.call_at(due, self._due)

    def expect(self, when: float) -> None:
        """See to it that a slot is woken at *when*, in place of what was expected before; infinite: never."""
        if self._late is not None:
            self._late.cancel()
        self._late = None if when == math.inf else self._clock.call_at(when, self.bell.ring)

    def stop(self) -> None:
        """Wake nobody any more at a time."""
        self.expect(math.inf)
        if self._timer is not None:
            self._timer.cancel()

    def _due(self) -> None:
        self._timer = None
        self.bell.ring()
