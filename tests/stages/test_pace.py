"""The lines before the rate limit, on the clock of the test."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.ratelimit import RateLimit
from flow.stages.pace import Pace
from tests.messages import ManualClock, MemoryOrigin
from tests.stages.conftest import quiet

pytestmark = pytest.mark.anyio

ORIGIN = MemoryOrigin()


class Callers:
    """Calls that go when the limit lets them, in `gone`."""

    def __init__(self, tasks: Any, limit: RateLimit | None) -> None:
        self.clock = ManualClock()
        self.metrics = PipelineMetrics("numbers", [])
        self.pace = Pace(limit, self.metrics, self.clock)
        self.gone: list[tuple[str, float]] = []
        self._tasks = tasks
        self._began = self.clock.now()

    async def come(self, name: str, count: int, key: int = 1) -> anyio.CancelScope:
        """Let a call with *count* messages come; return what cancels it."""
        scope = anyio.CancelScope()
        self._tasks.start_soon(self._call, name, count, ORIGIN.message({"n": key}), scope)
        await quiet()
        return scope

    async def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)
        await quiet()

    async def _call(self, name: str, count: int, first: Message[Any], scope: anyio.CancelScope) -> None:
        with scope:
            async with self.pace.place() as place:
                while await self.pace.resumed():
                    if await place.passes(first, count):
                        self.gone.append((name, self.clock.now() - self._began))
                        return
        self.gone.append((f"not {name}", self.clock.now() - self._began))


@pytest.fixture
async def tasks() -> AsyncIterator[Any]:
    async with anyio.create_task_group() as group:
        yield group
        group.cancel_scope.cancel()


async def test_who_comes_later_waits_for_its_turn_although_it_needs_less(tasks: Any) -> None:
    callers = Callers(tasks, RateLimit(messages=10, per=10.0))
    await callers.come("first", 10)
    await callers.come("large", 10)
    await callers.advance(5.0)
    await callers.come("small", 1)

    await callers.advance(5.0)
    await callers.advance(1.0)

    assert callers.gone == [("first", 0.0), ("large", 10.0), ("small", 11.0)]
    assert callers.metrics.rate_limit_wait_seconds_total == 10.0 + 6.0


async def test_limits_have_lines_of_their_own(tasks: Any) -> None:
    callers = Callers(tasks, RateLimit(messages=1, per=10.0, key=lambda message: message.raw))
    await callers.come("first", 1)
    await callers.come("second", 1)

    await callers.come("other", 1, key=2)

    assert callers.gone == [("first", 0.0), ("other", 0.0)]


async def test_who_goes_away_holds_up_nobody(tasks: Any) -> None:
    """At the head, or in the middle of the line."""
    callers = Callers(tasks, RateLimit(messages=10, per=10.0))
    await callers.come("first", 10)
    head = await callers.come("head", 10)
    middle = await callers.come("middle", 10)
    await callers.come("last", 1)
    middle.cancel()
    await callers.advance(2.0)
    head.cancel()
    await quiet()

    assert callers.gone == [("first", 0.0), ("not middle", 2.0), ("not head", 2.0), ("last", 2.0)]
    assert not callers.pace.lines


async def test_nobody_goes_after_the_stop_and_nothing_is_taken(tasks: Any) -> None:
    callers = Callers(tasks, RateLimit(messages=1, per=10.0))
    async with callers.pace.place() as place:
        assert await callers.pace.resumed()
        callers.pace.stop()
        passed = await place.passes(ORIGIN.message(1), 1)
    assert callers.pace.limiter is not None

    assert not passed
    assert not await callers.pace.resumed()
    assert (
        callers.pace.limiter.delay(callers.pace.limiter.key(ORIGIN.message(1)), 1, callers.clock.now()) == 0.0
    )


async def test_a_stop_tells_the_whole_line(tasks: Any) -> None:
    callers = Callers(tasks, RateLimit(messages=1, per=10.0))
    for name in "abcd":
        await callers.come(name, 1)

    callers.pace.stop()
    await quiet()

    assert callers.gone == [("a", 0.0), ("not b", 0.0), ("not c", 0.0), ("not d", 0.0)]


@pytest.mark.parametrize("limit", [None, RateLimit(messages=1, per=10.0)])
async def test_while_it_is_halted_nobody_goes(tasks: Any, limit: RateLimit | None) -> None:
    callers = Callers(tasks, limit)
    callers.pace.halt()
    callers.pace.halt()
    await callers.come("one", 1)
    await callers.advance(20.0)
    before = list(callers.gone)

    callers.pace.resume()
    await quiet()

    assert before == []
    assert callers.gone == [("one", 20.0)]


async def test_who_is_woken_keeps_its_place(tasks: Any) -> None:
    callers = Callers(tasks, RateLimit(messages=10, per=10.0))
    await callers.come("first", 10)
    await callers.come("large", 10)
    await callers.come("small", 1)

    for _ in range(11):
        callers.pace.wake()
        await callers.advance(1.0)

    assert callers.gone == [("first", 0.0), ("large", 10.0), ("small", 11.0)]


async def test_only_the_head_of_a_line_has_a_timer(tasks: Any) -> None:
    callers = Callers(tasks, RateLimit(messages=1, per=10.0))

    for n in range(50):
        await callers.come(str(n), 1)

    assert callers.clock.armed == 1
