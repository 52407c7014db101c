"""What is decided, written and answered while sessions end, drains begin and the ledger fails."""

import logging
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any
from uuid import UUID

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.confirmation import Confirmation
from flow.errors import ConnectionLost
from flow.ledger import Row
from flow.message import REPLAYS, Message, Properties
from flow.outcome import Reject
from flow.pipeline import Pipeline
from flow.stages.books import Books
from tests.broker.queues import until
from tests.messages import ManualClock, MemoryOrigin
from tests.stages.conftest import Line, Number, Start, quiet
from tests.stages.faulty import FaultyLedger
from tests.stages.test_claims import Anything

pytestmark = pytest.mark.anyio


class Numbers(Pipeline[Number]):
    """Delivers each number; what the target calls it is in `names`."""

    queue = "numbers"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.names: dict[int, Any] = {}
        self.handled: list[int] = []
        self.gate = anyio.Event()
        self.gate.set()

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        self.handled.append(message.body.n)
        await self.gate.wait()
        if message.body.n < 0:
            raise Reject("below 0")
        message.target_id = self.names.get(message.body.n)


class Batched(Numbers):
    """Delivers them in batches of one."""

    queue = "numbers"
    batching = Batching(size=1)

    async def handle_message(self, message: Message[Number]) -> Number:  # type: ignore[override]
        return message.body

    async def handle_batch(self, batch: Batch[Number]) -> None:
        self.handled += [body.n for body in batch.bodies]


async def begun(
    start: Start, ledger: FaultyLedger | None = None, kind: type[Numbers] = Numbers
) -> tuple[Line, FaultyLedger, Books]:
    line = await start(kind, ledger=ledger or True)
    books = line.engine.books
    assert books is not None
    assert isinstance(books.commit.ledger, FaultyLedger)
    books.commit.ledger.identities = Anything()
    return line, books.commit.ledger, books


class Losing:
    """A session that is lost while it is asked something."""

    def __init__(self, line: Line) -> None:
        self.lines = {"numbers": SimpleNamespace(consumer=line.origin)}
        self._line = line

    async def ready(self, queue: str) -> int:
        self._line.lose()
        raise ConnectionLost("the session ended")


async def test_a_session_that_ends_during_the_question_leaves_nothing_behind(start: Start) -> None:
    line, ledger, books = await begun(start)
    await line.push(1, 2)
    session: Any = Losing(line)

    await Confirmation(books.commit, session)._ask()
    await quiet()

    assert books.commit.rows == set()
    assert books.commit.unconfirmed() == {}
    assert not ledger.rows


async def test_a_queue_that_is_lost_says_nothing_about_one_that_is_being_closed(start: Start) -> None:
    """The broker has not answered yet: it may not know of it, should it be lost now as well."""
    line, ledger, books = await begun(start)
    await line.push(1)
    closing, line.origin = line.origin, MemoryOrigin()
    await line.push(2)
    closing.alive = line.origin.alive = False

    line.engine.lost([], line.origin.acked, line.origin)
    await quiet()

    assert books.commit.unconfirmed() == {closing: 1}
    assert len(ledger.rows) == 2
    line.engine.closed(closing)
    await quiet()
    assert len(ledger.rows) == 1


async def test_what_is_told_during_the_question_is_asked_about_the_next_time(start: Start) -> None:
    line, ledger, books = await begun(start)
    await line.push(1)
    asked = books.commit.unconfirmed()
    await line.push(2)

    books.commit.arrived(line.origin, asked[line.origin])
    await quiet()

    assert [row.identity for row in ledger.rows.values()] != []
    assert books.commit.unconfirmed() == {line.origin: 1}
    assert len(ledger.rows) == 1


