"""A trial runs the stages as they are, and tells nobody but its own ledger."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import select

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Decision, Outcome, Reject, Retry, Skip
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.records.claims import SqlClaims
from flow.records.database import Database
from flow.records.ledger import SqlLedger
from flow.records.memory_ledger import MemoryLedger
from flow.records.tables import ledger
from flow.trial.rehearsal import Rehearsal
from flow.trial.trial import Trial

pytestmark = pytest.mark.anyio

VERDICTS = {1: Skip("one"), 2: Retry("two"), 3: Retry("three", after=0.0), 4: Retry("four", after=100)}


class Number(msgspec.Struct):
    n: int


class Numbers(Pipeline[Number]):
    queue = "numbers"
    batching = Batching(size=10, timeout=1000.0)
    rate_limit = RateLimit(calls=1, per=1000.0)

    def __init__(self) -> None:
        super().__init__()
        self.handled: list[int] = []
        self.delivered: list[list[int]] = []
        self.failed: list[tuple[int, Outcome]] = []
        self.open = False

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.open = True
        yield
        self.open = False

    def handle_message(self, message: Message[Number]) -> Number:
        assert self.open
        self.handled.append(message.body.n)
        if verdict := VERDICTS.get(message.body.n):
            raise verdict
        return message.body

    async def handle_batch(self, batch: Batch[Number]) -> None:
        self.delivered.append([one.n for one in batch.bodies])
        for message in batch:
            if message.body.n == 11:
                batch.reject(message, "eleven")

    async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
        self.failed.append((message.body.n, outcome))


class Ledger:
    """What a trial settled, in order."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, str]] = []

    def __call__(self, message: Message[Any], decision: Decision | None) -> None:
        n = msgspec.json.decode(message.raw, type=Number).n
        self.rows.append((n, decision.outcome.value if decision else "returned"))


async def tried(
    pipeline: Pipeline[Any, Any], numbers: Sequence[int], settled: Any, window: int = 100, store: Any = None
) -> Trial:
    """Run *numbers* through *pipeline*."""
    trial = Trial(pipeline, window, settled, store)

    async def feed(trial: Trial) -> None:
        for n in numbers:
            await trial.origin.room()
            trial.receive(trial.origin.message(msgspec.json.encode(Number(n))))
            assert trial.origin.outstanding <= window

    with anyio.fail_after(20):
        await trial.run(feed, 1.0)
    return trial


async def test_every_outcome_is_told_once_and_nothing_is_tried_twice() -> None:
    pipeline, ledger = Numbers(), Ledger()

    trial = await tried(pipeline, [1, 2, 3, 4, 10, 11], ledger)

    assert sorted(ledger.rows) == [
        (1, "skipped"),
        (2, "retrying"),
        (3, "retrying"),
        (4, "retrying"),
        (10, "delivered"),
        (11, "parked"),
    ]
    assert sorted(pipeline.handled) == [1, 2, 3, 4, 10, 11]
    assert str(trial.account).startswith("received 6 = 1 delivered + 1 skipped + 3 retrying + 1 parked")
    assert not pipeline.open


async def test_what_is_written_down_is_settled_and_not_kept(database: Database) -> None:
    """There is no broker that could deliver it again."""
    books = SqlLedger(database)

    trial = await tried(Numbers(), [1, 2, 10, 11], Ledger(), store=(books, SqlClaims(database)))

    commit = trial._engine.books.commit if trial._engine.books else None
    async with database.reading() as connection:
        rows = (await connection.execute(select(ledger.c.outcome, ledger.c.unsettled))).all()
    assert sorted(map(tuple, rows)) == [
        ("delivered", False),
        ("parked", False),
        ("retrying", False),
        ("skipped", False),
    ]
    assert commit is not None
    assert (commit.unconfirmed(), commit.rows) == ({}, set())


async def test_what_was_settled_is_not_kept_until_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file may hold millions."""
    monkeypatch.setattr("flow.trial.trial.INTERVAL", 0.01)
    memory = MemoryLedger()
    trial = Trial(Numbers(), 100, Ledger(), (memory, memory))
    left: list[int] = []

    async def feed(trial: Trial) -> None:
        trial.receive(trial.origin.message(b'{"n": 1}'))
        while not left:
            await anyio.sleep(0.01)
            books = trial._engine.books
            if trial.account.skipped and books is not None and not books.commit.unconfirmed():
                left.append(len(memory.rows))

    with anyio.fail_after(20):
        await trial.run(feed, 1.0)


async def test_open_batches_go_as_soon_as_everything_is_read() -> None:
    """The batch waits for 1000 s otherwise."""
    pipeline = Numbers()

    await tried(pipeline, [20, 21], Ledger())

    assert pipeline.delivered == [[20, 21]]


async def test_a_window_smaller_than_a_batch_does_not_stand_still() -> None:
    class Unpaced(Numbers):
        rate_limit = None

    pipeline, ledger = Unpaced(), Ledger()

    await tried(pipeline, range(100, 120), ledger, window=4)

    assert sorted(ledger.rows) == [(n, "delivered") for n in range(100, 120)]


async def test_what_is_not_finished_at_a_stop_is_told_as_returned() -> None:
    class Stuck(Numbers):
        async def handle_batch(self, batch: Batch[Number]) -> None:
            trial.stop()
            await anyio.sleep_forever()

    ledger = Ledger()
    trial = Trial(Stuck(), 100, ledger)

    async def feed(trial: Trial) -> None:
        trial.receive(trial.origin.message(b'{"n": 30}'))

    with anyio.fail_after(20):
        await trial.run(feed, 0.2)

    assert ledger.rows == [(30, "returned")]
    assert trial.account.returned == 1


async def test_a_rehearsal_never_calls_the_delivering_callback() -> None:
    """Nor does it wait for the rate limit, or report failures that change nothing."""
    rehearsal = Rehearsal()
    pipeline = rehearsal.of(Numbers)()
    assert isinstance(pipeline, Numbers)

    await tried(pipeline, [1, 2, *range(10, 25)], rehearsal.settled)

    assert [len(batch) for batch in rehearsal.batches] == [10, 5]
    assert [(message.body.n, decision and decision.reason) for message, decision in rehearsal.others] == [
        (1, "one"),
        (2, "two"),
    ]
    assert pipeline.delivered == []
    assert pipeline.failed == []
    assert (pipeline.name, type(pipeline).__name__) == ("numbers", "Numbers")


async def test_a_rehearsal_without_batches_only_decodes() -> None:
    class Single(Pipeline[Number]):
        queue = "numbers"

        def handle_message(self, message: Message[Number]) -> None:
            raise Reject("it was called")

    rehearsal = Rehearsal()

    await tried(rehearsal.of(Single)(), [1, 2], rehearsal.settled)

    assert [message.body.n for message in rehearsal.messages] == [1, 2]
    assert rehearsal.others == []
