"""`prepare_messages`: one call for a chunk of what waits, before it is handled."""

from collections.abc import Hashable, Sequence
from typing import Any

import anyio
import pytest

from flow.message import Message
from flow.outcome import Outcome, Retry, Unavailable
from flow.pipeline import Pipeline
from tests.stages.conftest import Number, Start, quiet

pytestmark = pytest.mark.anyio


class Prepared(Pipeline[Number]):
    """Notes every call; `failing` is raised for a chunk that holds 99."""

    queue = "numbers"
    concurrency = 1
    prepare_size = 5
    failing: Exception = ValueError("secret")

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.calls: list[object] = []
        self.told: list[int] = []
        self.go = anyio.Event()
        self.go.set()

    async def prepare_messages(self, messages: Sequence[Message[Number]]) -> int:
        numbers = [message.body.n for message in messages]
        self.calls.append(numbers)
        await self.go.wait()
        if 99 in numbers:
            raise self.failing
        return sum(numbers)

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        self.calls.append((message.body.n, message.prepared))

    async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
        self.told.append(message.body.n)


async def test_a_chunk_is_prepared_before_its_messages_are_handled(start: Start) -> None:
    """C01, C02, C03: chunks of what waits, of one message when there is no more."""
    line = await start(Prepared)
    pipeline: Any = line.engine.pipeline

    await line.push(0)
    await line.push(*range(1, 8))

    assert pipeline.calls == [
        [0],
        (0, 0),
        [1, 2, 3, 4, 5],
        *((n, 15) for n in range(1, 6)),
        [6, 7],
        (6, 13),
        (7, 13),
    ]
    assert line.acked == list(range(8))


async def test_an_error_in_preparing_decides_the_chunk(start: Start) -> None:
    """C04, C08: nothing of it is handled, all of it is told, and the next chunk is fine."""
    line = await start(Prepared)
    pipeline: Any = line.engine.pipeline

    await line.push(1, 99, 3, 4)
    await line.push(5)

    assert pipeline.calls == [[1, 99, 3, 4], [5], (5, 5)]
    assert pipeline.told == [1, 99, 3, 4]
    assert (line.rejected, line.acked) == ([1, 99, 3, 4], [5])


async def test_bad_bytes_are_not_prepared(start: Start) -> None:
    line = await start(Prepared)
    pipeline: Any = line.engine.pipeline

    await line.push(1, b"{", 2)

    assert pipeline.calls == [[1, 2], (1, 3), (2, 3)]
    assert (line.acked, line.parked) == ([1, 2, -1], [(-1, "not JSON: it ends too early")])


async def test_idle_workers_share_what_waits(start: Start) -> None:
    class Four(Prepared):
        queue = "numbers"
        concurrency = 4

    line = await start(Four)
    pipeline: Any = line.engine.pipeline
    pipeline.go = anyio.Event()

    await line.push(*range(8))

    assert [call for call in pipeline.calls if isinstance(call, list)] == [[0, 1], [2, 3], [4, 5], [6, 7]]


async def test_a_target_that_is_down_costs_the_chunk_no_attempt(start: Start) -> None:
    class Down(Prepared):
        queue = "numbers"
        failing = Unavailable("closed", after=5.0)

    line = await start(Down)
    pipeline: Any = line.engine.pipeline
    await line.push(1, 99, 2)
    assert line.engine.down() == {"numbers": 0.0}
    type(pipeline).failing = Retry("again")

    await line.advance(5.0)

    assert pipeline.calls == [[1, 99, 2], [1], (1, 1), [99, 2]]  # one message probes
    assert (line.acked, line.rejected) == ([1], [99, 2])


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_target_that_stays_down_is_asked_at_its_time_and_not_before(
    start: Start, workers: int
) -> None:
    class Down(Prepared):
        queue = "numbers"
        concurrency = workers
        failing = Unavailable("closed")

    line = await start(Down)
    pipeline: Any = line.engine.pipeline
    await line.push(99, 99)
    processor = line.engine._processor
    assert sum(intake.bell.waiting for intake in processor.reception.intakes) == workers

    for _ in range(60):
        await line.advance(1.0)

    assert 4 <= len(pipeline.calls) <= 14  # after 1, 2, 4, 8, 16 and 32 s, each up to a half sooner
    assert line.account == {"received": 2}


