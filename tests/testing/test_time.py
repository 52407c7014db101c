"""Time in tests: it jumps when nothing else is left to do, and what callbacks wait for is real."""

import asyncio
import time
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Outcome, Retry, Unavailable
from flow.ratelimit import RateLimit
from flow.stages.guard import CallbackTimeout
from flow.testing import run_messages
from flow.testing.clock import VirtualClock
from tests.testing.numbers import Number, Numbers, numbers, quickly

pytestmark = pytest.mark.anyio

HOUR = 3600.0


class Arriving(Numbers):
    """Numbers come to their batch after ten times so many seconds: each asks for that at first."""

    retry_delay = HOUR

    async def handle_message(self, message: Message[Number]) -> int:
        if message.attempt == 1 and message.body.n:
            raise Retry("not yet", after=message.body.n * 10.0)
        return message.body.n


async def test_batch_timeouts_do_not_wait() -> None:
    """N08, E02: the remainder goes when an hour has passed, at once."""

    class Slow(Numbers):
        batching = Batching(size=2, timeout=HOUR)

    pipeline = Slow()

    with quickly():
        await run_messages(pipeline, numbers(1, 2, 3, 4, 5))

    assert pipeline.batches == [[1, 2], [3, 4], [5]]


async def test_the_timer_of_a_batch_does_not_slide() -> None:
    """N08, E03: it counts from the first message, whatever comes later."""

    class Patient(Arriving):
        batching = Batching(size=100, timeout=200.0)

    pipeline = Patient()

    with quickly():
        await run_messages(pipeline, numbers(0, 10, 15, 25, 44, 46), follow_retries=True)

    assert pipeline.batches == [[0, 10, 15], [25, 44], [46]]


async def test_a_full_batch_clears_its_timer() -> None:
    """N08, E04: what comes after it waits for its own."""

    class Patient(Arriving):
        batching = Batching(size=2, timeout=200.0)

    pipeline = Patient()

    with quickly():
        await run_messages(pipeline, [*numbers(0, 0), Number(15), Number(34)], follow_retries=True)

    assert pipeline.batches == [[0, 0], [15, 34]]


@pytest.mark.parametrize(
    "failures",
    [
        [Unavailable("down"), Unavailable("down", after=150.0), None, Retry("busy")],
        [Unavailable("maintenance", after=HOUR), Retry("busy")],
        [ValueError()] * 7,
    ],
)
async def test_rate_limits_retries_and_probes_do_not_wait(failures: list[Exception | None]) -> None:
    class Limited(Numbers):
        batching = Batching(size=1)
        rate_limit = RateLimit(calls=1, per=70.0)
        calls = iter(failures)

        async def handle_batch(self, batch: Batch[int]) -> None:
            if (failure := next(self.calls, None)) is not None:
                raise failure
            await super().handle_batch(batch)

    pipeline = Limited()

    with quickly():
        results = await run_messages(pipeline, numbers(1, 2, 3), follow_retries=True)

    assert [one.outcome for one in results] == [Outcome.DELIVERED] * 3
    assert sorted(pipeline.batches) == [[1], [2], [3]]


async def test_the_sleeps_of_callbacks_are_real_and_hold_the_time() -> None:
    """A batch with a short timeout waits for the handlers that run: how fast they are changes nothing."""

    class Sleeping(Numbers):
        concurrency = 2
        batching = Batching(size=10, timeout=0.001)

        async def handle_message(self, message: Message[Number]) -> int:
            await anyio.sleep(message.body.n / 100)
            return message.body.n

    pipeline = Sleeping()
    began = time.monotonic()

    results = await run_messages(pipeline, numbers(1, 2, 3, 4))

    assert time.monotonic() - began >= 0.06
    assert [one.outcome for one in results] == [Outcome.DELIVERED] * 4
    assert [sorted(batch) for batch in pipeline.batches] == [[1, 2, 3, 4]]


async def test_real_connections_hold_the_time() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.readline())
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    class Asking(Numbers):
        async def handle_batch(self, batch: Batch[int]) -> None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"%d\n" % sum(batch.bodies))
            assert int(await reader.readline()) == sum(batch.bodies)
            writer.close()
            await writer.wait_closed()
            await super().handle_batch(batch)

    pipeline = Asking()
    async with server:
        results = await run_messages(pipeline, numbers(*range(20)))

    assert {one.outcome for one in results} == {Outcome.DELIVERED}
    assert sorted(n for batch in pipeline.batches for n in batch) == list(range(20))


@pytest.mark.parametrize("where", ["handle_message", "handle_batch"])
async def test_a_callback_that_hangs_is_ended_by_its_limit(where: str) -> None:
    class Hanging(Numbers):
        concurrency = 2
        batching = Batching(size=1)
        handler_timeout = 0.05
        batch_timeout = 0.05

        async def handle_message(self, message: Message[Number]) -> int:
            if where == "handle_message" and message.body.n == 1:
                await anyio.sleep_forever()
            return await super().handle_message(message)

        async def handle_batch(self, batch: Batch[int]) -> None:
            if where == "handle_batch" and batch.bodies == [1]:
                await anyio.sleep_forever()
            await super().handle_batch(batch)

    with quickly():
        hung, other = await run_messages(Hanging(), numbers(1, 2))

    assert hung.outcome is Outcome.RETRYING
    assert isinstance(hung.error, CallbackTimeout)
    assert hung.reason == f"{where} took longer than 0.05 s"
    assert other.outcome is Outcome.DELIVERED


