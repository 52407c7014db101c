"""Messages that were delivered again and again without an outcome: worked alone, then parked."""

import os
from pathlib import Path
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.errors import ConfigError, LedgerError
from flow.message import Message, Properties, State
from flow.outcome import Retry, Unavailable
from flow.pipeline import Pipeline
from flow.records.starts import Starts
from tests.broker.queues import until
from tests.messages import MemoryOrigin
from tests.stages.conftest import Line, Number, Start, quiet
from tests.stages.test_claims import Anything, faulty

pytestmark = pytest.mark.anyio


class Numbers(Pipeline[Number, int]):
    """Keeps the batches it is given; a `down` target does not work."""

    queue = "numbers"
    batching = Batching(size=10, timeout=0.2)

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.batches: list[list[int]] = []
        self.down = False

    async def handle_message(self, message: Message[Number]) -> int:
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        if self.down:
            raise Unavailable("closed", after=1.0)
        self.batches.append(batch.bodies)


class Prepared(Numbers):
    """Prepares chunks as well."""

    queue = "numbers"

    async def prepare_messages(self, messages: Any) -> list[int]:
        return [message.body.n for message in messages]

    async def handle_message(self, message: Message[Number]) -> int:
        assert message.body.n in message.prepared
        assert message.body.n < 50 or len(message.prepared) == 1
        return message.body.n


def delivery(origin: MemoryOrigin, n: int, deliveries: int) -> Message[Any]:
    """Make a delivery that a quorum queue has handed out *deliveries* times before."""
    message = origin.message({"n": n}, redelivered=deliveries > 0)
    message.header += b"x-delivery-count" + n.to_bytes(4, "big")
    origin.given[message.header] = Properties(headers={"x-delivery-count": deliveries})
    return message


async def received(line: Line, *messages: Message[Any]) -> None:
    line.engine.receive(list(messages))
    await quiet()
    await until(lambda: not line.engine.running)  # the folder is written in a thread
    await line.advance(0.2)


