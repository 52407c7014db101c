"""Pipelines without batches: what becomes of a message in `handle_message`."""

import asyncio
import re
import sys
from typing import Any

import anyio
import pytest

from flow.message import Message
from flow.outcome import Reject, Retry, Skip
from flow.pipeline import Pipeline
from flow.retries import Retries
from tests.stages.conftest import Number, Start, quiet

pytestmark = pytest.mark.anyio


class Judging(Pipeline[Number]):
    """0 is fine, 1 skips, 2 retries, 3 rejects, 4 raises."""

    queue = "numbers"

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        match message.body.n % 10:
            case 1:
                raise Skip("a one")
            case 2:
                raise Retry("a two")
            case 3:
                raise Reject("a three")
            case 4:
                raise ValueError("a four")


async def test_a_message_that_returns_is_delivered(start: Start) -> None:
    """B01."""
    line = await start(Judging)

    await line.push(10, 20)

    assert line.acked == [10, 20]
    assert line.account == {"received": 2, "delivered": 2}


async def test_verdicts_and_errors_decide_only_their_own_message(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """B02, B03, B17: one error log, for the one that is no verdict; the worker lives on."""
    line = await start(Judging)

    await line.push(0, 1, 2, 3, 4, 10)

    assert line.acked == [0, 1, 10, 3]
    assert line.rejected == [2, 4]
    assert line.parked == [(3, "a three")]
    assert line.account == {"received": 6, "delivered": 2, "skipped": 1, "retrying": 2, "parked": 1}
    assert [record.message.split(" in ")[0] for record in caplog.records if record.levelname == "ERROR"] == [
        "Judging.handle_message failed for <Message with delivery tag 5 from numbers>: ValueError"
    ]


async def test_bad_bytes_are_parked_and_their_neighbours_delivered(start: Start) -> None:
    """L04: decoding is an outcome of the message."""
    line = await start(Judging)

    await line.push(0, b"{", b"\xff\xfe", 10)

    assert line.acked[:2] == [0, 10]
    assert len(line.parked) == 2
    assert line.account == {"received": 4, "delivered": 2, "parked": 2}


async def test_the_last_attempt_parks(start: Start) -> None:
    """B02, R14."""

    class Twice(Judging):
        retries = Retries(attempts=2)

    line = await start(Twice)

    await line.push(2, attempt=1)
    await line.push(12, attempt=2)

    assert line.rejected == [2]
    assert line.parked == [(12, "gave up after 2 attempts: a two")]


async def test_a_park_that_fails_sends_the_message_round_again(start: Start) -> None:
    line = await start(Judging)
    line.park_fails = True

    await line.push(3)

    assert line.rejected == [3]
    assert line.account == {"received": 1, "retrying": 1}


async def test_as_many_handlers_run_as_allowed_and_no_more(start: Start) -> None:
    """A09, B13: 13 at once, never 14."""
    running = 0
    most = 0
    gate = anyio.Event()

    class Slow(Pipeline[Number]):
        queue = "numbers"
        concurrency = 13

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            nonlocal running, most
            running += 1
            most = max(most, running)
            await gate.wait()
            running -= 1

    line = await start(Slow)
    await line.push(*range(20))
    at_first = running
    gate.set()
    await quiet()

    assert at_first == 13
    assert most == 13
    assert len(line.acked) == 20


async def test_one_worker_keeps_the_order_and_settles_each_at_once(start: Start) -> None:
    """B12, B14: a slow neighbour does not delay settling."""
    seen: list[int] = []
    gates = [anyio.Event() for _ in range(5)]

    class Serial(Pipeline[Number]):
        queue = "numbers"
        concurrency = 1

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            await gates[message.body.n].wait()
            seen.append(message.body.n)

    line = await start(Serial)
    await line.push(0, 1, 2, 3, 4)
    for step, gate in enumerate(gates):
        gate.set()
        await quiet()
        assert line.acked == list(range(step + 1))

    assert seen == [0, 1, 2, 3, 4]


async def test_errors_of_a_handlers_own_tasks_are_its_errors(start: Start) -> None:
    """B07: a child task raises; the others and the worker live on."""

    class Parent(Pipeline[Number]):
        queue = "numbers"
        concurrency = 1

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.child, message.body.n)

        async def child(self, n: int) -> None:
            if n == 2:
                raise RuntimeError

    line = await start(Parent)

    await line.push(1, 2, 3)

    assert line.acked == [1, 3]
    assert line.rejected == [2]


@pytest.mark.parametrize("how", ["task", "future", "scope"])
async def test_a_handler_that_cancels_itself_fails_alone(start: Start, how: str) -> None:
    """B08: its own task, something it waits for, or a scope of its own that times out."""

    class Cancelling(Pipeline[Number]):
        queue = "numbers"
        concurrency = 1

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            if message.body.n != 2:
                return
            if how == "task":
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await anyio.sleep_forever()
            if how == "future":
                future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
                future.cancel()
                await future
            with anyio.fail_after(0):
                await anyio.sleep_forever()

    line = await start(Cancelling)

    await line.push(1, 2, 3)

    assert line.acked == [1, 3]
    assert line.rejected == [2]