async def test_a_callback_that_hangs_for_longer_than_is_real_is_ended_too(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flow.testing.bench.PATIENCE", 0.05)

    class Hanging(Numbers):
        handler_timeout = HOUR

        async def handle_message(self, message: Message[Number]) -> int:
            await anyio.sleep_forever()
            raise AssertionError

    with quickly():
        [result] = await run_messages(Hanging(), numbers(1))

    assert isinstance(result.error, CallbackTimeout)


async def test_a_callback_may_wait_for_what_only_time_brings(monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for a batch that waits for its timeout: that is found out."""
    monkeypatch.setattr("flow.testing.bench.PATIENCE", 0.05)
    delivered = anyio.Event()

    class Waiting(Numbers):
        concurrency = 2
        batching = Batching(size=10, timeout=10.0)

        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 1:
                await delivered.wait()
            return message.body.n

        async def handle_batch(self, batch: Batch[int]) -> None:
            await super().handle_batch(batch)
            delivered.set()

    pipeline = Waiting()

    results = await run_messages(pipeline, numbers(1, 2))

    assert pipeline.batches == [[2], [1]]
    assert [one.outcome for one in results] == [Outcome.DELIVERED] * 2


async def test_a_slow_handle_failed_holds_the_time() -> None:
    """The batch with the first number waits for the last one, which waits for what the second is told."""

    class Telling(Numbers):
        batching = Batching(size=10, timeout=1.0)

        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 2:
                raise ValueError
            return message.body.n

        async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
            await anyio.sleep(0.05)

    pipeline = Telling()

    results = await run_messages(pipeline, numbers(1, 2, 3))

    assert pipeline.batches == [[1, 3]]
    assert results[1].outcome is Outcome.RETRYING


async def test_a_long_outage_is_waited_for_though_other_things_happen_meanwhile() -> None:
    """The target asked for an hour; that a retry comes back before is no sign that it stays down."""

    class Maintained(Numbers):
        retry_delay = 1000.0
        calls = 0

        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 2 and message.attempt == 1:
                raise ValueError
            return message.body.n

        async def handle_batch(self, batch: Batch[int]) -> None:
            self.calls += 1
            if self.calls == 1:
                raise Unavailable("maintenance", after=HOUR)
            await super().handle_batch(batch)

    pipeline = Maintained()

    results = await run_messages(pipeline, numbers(1, 2), follow_retries=True)

    assert [one.outcome for one in results] == [Outcome.DELIVERED] * 2


async def test_a_run_is_the_same_every_time() -> None:
    class Limited(Numbers):
        concurrency = 3
        batching = Batching(size=4, timeout=1.0)
        rate_limit = RateLimit(messages=3.0)

        async def handle_message(self, message: Message[Number]) -> int:
            for _ in range(message.body.n % 5):
                await anyio.lowlevel.checkpoint()
            if message.body.n % 7 == 0:
                raise Retry("again", after=message.body.n / 10)
            return message.body.n

        def batch_key(self, message: Message[int]) -> int:
            return message.body % 3

    runs = []
    for _ in range(5):
        pipeline = Limited()
        results = await run_messages(pipeline, numbers(*range(60)))
        runs.append((pipeline.batches, results))

    assert all(batches == runs[0][0] for batches, _ in runs)
    assert [[one.outcome for one in results] for _, results in runs] == [
        [one.outcome for one in runs[0][1]]
    ] * 5


async def test_ten_thousand_messages_take_a_few_seconds() -> None:
    class Many(Numbers):
        batching = Batching(size=100)

    with quickly():
        results = await run_messages(Many(), numbers(*range(10_000)))

    assert {one.outcome for one in results} == {Outcome.DELIVERED}


def test_timers_are_called_in_order_and_not_when_cancelled() -> None:
    clock, calls = VirtualClock(), []
    began = clock.now()
    for number, seconds in enumerate([3.0, 1.0, 2.0, 2.0, 9.0]):
        timer = clock.call_at(
            began + seconds, lambda number=number: calls.append((number, clock.now() - began))
        )  # type: ignore[misc]
    timer.cancel()

    clock.advance(2.0)
    early = list(calls)
    jumps = [clock.jump(), clock.jump()]

    assert early == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert calls == [*early, (0, 3.0)]
    assert jumps == [True, False]


def test_time_goes_on_though_a_timer_waits_for_a_rounding_error() -> None:
    clock = VirtualClock()
    since = clock.now() + 0.1
    ends: list[float] = []

    def look() -> None:
        if clock.now() - since >= 0.3:
            ends.append(clock.now())
        else:
            clock.call_at(since + 0.3, look)

    clock.call_at(since + 0.3, look)
    for _ in range(10):
        clock.jump()

    assert len(ends) == 1
    assert ends[0] - since == pytest.approx(0.3, abs=1e-5)