@pytest.mark.parametrize("kind", [Numbers, Prepared])
async def test_a_suspect_is_batched_alone(start: Start, tmp_path: Path, kind: type[Numbers]) -> None:
    line = await start(kind, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline
    origin = line.origin

    await received(line, *(delivery(origin, n, count) for n, count in ((1, 0), (2, 2), (53, 3), (4, 0))))

    assert sorted(pipeline.batches) == [[1, 2, 4], [53]]
    assert os.listdir(tmp_path) == []


async def test_what_crashed_the_worker_twice_is_parked(start: Start, tmp_path: Path) -> None:
    """The count alone parks nothing: it is the starts without an outcome that count."""
    line = await start(Numbers, journal=Starts(tmp_path))
    identity = delivery(MemoryOrigin(), 1, 3).identity()
    for earlier in range(2):
        assert await Starts(tmp_path).started(identity) == earlier  # and then the process was killed

    await received(line, delivery(line.origin, 1, 5), delivery(line.origin, 2, 5))

    assert line.parked == [(1, "crashed the worker: it was started 2 times and came to no end")]
    assert line.account == {"received": 2, "delivered": 1, "parked": 1}
    assert os.listdir(tmp_path) == []


async def test_one_suspect_is_started_after_the_other(start: Start, tmp_path: Path) -> None:
    """A crash would blame all that were started."""
    started: list[int] = []
    go = anyio.Event()

    class Waiting(Numbers):
        queue = "numbers"

        async def handle_message(self, message: Message[Number]) -> int:
            started.append(message.body.n)
            await go.wait()
            return message.body.n

    line = await start(Waiting, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline

    line.engine.receive([delivery(line.origin, n, 3) for n in (1, 2)])
    line.engine.receive([delivery(line.origin, 3, 0)])
    await until(lambda: len(started) == 2)
    notes, before = os.listdir(tmp_path), list(started)
    go.set()
    await until(lambda: len(started) == 3)
    await until(lambda: not line.engine.running)
    await line.advance(0.2)

    assert len(notes) == 1
    assert sorted(before) == [1, 3]
    assert sorted(pipeline.batches) == [[1], [2], [3]]


async def test_waiting_for_a_target_is_no_crash(start: Start, tmp_path: Path) -> None:
    line = await start(Numbers, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline
    pipeline.down = True
    await received(line, delivery(line.origin, 1, 3))
    for _ in range(5):
        await line.advance(1.0)
    pipeline.down = False

    await line.advance(1.0)

    assert pipeline.batches == [[1]]
    assert line.account == {"received": 1, "delivered": 1}


async def test_what_a_drain_gives_back_has_crashed_nothing(start: Start, tmp_path: Path) -> None:
    line = await start(Numbers, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline
    pipeline.down = True
    await received(line, delivery(line.origin, 1, 3))

    await line.engine.drain(0.2)

    assert line.released == [1]
    assert os.listdir(tmp_path) == []


async def test_a_suspect_whose_session_ends_stays_alone_and_comes_to_its_end(
    start: Start, tmp_path: Path
) -> None:
    class Slow(Numbers):
        """Handles the suspect when the test says so."""

        queue = "numbers"

        def __init__(self, settings: Any = None) -> None:
            super().__init__(settings)
            self.begun, self.go = anyio.Event(), anyio.Event()

        async def handle_message(self, message: Message[Number]) -> int:
            if message.body.n == 1:
                self.begun.set()
                await self.go.wait()
            return message.body.n

    line = await start(Slow, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline
    line.engine.receive([delivery(line.origin, 1, 3)])
    await pipeline.begun.wait()  # the folder is written in a thread first
    line.lose()
    line.engine.receive([delivery(line.origin, 1, 4), delivery(line.origin, 2, 0)])
    await quiet()

    pipeline.go.set()
    await line.advance(0.2)
    await line.advance(0.2)

    assert sorted(pipeline.batches) == [[1], [2]]
    assert os.listdir(tmp_path) == []


class Leaving(Numbers):
    """Handles a message when the test says so, and asks for another time when it is to."""

    queue = "numbers"
    retry_delay = 30.0

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.later = False
        self.go = anyio.Event()
        self.go.set()

    async def handle_message(self, message: Message[Number]) -> int:
        await self.go.wait()
        if self.later:
            raise Retry("later", after=5.0)
        return message.body.n


@pytest.mark.parametrize("where", [State.BATCHED, State.HELD, State.RUNNING])
async def test_a_suspect_that_is_lost_with_its_session_has_crashed_nothing(
    start: Start, tmp_path: Path, where: State
) -> None:
    """Nothing waits for it any more, and its note goes: it may be delivered to another worker."""
    line = await start(Leaving, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline
    pipeline.down, pipeline.later = where is State.BATCHED, where is State.HELD
    if where is State.RUNNING:
        pipeline.go = anyio.Event()
    message = delivery(line.origin, 1, 3)
    line.engine.receive([message])
    await until(lambda: message.state is where and (where is State.HELD or os.listdir(tmp_path)))

    line.lose()
    pipeline.down = pipeline.later = False
    pipeline.go.set()

    await until(lambda: os.listdir(tmp_path) == [])
    assert not line.engine._suspects._started


async def test_a_suspect_whose_redelivery_took_over_is_still_started(start: Start, tmp_path: Path) -> None:
    line = await start(Leaving, journal=Starts(tmp_path))
    pipeline: Any = line.engine.pipeline
    pipeline.go, pipeline.down = anyio.Event(), True
    line.engine.receive([delivery(line.origin, 1, 3)])
    await until(lambda: os.listdir(tmp_path))
    await quiet()
    line.lose()
    line.engine.receive([delivery(line.origin, 1, 4)])
    await quiet()
    pipeline.go.set()
    await received(line)

    line.engine._suspects.discard_stale()
    await line.engine._suspects.flush()
    notes = os.listdir(tmp_path)
    pipeline.down = False
    await line.advance(1.0)

    assert len(notes) == 1
    assert pipeline.batches == [[1]]
    await until(lambda: os.listdir(tmp_path) == [])


class Away:
    """A journal in a database that is away."""

    def __init__(self) -> None:
        self.away = True
        self.asked = 0
        self.notes: list[str] = []

    async def started(self, identity: Any) -> int:
        await self._note("started")
        return 0

    async def ended(self, identities: Any) -> None:
        await self._note("ended")

    async def _note(self, what: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.asked += 1
        if self.away:
            raise LedgerError("it is away")
        self.notes.append(what)


async def test_a_suspect_that_is_held_gives_way_to_the_next_one(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it runs, so that no crash would be its own; its next attempt is noted again."""
    monkeypatch.setattr("flow.stages.engine.PATIENCE", 600.0)

    class Asking(Numbers):
        """Asks for another time for its first message."""

        queue = "numbers"
        handler_timeout = 1200.0

        def __init__(self, settings: Any = None) -> None:
            super().__init__(settings)
            self.started: list[int] = []

        async def handle_message(self, message: Message[Number]) -> int:
            self.started.append(message.body.n)
            if message.body.n == 1 and message.attempt == 1:
                raise Retry("later", after=5.0)
            return message.body.n

    journal = Away()
    journal.away = False
    line = await start(Asking, journal=journal)
    pipeline: Any = line.engine.pipeline

    line.engine.receive([delivery(line.origin, n, 3) for n in (1, 2)])
    await until(lambda: pipeline.started == [1, 2])
    await quiet()
    await line.advance(5.0)
    await until(lambda: len(pipeline.started) == 3)
    await quiet()

    assert pipeline.batches == [[2], [1]]
    assert journal.notes.count("started") == 3
    assert journal.notes[-1] == "ended"


class Brief(Numbers):
    """Has little time for each message."""

    queue = "numbers"
    handler_timeout = 2.0


class BriefPrepared(Prepared):
    """The same, prepared."""

    queue = "numbers"
    handler_timeout = 2.0


@pytest.mark.parametrize("kind", [Brief, BriefPrepared])
async def test_a_suspect_whose_start_cannot_be_noted_waits_for_the_database(
    start: Start, kind: type[Numbers]
) -> None:
    journal = Away()
    line = await start(kind, journal=journal, ledger=True)
    database = faulty(line)
    database.identities = Anything()
    pipeline: Any = line.engine.pipeline
    line.engine.receive([delivery(line.origin, 53, 3)])
    await until(lambda: bool(journal.asked))  # the inquiry has had its answer before
    database.fails = "before"
    await quiet()
    for _ in range(20):
        await line.advance(30.0)
    fault = line.engine.books.fault if line.engine.books else None
    before = list(pipeline.batches)
    tries, journal.away, database.fails = journal.asked, False, ""
    for _ in range(3):
        await line.advance(30.0)

    assert fault in ("it is away", "the ledger is away")
    assert tries > 10
    assert (before, pipeline.batches) == ([], [[53]])
    assert journal.notes == ["started", "ended"]
    assert line.account == {"received": 1, "delivered": 1}


class Looking(Numbers):
    """Notes how many rows the ledger has when a message starts."""

    queue = "numbers"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.rows: Any = ()
        self.seen: dict[int, int] = {}

    async def handle_message(self, message: Message[Number]) -> int:
        self.seen[message.body.n] = len(self.rows)
        return message.body.n


async def test_what_was_decided_is_written_before_a_suspect_starts(start: Start) -> None:
    """It may end the process, and what was not written would be done again."""
    journal = Away()
    journal.away = False
    line = await start(Looking, journal=journal, ledger=True)
    database, pipeline = faulty(line), line.engine.pipeline
    database.identities = Anything()
    pipeline.rows, database.takes = database.rows, 0.3

    line.engine.receive([delivery(line.origin, 53, 3), delivery(line.origin, 54, 3)])
    await until(lambda: 53 in pipeline.seen)
    await line.advance(0.2)
    await until(lambda: 54 in pipeline.seen)

    assert pipeline.seen == {53: 0, 54: 1}


async def test_a_drain_gives_a_suspect_back_that_waits_for_the_database(start: Start) -> None:
    line = await start(Numbers, journal=Away(), ledger=True)
    line.engine.receive([delivery(line.origin, 53, 3), delivery(line.origin, 54, 3)])
    await quiet()

    hung = await line.engine.drain(0.4)

    assert (hung, sorted(line.released)) == (0, [53, 54])


async def test_a_folder_that_fails_guards_nothing_and_says_so(
    start: Start, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = Starts(tmp_path / "state")
    line = await start(Numbers, journal=journal)
    (tmp_path / "state").rmdir()

    await received(line, delivery(line.origin, 1, 3))

    pipeline: Any = line.engine.pipeline
    assert pipeline.batches == [[1]]
    assert (
        "crash loops are not guarded now: the state folder fails (No such file or directory)" in caplog.text
    )


async def test_without_a_journal_nobody_is_a_suspect(start: Start) -> None:
    line = await start(Numbers)
    pipeline: Any = line.engine.pipeline

    await received(line, delivery(line.origin, 1, 9), delivery(line.origin, 2, 0))

    assert pipeline.batches == [[1, 2]]


async def test_starts_of_long_ago_are_cleared_and_those_that_end_meanwhile_are_no_fault(
    tmp_path: Path,
) -> None:
    await Starts(tmp_path).started("one")
    await Starts(tmp_path).started("other")
    old = tmp_path / os.listdir(tmp_path)[0]
    os.utime(old, (0, 0))
    (tmp_path / "gone.started").symlink_to(
        "nowhere"
    )  # there when the folder is read, and not when it is looked at

    Starts(tmp_path)

    assert not old.exists()
    assert len(os.listdir(tmp_path)) == 2


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match=r"the folder .*/file/state cannot be written: Not a directory"):
        Starts(tmp_path / "file" / "state")
