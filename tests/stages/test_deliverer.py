"""Batches: routing, delivering, partial failure, and what is told about failures."""

import asyncio
import re
from collections.abc import Hashable
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Outcome, Reject, Retry, Skip
from flow.pipeline import Pipeline
from flow.retries import Retries
from tests.stages.conftest import Line, Number, Start, quiet

pytestmark = pytest.mark.anyio


class Collecting(Pipeline[Number, int]):
    """Keeps the batches it was given, in `batches`."""

    queue = "numbers"
    concurrency = 1
    batching = Batching(size=2, timeout=0.2)

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.batches: list[tuple[list[int], str]] = []

    async def handle_message(self, message: Message[Number]) -> int:
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        self.batches.append((batch.bodies, batch.trigger.value))


def batches(line: Line) -> list[tuple[list[int], str]]:
    pipeline = line.engine.pipeline
    assert isinstance(pipeline, Collecting)
    return pipeline.batches


async def test_batches_are_full_or_due_and_then_settled(start: Start) -> None:
    """E01, E02, E10: two full ones at once, the rest at its timeout."""
    line = await start(Collecting)
    await line.push(1, 2, 3, 4, 5)
    at_once = list(batches(line))

    await line.advance(0.2)

    assert at_once == [([1, 2], "size"), ([3, 4], "size")]
    assert batches(line)[2:] == [([5], "timeout")]
    assert line.acked == [1, 2, 3, 4, 5]


async def test_nothing_is_settled_before_its_batch_returned(start: Start) -> None:
    """E29: one round for the batch, after the callback."""
    gate = anyio.Event()

    class Waiting(Collecting):
        async def handle_batch(self, batch: Batch[int]) -> None:
            await gate.wait()

    line = await start(Waiting)
    await line.push(1, 2)
    before = line.acked
    gate.set()
    await quiet()

    assert before == []
    assert line.acked == [1, 2]


async def test_messages_go_to_the_batcher_that_is_named(start: Start) -> None:
    """D01: odd in tens, even in fives, nothing left."""

    class Sorting(Collecting):
        batching = {"odd": Batching(size=10), "even": Batching(size=5)}  # noqa: RUF012

        def batcher(self, message: Message[int]) -> str:
            return "odd" if message.body % 2 else "even"

    line = await start(Sorting)

    await line.push(*range(1, 41))

    sizes = sorted((bodies[0] % 2, len(bodies), trigger) for bodies, trigger in batches(line))
    assert sizes == [(0, 5, "size")] * 4 + [(1, 10, "size")] * 2
    assert line.origin.outstanding == 0


