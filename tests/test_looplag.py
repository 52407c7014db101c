"""The lag of the loop is what blocked it."""

import time

import anyio
import pytest

from flow.looplag import INTERVAL, LoopLag

pytestmark = pytest.mark.anyio


async def measured(lag: LoopLag, count: int) -> None:
    with anyio.fail_after(20):
        while lag.histogram.count < count:  # noqa: ASYNC110  # it measures by itself and tells nobody
            await anyio.sleep(0.01)


@pytest.mark.slow
async def test_a_blocked_loop_is_measured_and_a_free_one_is_not_late() -> None:
    lag = LoopLag()
    lag.start()

    time.sleep(INTERVAL + 0.4)  # noqa: ASYNC251  # the fault: the loop is blocked
    await measured(lag, 1)
    blocked = lag.last
    await measured(lag, 2)
    lag.stop()

    assert blocked >= 0.35
    assert lag.last < blocked
    assert lag.histogram.total >= blocked


async def test_nothing_is_measured_after_the_end() -> None:
    lag = LoopLag()
    lag.start()
    lag.stop()

    later = LoopLag()
    later.start()
    await measured(later, 1)  # the first one would have measured before
    later.stop()

    assert lag.histogram.count == 0
    assert lag.last == 0.0