@pytest.mark.parametrize("grouped", [False, True])
async def test_a_handler_that_exits_fails_alone_and_is_told_in_a_sentence(
    start: Start, caplog: pytest.LogCaptureFixture, grouped: bool
) -> None:
    class Exiting(Pipeline[Number]):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            if message.body.n and grouped:
                async with anyio.create_task_group():
                    raise SystemExit("secret")
            if message.body.n:
                sys.exit("secret")

    line = await start(Exiting)

    await line.push(1, 0)

    assert (line.rejected, line.acked) == ([1], [0])
    said = [record.message for record in caplog.records if record.levelname == "ERROR"]
    assert len(said) == 1
    assert re.fullmatch(
        r"Exiting\.handle_message failed for <Message .+>: it wanted to end the process \(SystemExit\) "
        r"in handle_message \(test_processor\.py:\d+\): raise an error instead",
        said[0],
    )


async def test_a_body_that_is_too_large_is_told_once_a_minute(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """F33: it goes round for ever, and nobody would know why."""
    line = await start(Judging)
    large = b"1" * (2 << 20)
    line.origin._max_body = 1 << 20

    await line.push(large, large)
    await line.advance(59.0)
    await line.push(large)
    told = [record.message for record in caplog.records]
    await line.advance(1.0)
    await line.push(large)

    assert told == [
        "judging: <Message with delivery tag 1 from numbers> stays in the retry loop "
        "until max_body is raised: the body has 2097152 bytes, more than the 1048576 allowed"
    ]
    assert len(caplog.records) == 2
    assert {record.levelname for record in caplog.records} == {"WARNING"}
    assert len(line.rejected) == 4


async def test_a_handler_over_its_time_is_ended(start: Start) -> None:
    """B18: the message fails, the worker takes the next one."""

    class Hanging(Pipeline[Number]):
        queue = "numbers"
        concurrency = 1
        handler_timeout = 0.1

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            if message.body.n == 1:
                await anyio.sleep_forever()

    line = await start(Hanging)
    await line.push(1, 2)
    await line.advance(0.09)
    before = line.rejected

    await line.advance(0.02)

    assert before == []
    assert line.rejected == [1]
    assert line.acked == [2]
    assert line.engine.running == 0


async def test_a_plain_function_may_handle_messages(start: Start) -> None:
    class Plain(Pipeline[Number]):
        queue = "numbers"

        def handle_message(self, message: Message[Number]) -> Any:
            if message.body.n == 2:
                raise Reject("two")
            return message.body

    line = await start(Plain)

    await line.push(1, 2, 3)

    assert line.acked == [1, 3, 2]
    assert line.parked == [(2, "two")]


async def test_retrying_after_a_while_is_done_here_when_the_loop_is_slower(start: Start) -> None:
    """`after` below the loop's delay: held, worked again, counted as an attempt."""
    attempts: list[int] = []

    class Later(Pipeline[Number]):
        queue = "numbers"
        retries = Retries(attempts=3)

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            attempts.append(message.attempt)
            raise Retry("later", after=5.0)

    line = await start(Later)
    await line.push(1)
    await line.advance(4.9)
    early = list(attempts)
    await line.advance(0.2)
    await line.advance(5.1)

    assert early == [1]
    assert attempts == [1, 2, 3]
    assert line.parked == [(1, "gave up after 3 attempts: later")]
    assert line.account == {"received": 1, "parked": 1}


async def test_retrying_after_long_is_held_before_the_loop(start: Start) -> None:
    """`after` above the loop's delay: held for the difference, then rejected."""

    class Later(Pipeline[Number]):
        queue = "numbers"
        retry_delay = 30.0

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            raise Retry("later", after=100.0)

    line = await start(Later)
    await line.push(1)
    await line.advance(69.0)
    early = line.rejected

    await line.advance(1.1)

    assert early == []
    assert line.rejected == [1]


async def test_no_more_than_a_quarter_of_the_window_is_held(start: Start) -> None:
    class Later(Pipeline[Number]):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            raise Retry("later", after=100.0)

    line = await start(Later, prefetch=12)

    await line.push(*range(12))

    assert line.rejected == [3, 4, 5, 6, 7, 8, 9, 10, 11]
    assert line.metrics.retry_early == 9


async def test_nothing_is_held_for_more_than_ten_minutes(start: Start) -> None:
    """The broker would take it back after thirty."""

    class Later(Pipeline[Number]):
        queue = "numbers"
        retry_delay = 30.0

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            raise Retry("later", after=float(message.body.n))

    line = await start(Later)

    await line.push(630, 631, 700, 3600)
    at_once = line.rejected
    await line.advance(600.0)

    assert at_once == [631, 700, 3600]
    assert line.rejected == [631, 700, 3600, 630]
    assert line.metrics.retry_early == 3