async def test_an_unknown_batcher_fails_the_message_and_names_it(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """D02: the others form their batch."""

    class Lost(Collecting):
        batching = {"default": Batching(size=2)}  # noqa: RUF012

        def batcher(self, message: Message[int]) -> str:
            return "nowhere" if message.body == 2 else "default"

    line = await start(Lost)

    await line.push(1, 2, 4)

    assert batches(line) == [([1, 4], "size")]
    assert line.rejected == [2]
    assert "Lost.batcher returned 'nowhere'; known are default" in caplog.text


async def test_failed_messages_do_not_reach_a_batch(start: Start) -> None:
    """D03, D05: whatever their batcher would have been."""

    class Failing(Collecting):
        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n in (2, 3):
                raise Retry("not now")
            return message.body.n

    line = await start(Failing)

    await line.push(1, 2, 3, 4)

    assert batches(line) == [([1, 4], "size")]
    assert line.rejected == [2, 3]


async def test_a_slow_batcher_does_not_hold_up_the_other(start: Start) -> None:
    """D06."""
    gate = anyio.Event()

    class Uneven(Collecting):
        batching = {"slow": Batching(size=1, concurrency=1), "quick": Batching(size=1)}  # noqa: RUF012

        def batcher(self, message: Message[int]) -> str:
            return "slow" if message.body < 8 else "quick"

        async def handle_batch(self, batch: Batch[int]) -> None:
            if batch.batcher == "slow":
                await gate.wait()

    line = await start(Uneven)

    await line.push(*range(10))

    assert line.acked == [8, 9]


async def test_handling_must_return_what_the_batch_needs(start: Start) -> None:
    """B04: a forgotten return is said in one sentence."""

    class Forgetful(Collecting):
        async def handle_message(self, message: Message[Number]) -> int:
            return None if message.body.n == 2 else message.body.n  # type: ignore[return-value]

    line = await start(Forgetful)

    await line.push(1, 2, 4)

    assert line.rejected == [2]
    assert batches(line) == [([1, 4], "size")]


async def test_the_batch_holds_what_handling_returned(start: Start) -> None:
    """B05, B06: and a message that fails keeps its original body."""
    seen: list[Any] = []

    class Doubling(Collecting):
        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 9:
                raise Retry("nine")
            return message.body.n * 2

        async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
            seen.append(message.body)

    line = await start(Doubling)

    await line.push(1, 9, 2)

    assert batches(line) == [([2, 4], "size")]
    assert seen == [Number(9)]


async def test_marks_decide_one_of_many(start: Start) -> None:
    """E13: unmarked is delivered; no error is logged."""

    class Marking(Collecting):
        batching = Batching(size=4)

        async def handle_batch(self, batch: Batch[int]) -> None:
            batch.retry(batch[1], "busy")
            batch.reject(batch[2], "invalid")
            batch.skip(batch[3], "known")

    line = await start(Marking)

    await line.push(1, 2, 3, 4)

    assert line.account == {"received": 4, "delivered": 1, "retrying": 1, "parked": 1, "skipped": 1}
    assert line.rejected == [2]
    assert line.parked == [(3, "invalid")]
    assert sorted(line.acked) == [1, 3, 4]


async def test_an_error_decides_the_whole_batch_and_the_next_one_works(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """E14: one error log for all four."""

    class Raising(Collecting):
        batching = Batching(size=4, concurrency=1)

        async def handle_batch(self, batch: Batch[int]) -> None:
            if 1 in batch.bodies:
                raise ValueError

    line = await start(Raising)

    await line.push(*range(8))

    assert line.rejected == [0, 1, 2, 3]
    assert line.acked == [4, 5, 6, 7]
    assert [record.levelname for record in caplog.records] == ["ERROR"]


@pytest.mark.parametrize(
    ("error", "acked", "rejected", "parked"),
    [
        (Skip("nothing to do"), [1, 2], [3], []),
        (Retry("busy"), [1], [2, 3], []),
        (Reject("bad"), [1, 2], [3], [2]),
        (RuntimeError(), [1], [2, 3], []),
    ],
)
async def test_marks_stay_when_the_batch_raises_afterwards(
    start: Start, error: Exception, acked: list[int], rejected: list[int], parked: list[int]
) -> None:
    """Raise about all, mark about one: the exception decides the rest."""

    class Both(Collecting):
        batching = Batching(size=3)

        async def handle_batch(self, batch: Batch[int]) -> None:
            batch.skip(batch[0], "known")
            batch.retry(batch[2], "busy")
            raise error

    line = await start(Both)

    await line.push(1, 2, 3)

    assert sorted(line.acked) == acked
    assert sorted(line.rejected) == rejected
    assert [n for n, _ in line.parked] == parked


async def test_wrong_marks_fail_what_is_not_marked(start: Start, caplog: pytest.LogCaptureFixture) -> None:
    """A message marked twice: the first mark stands, the rest is retried, one sentence."""

    class Twice(Collecting):
        async def handle_batch(self, batch: Batch[int]) -> None:
            batch.skip(batch[0], "known")
            batch.reject(batch[0], "bad")

    line = await start(Twice)

    await line.push(1, 2)

    assert line.acked == [1]
    assert line.rejected == [2]
    assert "is marked already (Skip), in handle_batch (test_deliverer.py:" in caplog.text


async def test_keys_batch_apart(start: Start) -> None:
    """E06, E07: the key is the callback's."""

    class Keyed(Collecting):
        batching = Batching(size=2, timeout=0.2)

        def batch_key(self, message: Message[int]) -> Hashable:
            return message.body % 2, "x"

    line = await start(Keyed)
    await line.push(1, 2, 3, 4, 5, 6)

    await line.advance(0.2)

    assert sorted(batches(line)) == [([1, 3], "size"), ([2, 4], "size"), ([5], "timeout"), ([6], "timeout")]


@pytest.mark.parametrize("broken", ["batch_key", "weight", "unhashable"])
async def test_errors_of_the_small_callbacks_fail_their_message_only(start: Start, broken: str) -> None:
    """E28, G07: open batches stay intact."""

    def weigh(message: Message[int]) -> int:
        if broken == "weight" and message.body == 3:
            raise RuntimeError
        return 1

    class Broken(Collecting):
        batching = Batching(size=2, timeout=0.2, weight=weigh, max_weight=10)

        def batch_key(self, message: Message[int]) -> Hashable:
            if broken == "batch_key" and message.body == 3:
                raise RuntimeError
            return [] if broken == "unhashable" and message.body == 3 else 0  # type: ignore[return-value]

    line = await start(Broken)

    await line.push(1, 3, 4)

    assert batches(line) == [([1, 4], "size")]
    assert line.rejected == [3]


async def test_batches_run_at_once_up_to_the_concurrency(start: Start) -> None:
    """A10, A11, E18, E20: 2 unless said."""
    gate = anyio.Event()
    running: list[int] = []

    class Slow(Collecting):
        async def handle_batch(self, batch: Batch[int]) -> None:
            running.append(1)
            await gate.wait()

    line = await start(Slow)
    await line.push(*range(8))
    at_first = len(running)
    gate.set()
    await quiet()

    assert at_first == 2
    assert len(running) == 4
    assert len(line.acked) == 8


async def test_a_batch_grows_while_every_slot_is_busy(start: Start) -> None:
    """E21: it goes when the slot is free, without waiting once more."""
    gates = [anyio.Event(), anyio.Event()]

    class Growing(Collecting):
        batching = Batching(size=100, timeout=0.05, concurrency=1)

        async def handle_batch(self, batch: Batch[int]) -> None:
            await super().handle_batch(batch)
            await gates[len(self.batches) - 1].wait()

    line = await start(Growing)
    await line.push(0)
    await line.advance(0.05)
    for n in range(1, 30):
        await line.push(n)
        await line.advance(0.01)
    gates[0].set()
    await quiet()
    gates[1].set()
    await quiet()

    assert batches(line) == [([0], "timeout"), (list(range(1, 30)), "timeout")]


async def test_a_hung_batch_is_ended_and_its_messages_retried(start: Start) -> None:
    """B18: for batches as well; marks made before stay."""

    class Hanging(Collecting):
        batch_timeout = 0.5

        async def handle_batch(self, batch: Batch[int]) -> None:
            batch.skip(batch[0], "known")
            await anyio.sleep_forever()

    line = await start(Hanging)
    await line.push(1, 2)

    await line.advance(0.6)

    assert line.acked == [1]
    assert line.rejected == [2]
    assert line.engine.running == 0


async def test_the_last_attempts_are_delivered_alone(start: Start) -> None:
    """One poison item does not park its neighbours."""

    class Poisoned(Collecting):
        batching = Batching(size=10, timeout=0.2)
        retries = Retries(attempts=4)

    line = await start(Poisoned)
    await line.push(1, 2)
    await line.push(3, attempt=2)
    await line.push(4, attempt=3)
    await line.push(5, attempt=4)

    await line.advance(0.2)

    assert sorted(batches(line)) == [([1, 2, 3], "timeout"), ([4], "size"), ([5], "size")]


async def test_failures_are_told_before_they_are_settled(start: Start) -> None:
    """H01, H03, H07, H12: each failed message once, nothing for the others."""
    gate = anyio.Event()
    told: list[tuple[int, str, str]] = []

    class Telling(Collecting):
        batching = Batching(size=4)

        async def handle_batch(self, batch: Batch[int]) -> None:
            batch.retry(batch[1], "busy")
            batch.reject(batch[2], "invalid")

        async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
            await gate.wait()
            told.append((message.body, outcome.value, reason))

    line = await start(Telling)
    await line.push(0, 1, 2, 3)
    before = line.rejected
    gate.set()
    await quiet()

    assert before == []
    assert told == [(1, "retrying", "busy"), (2, "parked", "invalid")]
    assert line.rejected == [1]


async def test_an_error_in_handle_failed_changes_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """H02, H04, H05, H06: logged; the message is settled as it was decided."""

    class Broken(Collecting):
        async def handle_batch(self, batch: Batch[int]) -> None:
            raise ValueError

        async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
            raise KeyError

    line = await start(Broken)

    await line.push(1, 2)

    assert line.rejected == [1, 2]
    assert "Broken.handle_batch failed for 2 messages: ValueError in handle_batch " in caplog.text
    assert len(re.findall(r"Broken\.handle_failed failed for <Message .+>: KeyError", caplog.text)) == 2


async def test_starved_batches_go_until_half_of_the_window_is_free(start: Start) -> None:
    """More keys than the window holds full batches of: nothing waits for the timeout; rare keys go on."""

    class Uneven(Collecting):
        batching = Batching(size=100, timeout=60.0)

        def batch_key(self, message: Message[int]) -> Hashable:
            return max(message.body, 10)

    line = await start(Uneven, prefetch=20)

    await line.push(*range(20))

    assert line.acked == list(range(11))
    assert batches(line) == [(list(range(11)), "starved")]


async def test_batches_of_one_size_are_released_together(start: Start) -> None:
    """Equal keys: the window is acknowledged as a whole, and the broker grants the next one as a whole."""

    class Scattered(Collecting):
        batching = Batching(size=100, timeout=60.0)

        def batch_key(self, message: Message[int]) -> Hashable:
            return message.body % 10

    line = await start(Scattered, prefetch=20)

    await line.push(*range(20))

    assert sorted(line.acked) == list(range(20))


@pytest.mark.parametrize(("seconds", "settled"), [(0.0, [100] * 10), (0.02, list(range(10, 101, 10)))])
async def test_a_slot_delivers_without_a_pause_for_a_short_time_only(
    start: Start, seconds: float, settled: list[int]
) -> None:
    """What is released together is settled in one turn of the loop, unless that would hold it up."""
    in_next_turn: list[int] = []

    class Counting(Collecting):
        batching = Batching(size=100, timeout=60.0, concurrency=1)

        def batch_key(self, message: Message[int]) -> Hashable:
            return message.body % 10

        async def handle_batch(self, batch: Batch[int]) -> None:
            line.clock.advance(seconds)
            asyncio.get_running_loop().call_soon(lambda: in_next_turn.append(len(line.acked)))

    line = await start(Counting, prefetch=100)

    await line.push(*range(100))

    assert in_next_turn == settled


async def test_running_handlers_do_not_prevent_the_relief(start: Start) -> None:
    """A handler that hangs, and the window full: the rest goes on."""
    gate = anyio.Event()

    class Stuck(Collecting):
        concurrency = 2
        batching = Batching(size=100, timeout=60.0)

        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 0:
                await gate.wait()
            return message.body.n

        def batch_key(self, message: Message[int]) -> Hashable:
            return message.body

    line = await start(Stuck, prefetch=10)

    await line.push(*range(10))

    assert line.acked == list(range(1, 10))