async def test_a_chunk_that_takes_too_long_is_retried(start: Start) -> None:
    class Slow(Prepared):
        queue = "numbers"
        handler_timeout = 3.0

    line = await start(Slow)
    pipeline: Any = line.engine.pipeline
    pipeline.go = anyio.Event()
    await line.push(1, 2)

    await line.advance(3.0)

    assert line.rejected == [1, 2]


async def test_a_drain_gives_back_the_chunk_in_hand(start: Start) -> None:
    line = await start(Prepared)
    pipeline: Any = line.engine.pipeline
    pipeline.go = anyio.Event()
    await line.push(*range(8))

    hung = await line.engine.drain(0.2)

    assert hung == 1
    assert sorted(line.released) == list(range(8))


async def test_what_was_prepared_of_a_lost_session_is_dropped(start: Start) -> None:
    line = await start(Prepared)
    pipeline: Any = line.engine.pipeline
    pipeline.go = anyio.Event()
    await line.push(1, 2)

    line.lose()
    pipeline.go.set()
    await quiet()
    await line.push(1, 2, redelivered=True)

    assert pipeline.calls == [[1, 2], [1, 2], (1, 3), (2, 3)]
    assert line.acked == [1, 2]


async def test_partitions_are_prepared_apart(start: Start) -> None:
    class Parted(Prepared):
        queue = "numbers"
        concurrency = 2

        def partition_key(self, message: Message[Number]) -> Hashable:
            return message.body.n

    line = await start(Parted)
    pipeline: Any = line.engine.pipeline

    await line.push(*range(1, 7))

    assert [call for call in pipeline.calls if isinstance(call, list)] == [[1, 3, 5], [2, 4, 6]]
    assert sorted(line.acked) == list(range(1, 7))


async def test_what_needs_no_preparing_holds_up_nothing(start: Start) -> None:
    """Redeliveries that are answered from memory come one by one, and behind them new messages."""

    class One(Prepared):
        queue = "numbers"
        prepare_size = 1

    line = await start(One)
    pipeline: Any = line.engine.pipeline
    await line.push(1, 2, 3)
    settled = line.origin.acked
    line.origin.alive = False
    line.engine.lost([], settled)
    line.origin = type(line.origin)("numbers")
    again = [line.origin.message({"n": n}, redelivered=True) for n in (1, 2, 3)]

    line.engine.receive([*again, line.origin.message({"n": 4})])
    await quiet()

    assert line.acked == [1, 2, 3, 4]
    assert [call for call in pipeline.calls if isinstance(call, list)] == [[1], [2], [3], [4]]


async def test_preparing_says_nothing_about_the_target_of_handling(start: Start) -> None:
    """The pauses between two calls of a target that stays down grow, although preparing works."""

    class Down(Prepared):
        """Its target does not work."""

        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            await super().handle_message(message)
            raise Unavailable("closed")

    line = await start(Down)
    pipeline: Any = line.engine.pipeline

    await line.push(1, 2)
    for _ in range(600):
        await line.advance(0.1)

    assert sum(isinstance(call, tuple) for call in pipeline.calls) < 12
    assert line.account == {"received": 2}


async def test_what_was_prepared_counts_as_waiting_for_its_target(start: Start) -> None:
    """Else it would never go back to its queue, and the broker would end the channel."""

    class Down(Prepared):
        """Its target does not work."""

        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            raise Unavailable("closed", after=1000.0)

    line = await start(Down)

    await line.push(1, 2, 3, 4, 5)
    await line.advance(600.0)
    for message in line.engine._processor.reception.intakes[0].received.clear():
        message.received_at = line.clock.now()  # the one that was tried came later than the others
        line.engine._processor.reception.receive([message])

    assert line.engine.waited("numbers") == 600.0
