"""Rules of tests/BEHAVIOUR.md that no other test of the stages is about."""

from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.outcome import Reject
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.stages.engine import Engine
from tests.messages import ManualClock, MemoryOrigin
from tests.stages.conftest import Number, Start, quiet
from tests.stages.test_deliverer import Collecting, batches

pytestmark = pytest.mark.anyio


async def test_without_handle_batch_there_is_no_batch_stage(start: Start) -> None:
    """B15: handling delivers, at once, and nothing waits in a batch."""

    class Single(Pipeline[Number]):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            pass

    line = await start(Single)

    await line.push(1, 2)

    assert line.engine.deliverers == {}
    assert line.acked == [1, 2]
    assert set(line.engine.buffered()) == {"processor", "held", "parker"}


async def test_one_of_each_keeps_everything_in_order(start: Start) -> None:
    """G11: one handler and one slot: handled and batched in the order of arrival, whatever waits."""
    handled: list[int] = []

    class Serial(Collecting):
        concurrency = 1
        batching = Batching(size=3, timeout=0.2, concurrency=1)

        async def handle_message(self, message: Message[Number]) -> int:
            await anyio.lowlevel.checkpoint()
            handled.append(message.body.n)
            return message.body.n

        async def handle_batch(self, batch: Batch[int]) -> None:
            await anyio.lowlevel.checkpoint()
            await super().handle_batch(batch)

    line = await start(Serial)
    await line.push(*range(5))
    await line.push(*range(5, 10))
    await line.advance(0.2)

    assert handled == list(range(10))
    assert [bodies for bodies, _ in batches(line)] == [[0, 1, 2], [3, 4, 5], [6, 7, 8], [9]]


async def test_time_is_turned_by_the_test(start: Start) -> None:
    """N08: timers of a day pass without waiting; they do not slide, and a full batch clears its own."""
    day = 86_400.0

    class Patient(Collecting):
        batching = Batching(size=2, timeout=day)

    line = await start(Patient)
    await line.push(1)
    await line.advance(day / 2)
    await line.push(2, 3)
    await line.advance(day - 1)
    early = list(batches(line))
    await line.advance(1)

    assert early == [([1, 2], "size")]
    assert batches(line) == [([1, 2], "size"), ([3], "timeout")]


async def test_what_is_worked_again_counts_against_the_rate_limit(start: Start) -> None:
    """J10: no call of the delivering callback goes round the limit, whatever brought its message."""

    class Limited(Collecting):
        batching = Batching(size=1, concurrency=4)
        rate_limit = RateLimit(calls=1, per=10.0)

    line = await start(Limited)
    await line.push(1)
    await line.push(2, attempt=2)
    await line.push(3, redelivered=True)
    at_first = list(line.acked)
    await line.advance(10.1)
    at_second = list(line.acked)

    await line.advance(10.1)

    assert at_first == [1]
    assert len(at_second) == 2
    assert sorted(line.acked) == [1, 2, 3]


async def test_an_error_of_a_stage_itself_ends_the_engine_loudly() -> None:
    """L05: what no rule foresees is not swallowed: `run` raises it, and every stage ends."""

    class Rejecting(Pipeline[Number]):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            raise Reject("hopeless")

    async def broken(message: Message[Any], reason: str) -> None:
        raise RuntimeError("a bug")

    metrics = PipelineMetrics("rejecting")
    metrics.account("numbers")
    engine = Engine(Rejecting(), metrics, broken, ManualClock())
    origin = MemoryOrigin()
    engine.receive([origin.message({"n": 1})])

    with anyio.fail_after(5), pytest.raises(ExceptionGroup) as raised:
        await engine.run()

    assert raised.group_contains(RuntimeError, match="a bug")
    assert origin.settled == []


async def test_everything_the_broker_grants_is_kept(start: Start) -> None:
    """R40: no buffer drops what a slow worker cannot take yet."""
    gate = anyio.Event()

    class Slow(Pipeline[Number]):
        queue = "numbers"
        concurrency = 1

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            await gate.wait()

    line = await start(Slow, prefetch=50)
    await line.push(*range(50))
    waiting = line.origin.outstanding
    gate.set()
    await quiet()

    assert waiting == 50
    assert line.acked == list(range(50))


async def test_a_session_lost_in_mid_batch_settles_each_message_for_itself(start: Start) -> None:
    """R41: delivered, retried and parked ones each go their way through their own redelivery."""
    gate = anyio.Event()

    class Mixed(Collecting):
        batching = Batching(size=3)

        async def handle_batch(self, batch: Batch[int]) -> None:
            await super().handle_batch(batch)
            await gate.wait()
            batch.retry(batch[1], "busy")
            batch.reject(batch[2], "invalid")

    line = await start(Mixed)
    await line.push(1, 2, 3)
    line.lose()
    gate.set()
    await quiet()

    await line.push(3, 2, 1, redelivered=True)

    assert len(batches(line)) == 1
    assert sorted(line.acked) == [1, 3]
    assert line.rejected == [2]
    assert {n for n, _ in line.parked} == {3}
    assert line.account == {"received": 6, "stale": 3, "delivered": 1, "retrying": 1, "parked": 1}
