"""Drain, lost sessions, and targets that are down: the engine as a whole."""

import asyncio
from contextlib import suppress
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Retry, Unavailable
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries
from tests.stages.conftest import Line, Number, Start, quiet
from tests.stages.test_deliverer import Collecting, batches

pytestmark = pytest.mark.anyio


class Gated(Collecting):
    """Each call of `handle_batch` waits until the gate is opened."""

    batching = Batching(size=2, timeout=60.0)

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.gate = anyio.Event()

    async def handle_batch(self, batch: Batch[int]) -> None:
        await super().handle_batch(batch)
        await self.gate.wait()


def gate(line: Line) -> anyio.Event:
    pipeline = line.engine.pipeline
    assert isinstance(pipeline, Gated)
    return pipeline.gate


async def test_a_drain_flushes_half_full_batches(start: Start) -> None:
    """K01, K02: everything received is settled, and at once."""

    class Patient(Collecting):
        batching = Batching(size=100, timeout=60.0)

        def batch_key(self, message: Message[int]) -> int:
            return message.body % 2

    line = await start(Patient)
    await line.push(1, 2, 3, 4, 5)

    with anyio.fail_after(5):
        hung = await line.engine.drain(20.0)

    assert hung == 0
    assert sorted(batches(line)) == [([1, 3, 5], "flush"), ([2, 4], "flush")]
    assert line.account == {"received": 5, "delivered": 5}


async def test_what_arrives_during_a_drain_is_settled_or_given_back(start: Start) -> None:
    """K03: worked while the drain works, given back once it starts nothing more."""
    line = await start(Gated)
    await line.push(1, 2)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(line.engine.drain, 10.0)
        await quiet()
        line.send(3)
        gate(line).set()

    assert line.acked == [1, 2]
    assert line.released == [3]
    assert line.account == {"received": 3, "delivered": 2, "returned": 1}


async def test_a_hung_handler_costs_the_others_nothing(start: Start) -> None:
    """K05, K06: the open batch is flushed in time; the hung message goes back and is counted."""

    class Hanging(Collecting):
        concurrency = 2
        batching = Batching(size=100, timeout=60.0)

        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 1:
                await anyio.sleep_forever()
            return message.body.n

    line = await start(Hanging)
    await line.push(1, 2, 3)

    with anyio.fail_after(5):
        hung = await line.engine.drain(0.5)

    assert hung == 1
    assert line.acked == [2, 3]
    assert line.released == [1]
    assert line.account == {"received": 3, "delivered": 2, "returned": 1}


async def test_a_hung_batch_goes_back_at_the_deadline(start: Start) -> None:
    """K05: and with it what had no slot."""
    line = await start(Gated)
    await line.push(*range(10))

    with anyio.fail_after(5):
        hung = await line.engine.drain(0.5)

    assert hung == 2
    assert sorted(line.released) == list(range(10))
    assert line.account == {"received": 10, "returned": 10}


async def test_a_drain_rejects_what_is_held(start: Start) -> None:
    class Later(Pipeline[Number]):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            raise Retry("later", after=5.0)

    line = await start(Later)
    await line.push(1)

    await line.engine.drain(5.0)

    assert line.rejected == [1]
    assert line.account == {"received": 1, "retrying": 1}


async def test_unstarted_messages_of_a_lost_session_are_dropped(start: Start) -> None:
    """R28, L03: only the running one goes on; the others are worked once, when they come again."""
    seen: list[int] = []
    go = anyio.Event()

    class Slow(Pipeline[Number]):
        queue = "numbers"
        concurrency = 1

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            seen.append(message.body.n)
            await go.wait()

    line = await start(Slow)
    await line.push(*range(10))
    line.lose()
    go.set()
    await quiet()
    before = list(seen)

    await line.push(*range(10), redelivered=True)

    assert before == [0]
    assert seen == list(range(10))
    assert line.acked == list(range(10))
    assert line.metrics.duplicates_skipped == 1
    assert line.account == {"received": 20, "stale": 10, "delivered": 10}