async def test_a_row_answers_no_copy_until_it_is_settled(start: Start) -> None:
    """The broker knows, which is not written yet: what comes now is another message of the same looks."""
    line, ledger, books = await begun(start)
    await line.push(1)
    ledger.fails = "before"
    books.commit.arrived(line.origin, 1)
    await quiet()
    line.send(1, redelivered=True)
    await quiet()

    ledger.fails = ""
    for _ in range(3):
        await line.advance(1.0)

    assert (line.acked, line.metrics.duplicates_skipped) == ([1, 1], 0)


async def test_a_drain_in_the_middle_of_settling_loses_none_of_it(start: Start) -> None:
    line, ledger, books = await begun(start)
    await line.push(1)
    ledger.takes = 600.0
    books.commit.arrived(line.origin, 1)
    await quiet()

    with anyio.fail_after(30):
        await line.engine.drain(60.0)
    ledger.takes = 0.0
    await books.commit.flush()

    assert not ledger.rows


@pytest.mark.parametrize("fails", ["", "before"])
async def test_a_drain_waits_for_answers_and_no_longer(start: Start, fails: str) -> None:
    line, ledger, _ = await begun(start)
    await line.push(1)
    line, ledger, books = await begun(start, ledger)
    ledger.takes, ledger.fails = 0.2, fails
    line.send(1, redelivered=True)
    await until(lambda: bool(books.inquiry._asked))

    with anyio.fail_after(20):
        await line.engine.drain(600.0)

    assert (line.acked, line.released) == (([], [1]) if fails else ([1], []))


