"""The watchdog: what takes too long is ended at the time for which its timer was set."""

import pytest

from flow.stages.mark import Mark, Watchdog
from tests.messages import ManualClock

pytestmark = pytest.mark.anyio


async def test_a_sum_that_was_rounded_is_not_waited_for_once_more() -> None:
    """The timer would be set for the same moment again and again, until the clock has moved on."""
    clock = ManualClock()
    clock.time = next(time for time in (1000 + n / 7 for n in range(1000)) if time + 440.0 - time < 440.0)
    mark: Mark[int] = Mark()
    mark.work, mark.since = 1, clock.now()
    watchdog = Watchdog([mark], 440.0, clock)

    watchdog.watch()
    clock.jump()

    assert mark.scope.cancel_called