async def test_a_running_message_is_settled_through_its_redelivery(start: Start) -> None:
    """R27, R31, L02: it is not started again."""
    line = await start(Gated)
    await line.push(1, 2)
    line.lose()

    await line.push(1, 2, redelivered=True)
    running = len(batches(line))
    gate(line).set()
    await quiet()

    assert running == 1
    assert len(batches(line)) == 1
    assert line.acked == [1, 2]
    assert line.account == {"received": 4, "stale": 2, "delivered": 2}


async def test_a_running_message_survives_several_losses(start: Start) -> None:
    line = await start(Gated)
    await line.push(1, 2)
    for _ in range(3):
        line.lose()
        await line.push(1, 2, redelivered=True)

    gate(line).set()
    await quiet()

    assert len(batches(line)) == 1
    assert line.acked == [1, 2]
    assert line.account == {"received": 8, "stale": 6, "delivered": 2}


async def test_messages_of_a_lost_session_leave_open_batches(start: Start) -> None:
    """R29: they are handled again, and delivered once."""

    class Patient(Collecting):
        batching = Batching(size=3, timeout=60.0)

    line = await start(Patient)
    await line.push(1, 2)
    line.lose()
    await line.push(1, 2, redelivered=True)

    await line.push(3)

    assert batches(line) == [([1, 2, 3], "size")]
    assert line.acked == [1, 2, 3]


async def test_handling_that_ends_after_a_loss_waits_for_the_redelivery(start: Start) -> None:
    """A message in `handle_message` of a batching pipeline: its redelivery takes its place in the batch."""
    go = anyio.Event()

    class Slow(Collecting):
        concurrency = 4
        batching = Batching(size=2, timeout=60.0)

        async def handle_message(self, message: Message[Number]) -> int:
            await go.wait()
            return message.body.n

    line = await start(Slow)
    await line.push(1, 2)
    line.lose()
    await line.push(1, 2, redelivered=True)
    go.set()
    await quiet()

    assert batches(line) == [([1, 2], "size")]
    assert line.acked == [1, 2]


async def test_a_message_published_again_is_worked_again(start: Start) -> None:
    """Only a delivery marked redelivered is answered from memory."""
    line = await start(Gated)
    await line.push(1, 2)
    line.lose()
    gate(line).set()
    await quiet()

    await line.push(1, 2)

    assert len(batches(line)) == 2


async def test_settling_twice_or_on_a_dead_session_is_nothing(start: Start) -> None:
    """The origin of these tests refuses both; the engine never tries."""
    line = await start(Gated)
    await line.push(1, 2, 3, 4)
    old = line.origin
    line.lose()

    gate(line).set()
    await quiet()

    assert old.settled == []
    assert line.metrics.stale_settles == 4


class Down(Collecting):
    """The target works only while `up`."""

    batching = Batching(size=2, timeout=60.0)

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.up = False
        self.calls = 0

    async def handle_batch(self, batch: Batch[int]) -> None:
        self.calls += 1
        if not self.up:
            raise Unavailable("closed for the night", after=10.0)
        await super().handle_batch(batch)


async def test_a_target_that_is_down_costs_no_attempt(start: Start) -> None:
    """Everything is kept; one message probes; then all of it goes."""
    line = await start(Down)
    pipeline = line.engine.pipeline
    assert isinstance(pipeline, Down)
    await line.push(*range(8))
    calls = pipeline.calls
    await line.advance(9.0)
    quiet = pipeline.calls
    await line.advance(1.1)
    probed = pipeline.calls
    circuit = dict(line.metrics.circuit_open)
    pipeline.up = True

    await line.advance(10.1)

    assert calls <= 2
    assert quiet == calls
    assert probed == calls + 1
    assert circuit == {"default": True}
    assert line.rejected == []
    assert sorted(line.acked) == list(range(8))
    assert batches(line)[0] == ([0], "size")
    assert line.metrics.circuit_open == {"default": False}
    assert line.account == {"received": 8, "delivered": 8}


