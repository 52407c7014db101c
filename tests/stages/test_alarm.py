"""When slots wake up, on the clock of the test."""

from typing import Any

import anyio
import pytest

from flow.batcher import Batcher
from flow.batching import Batching
from flow.metrics import PipelineMetrics
from flow.stages.alarm import Alarm
from flow.stages.pace import Pace
from tests.messages import ManualClock, MemoryOrigin
from tests.stages.conftest import quiet

pytestmark = pytest.mark.anyio

ORIGIN = MemoryOrigin()


class Slots:
    """Slots that wait to be woken, counted in `woken`."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.pace = Pace(None, PipelineMetrics("numbers", []), self.clock)
        self.batcher = Batcher("default", Batching(size=2, timeout=1.0, concurrency=3))
        self.alarm = Alarm(self.batcher, self.pace, self.clock)
        self.woken = 0

    def add(self, key: int) -> None:
        self.batcher.add(ORIGIN.message(1), key, self.clock.now())
        self.alarm.look()

    async def slot(self) -> None:
        await self.alarm.wait()
        self.woken += 1


@pytest.fixture
async def slots() -> Any:
    slots = Slots()
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(slots.slot)
        await quiet()
        yield slots
        tasks.cancel_scope.cancel()


async def test_a_burst_wakes_one_slot(slots: Slots) -> None:
    """Which wakes the next one while there is more to take, once it runs."""
    for key in (1, 1, 2, 2, 3, 3):
        slots.add(key)
    await quiet()
    first = slots.woken

    slots.alarm.look()
    await quiet()

    assert (first, slots.woken) == (1, 2)


async def test_a_batch_that_is_due_wakes_one_slot(slots: Slots) -> None:
    slots.add(1)
    slots.add(2)
    await quiet()
    before = slots.woken

    slots.clock.advance(1.0)
    await quiet()

    assert (before, slots.woken, slots.clock.armed) == (0, 1, 1)


async def test_nothing_is_due_while_nothing_may_start(slots: Slots) -> None:
    """What is overdue would be due again and again."""
    slots.pace.halt()
    slots.add(1)
    slots.clock.advance(1.0)
    await quiet()
    halted = (slots.woken, slots.clock.armed)

    slots.pace.resume()
    slots.alarm.look()
    slots.clock.advance(0.1)
    await quiet()

    assert (halted, slots.woken) == ((0, 0), 1)


async def test_what_is_due_after_the_stop_wakes_nobody(slots: Slots) -> None:
    slots.add(1)
    slots.alarm.stop()

    slots.clock.advance(1.0)
    await quiet()

    assert slots.woken == 0