async def test_what_a_target_calls_a_record_stops_nothing(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    line, ledger, _ = await begun(start)
    pipeline: Any = line.engine.pipeline
    pipeline.names = {1: 4711, 2: UUID(int=7), 3: {"id": "secret"}, 4: "x" * 300}

    with caplog.at_level(logging.ERROR, "flow"):
        await line.push(1, 2, 3, 4)

    names = [row.target_id for row in ledger.rows.values()]
    assert names == ["4711", str(UUID(int=7)), None, "x" * 255]
    assert line.acked == [1, 2, 3, 4]
    assert caplog.messages == [
        "the target_id of <Message with delivery tag 3 from numbers> is no str (dict): the ledger keeps none"
    ]


async def test_what_may_not_have_arrived_answers_whoever_gets_it_next(start: Start) -> None:
    line, ledger, books = await begun(start)
    await line.push(1, 2)
    line.origin.alive = False

    line.engine.lost([], line.origin.acked[:1])
    await quiet()

    assert len(ledger.rows) == 1
    assert books.commit.rows == set()
    second, _, _ = await begun(start, ledger)
    await second.push(1, redelivered=True)
    pipeline: Any = second.engine.pipeline
    assert (pipeline.handled, second.acked) == ([], [1])


async def test_what_is_told_through_a_redelivery_is_settled_as_well(start: Start) -> None:
    line, ledger, books = await begun(start)
    pipeline: Any = line.engine.pipeline
    pipeline.gate = anyio.Event()
    await line.push(1)
    line.lose()
    pipeline.gate.set()
    await quiet()
    assert (line.acked, len(ledger.rows)) == ([], 1)
    assert books.commit.rows == set(), "it answers, should the memory of the process have lost it"

    await line.push(1, redelivered=True)
    books.commit.arrived(line.origin, 1)
    await quiet()

    assert (pipeline.handled, line.acked) == ([1], [1])
    assert not ledger.rows


async def test_a_redelivery_that_overtakes_the_news_of_the_loss_is_not_started_again(start: Start) -> None:
    line, ledger, books = await begun(start)
    pipeline: Any = line.engine.pipeline
    pipeline.gate = anyio.Event()
    await line.push(1)
    old, line.origin = line.origin, MemoryOrigin()
    ledger.takes = 0.2
    line.send(1, redelivered=True)
    await until(lambda: bool(books.inquiry._asked))

    old.alive = False
    line.engine.lost(old.made, [])
    await until(lambda: not books.inquiry)
    ledger.takes = 0.0
    pipeline.gate.set()
    await quiet()

    assert (pipeline.handled, line.acked, old.acked) == ([1], [1], [])


async def test_what_cannot_be_written_goes_back_at_a_drain(start: Start) -> None:
    line, ledger, books = await begun(start)
    ledger.fails = "before"
    await line.push(1, 2)
    assert books.commit.open == 2

    with anyio.fail_after(20):
        await line.engine.drain(0.5)

    assert (line.acked, sorted(line.released)) == ([], [1, 2])
    assert line.account == {"received": 2, "returned": 2}


async def test_what_was_replayed_from_the_park_is_not_taken_for_what_was_parked(start: Start) -> None:
    """Else a replay that is delivered twice would be acknowledged as parked, and be in no park."""
    line, ledger, _ = await begun(start)
    await line.push(-1)
    line.origin.alive = False
    line.engine.lost([], line.origin.acked)
    assert (len(line.parked), len(ledger.rows)) == (1, 1)
    line.origin = MemoryOrigin()

    replayed = line.origin.message({"n": -1}, redelivered=True)
    replayed.header += REPLAYS.encode()
    line.origin.given[replayed.header] = Properties(headers={REPLAYS: 1})
    line.engine.receive([replayed])
    await quiet()

    pipeline: Any = line.engine.pipeline
    assert pipeline.handled == [-1, -1]
    assert len(line.parked) == 2


@pytest.mark.parametrize("kind", [Numbers, Batched])
async def test_nothing_is_delivered_while_it_cannot_be_written_down(
    start: Start, kind: type[Numbers]
) -> None:
    line, ledger, _ = await begun(start, kind=kind)
    pipeline: Any = line.engine.pipeline
    ledger.fails = "before"
    await line.push(1)
    await line.push(2, 3)
    before = list(pipeline.handled)

    ledger.fails = ""
    await line.advance(1.0)
    await line.advance(30.0)

    assert before == [1]
    assert (pipeline.handled, sorted(line.acked)) == ([1, 2, 3], [1, 2, 3])


async def test_what_is_decided_during_a_write_is_written_however_much(start: Start) -> None:
    line, ledger, books = await begun(start)
    line.origin.prefetch = 10_000
    ledger.takes = 0.05

    line.send(*range(2500))
    await until(lambda: len(line.acked) == 2500)

    assert books.commit.open == 0
    assert len(ledger.rows) == 2500


async def test_a_redelivery_of_what_is_being_written_waits_for_its_row(start: Start) -> None:
    line, ledger, books = await begun(start)
    ledger.takes = 0.2
    await line.push(1)
    line.lose()
    await line.push(1, redelivered=True)
    early = list(line.acked)

    await until(lambda: not books.commit.open)

    pipeline: Any = line.engine.pipeline
    assert (early, line.acked, pipeline.handled) == ([], [1], [1])
    assert len(ledger.rows) == 1


class Refusing(FaultyLedger):
    """Takes no row about the second message."""

    async def write(self, rows: Sequence[Row]) -> Sequence[int | None]:
        ids = await super().write(rows)
        return [None if number == 2 else number for number in ids]


async def test_a_row_that_is_refused_holds_up_no_message(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    line, _, books = await begun(start, Refusing(ManualClock().now))

    await line.push(1, 2, 3)

    assert line.acked == [1, 2, 3]
    assert (line.metrics.ledger_refused, books.commit.open) == (1, 0)
    assert caplog.messages == [
        "the ledger refused the row of <Message with delivery tag 2 from numbers> (attempt 1)"
    ]


async def test_a_ledger_that_does_not_answer_is_down(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow.stages.commit.PATIENCE", 0.05)
    line, ledger, books = await begun(start)
    ledger.takes = 600.0
    line.send(1)
    await until(lambda: books.fault is not None)
    fault, ledger.takes = books.fault, 0.0

    await line.advance(1.0)
    await quiet()

    assert fault == "no answer in 0.05 s"
    assert (line.acked, books.fault) == ([1], None)