async def test_failures_in_a_row_count_as_a_target_that_is_down(start: Start) -> None:
    """Five calls that fail as a whole; the first four cost their messages an attempt."""

    class Broken(Collecting):
        batching = Batching(size=1, concurrency=1)

        async def handle_batch(self, batch: Batch[int]) -> None:
            raise ConnectionError

    line = await start(Broken)

    await line.push(*range(10))

    assert line.rejected == [0, 1, 2, 3]
    assert line.origin.outstanding == 6
    assert line.metrics.circuit_open == {"default": True}


async def test_a_drain_gives_back_what_a_down_target_left(start: Start) -> None:
    line = await start(Down)
    await line.push(*range(8))

    with anyio.fail_after(5):
        hung = await line.engine.drain(1.0)

    assert hung == 0
    assert sorted(line.released) == list(range(8))
    assert line.account == {"received": 8, "returned": 8}


async def test_a_delivering_handler_has_the_same_breaker(start: Start) -> None:
    """A pipeline without batches delivers in `handle_message`."""
    up = False

    class Single(Pipeline[Number]):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            if not up:
                raise Unavailable("away", after=5.0)

    line = await start(Single)
    await line.push(*range(30))
    up = True

    await line.advance(5.1)

    assert line.rejected == []
    assert sorted(line.acked) == list(range(30))


async def test_the_rate_limit_paces_the_delivering_calls(start: Start) -> None:
    """J01, J02, J03, J09, J11: two calls each second, whatever the slots; the window stays bounded."""

    class Limited(Collecting):
        batching = Batching(size=1, concurrency=4)
        rate_limit = RateLimit(calls=2, per=1.0)

    line = await start(Limited)
    await line.push(*range(6))
    counts = [len(line.acked)]
    for _ in range(4):
        await line.advance(0.51)
        counts.append(len(line.acked))

    assert counts == [2, 3, 4, 5, 6]
    assert line.metrics.rate_limit_wait_seconds_total > 0


async def test_the_account_balances_when_nothing_is_left(start: Start) -> None:
    """M07: received is the sum of all that became of it; gauges go back to 0."""
    line = await start(Collecting)
    await line.push(*range(5))
    await line.advance(1.0)

    account = line.metrics.accounts["numbers"]

    assert account.open == 0
    assert str(account).startswith("received 5 = 5 delivered + 0 skipped")
    assert line.engine.running == 0
    assert set(line.engine.buffered().values()) == {0}


async def test_a_queue_that_may_drop_rejected_messages_is_never_rejected_to(start: Start) -> None:
    """Retried here after the loop's delay, parked when hopeless, given back at a drain."""
    attempts: list[int] = []

    class Unsafe(Pipeline[Number]):
        queue = "numbers"
        retries = Retries(attempts=2)
        retry_delay = 30.0

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            attempts.append(message.attempt)
            raise Retry("not now")

    line = await start(Unsafe, rejectable=False)
    await line.push(1)
    await line.advance(30.1)
    line.park_fails = True
    await line.push(2)
    await line.advance(30.1)
    await line.advance(30.1)
    await line.engine.drain(5.0)

    assert attempts == [1, 2, 1, 2, 3]
    assert [n for n, _ in line.parked] == [1]
    assert line.rejected == []
    assert line.released == [2]
    assert line.account == {"received": 2, "parked": 1, "returned": 1}


class Stubborn(Pipeline[Number, int]):
    """Goes on although it is cancelled."""

    queue = "numbers"
    batching = Batching(size=10, timeout=0.2)

    async def handle_message(self, message: Message[Number]) -> int:
        with suppress(asyncio.CancelledError):
            await anyio.sleep_forever()
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        pass


async def test_what_a_drain_gave_back_is_given_back_once_although_its_handler_went_on(start: Start) -> None:
    line = await start(Stubborn)
    settled: list[Message[Any]] = []
    line.origin.release = settled.append  # type: ignore[method-assign]  # as lenient as a session is
    await line.push(1, 2)

    hung = await line.engine.drain(0.2)
    await quiet()

    assert hung == 2
    assert len(settled) == 2
    assert line.account == {"received": 2, "returned": 2}
