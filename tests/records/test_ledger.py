"""The ledger in both databases and in memory: rows, what they answer, claims, and starts."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import func, insert, select, text, update

from flow.claim import Hold, Standing
from flow.errors import LedgerError
from flow.ledger import Row, clean, digest
from flow.outcome import Decision, Outcome
from flow.records.claims import SqlClaims
from flow.records.database import Database
from flow.records.ledger import SqlLedger, SqlStarts
from flow.records.memory_ledger import MemoryLedger
from flow.records.tables import claims, ledger, starts

pytestmark = pytest.mark.anyio

LONG = 100.0  # seconds


def row(n: int, **changes: Any) -> Row:
    made = Row(
        pipeline="crm",
        queue="acme.crm",
        identity=digest(n),
        record_id=f"action {n}",
        attempt=1,
        outcome=Outcome.DELIVERED,
        reason="",
        after=None,
        target_id=f"contact-{n}",
        at=datetime.now(UTC),
        unsettled=True,
    )
    return msgspec.structs.replace(made, **changes)


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return await connection.scalar(select(func.count()).select_from(ledger)) or 0


async def test_rows_answer_until_they_are_settled(database: Database) -> None:
    books = SqlLedger(database)
    rows = [row(1), row(2, outcome=Outcome.RETRYING, reason="busy", after=2.5), row(3, unsettled=False)]

    ids = await books.write(rows)

    found = await books.unsettled("crm", "acme.crm", [digest(n) for n in range(600)])
    assert [(one.id, one.identity, one.decision) for one in found] == [
        (ids[0], digest(1), Decision(Outcome.DELIVERED)),
        (ids[1], digest(2), Decision(Outcome.RETRYING, "busy", 2.5)),
    ]
    assert not await books.unsettled("other", "acme.crm", [digest(1)])
    assert not await books.unsettled("crm", "other", [digest(1)])
    await books.settle([one for one in ids if one is not None])
    assert not await books.unsettled("crm", "acme.crm", [digest(1), digest(2)])


async def test_the_ids_are_those_of_the_rows_however_many(database: Database) -> None:
    ids = await SqlLedger(database).write([row(n) for n in range(1500)])

    async with database.reading() as connection:
        rows = await connection.execute(select(ledger.c.id, ledger.c.record_id))
        found = {one.id: one.record_id for one in rows}
    assert [found[number or 0] for number in ids] == [f"action {n}" for n in range(1500)]


async def test_what_the_ledger_holds_is_what_was_done(database: Database) -> None:
    await SqlLedger(database).write([row(1, outcome=Outcome.PARKED, reason="never", attempt=3)])

    async with database.reading() as connection:
        one = (await connection.execute(select(ledger))).mappings().one()
    assert (one["pipeline"], one["queue"], one["record_id"]) == ("crm", "acme.crm", "action 1")
    assert (one["attempt"], one["outcome"], one["reason"]) == (3, "parked", "never")
    assert (one["target_id"], one["unsettled"]) == ("contact-1", True)
    assert datetime.now(UTC) - one["at"] < timedelta(minutes=1)


async def test_a_row_that_is_refused_holds_up_no_other(database: Database) -> None:
    bad = row(2, attempt=None)

    ids = await SqlLedger(database).write([row(1), bad, row(3)])

    assert [number is None for number in ids] == [False, True, False]
    assert await count(database) == 2


async def test_a_write_whose_end_is_not_known_is_not_written_twice(database: Database) -> None:
    books, rows = SqlLedger(database), [row(1), row(2)]
    first = await books.write(rows[:1])
    books._doubtful = True  # as after an answer that did not come

    assert (await books.write(rows))[0] == first[0]
    assert await count(database) == 2


async def test_a_database_that_is_away_is_an_error_of_the_ledger(postgresql_url: str) -> None:
    async with Database.opened(postgresql_url) as database:
        async with database.begin() as connection:
            await connection.execute(text("ALTER TABLE ledger RENAME TO away"))
        books = SqlLedger(database)

        for call in (
            books.write([row(1)]),
            books.unsettled("crm", "q", [digest(1)]),
            books.settle([1]),
            books.ready(),
        ):
            with pytest.raises(LedgerError):
                await call


def test_text_is_cleaned() -> None:
    assert clean("a\0b\ud800c") == "ab?c"
    assert clean("x" * 300) == "x" * 255
    assert clean(None) is None


async def test_starts_are_counted_until_the_end(database: Database) -> None:
    journal = SqlStarts(database)

    assert [await journal.started("one"), await journal.started("one"), await journal.started("two")] == [
        0,
        1,
        0,
    ]
    await journal.ended(["one"])
    assert [await journal.started("one"), await journal.started("two")] == [0, 1]


async def test_starts_of_long_ago_do_not_count(database: Database) -> None:
    async with database.begin() as connection:
        old = datetime.now(UTC) - timedelta(days=31)
        await connection.execute(insert(starts).values(identity=digest("one"), at=old))

    assert await SqlStarts(database).started("one") == 0


class Stored:
    """Claims of one kind, whose time a test can let pass."""

    def __init__(self, claims: Any, ledger: Any, database: Database | None, clock: list[float]) -> None:
        self.claims = claims
        self.ledger = ledger
        self._database = database
        self._clock = clock

    async def take(self, holder: str, *keys: str, unknown: str = "park") -> dict[str, Standing]:
        return dict(await self.claims.take("mail", keys, holder, LONG, unknown))

    async def hold(self, holder: str, key: str, unknown: str = "park") -> Hold:
        return (await self.take(holder, key, unknown=unknown))[key].hold

    async def expire(self) -> None:
        """Let the time of all claims pass."""
        self._clock[0] += LONG + 1
        if self._database is not None:
            async with self._database.begin() as connection:
                await connection.execute(
                    update(claims).values(until=datetime.now(UTC) - timedelta(seconds=1))
                )


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def stored(request: pytest.FixtureRequest, tmp_path: Any) -> AsyncIterator[Stored]:
    clock = [0.0]
    if request.param == "memory":
        memory = MemoryLedger(lambda: clock[0])
        yield Stored(memory, memory, None, clock)
        return
    url = f"sqlite:///{tmp_path / 'records.db'}"
    if request.param == "postgresql":
        url = request.getfixturevalue("postgresql_url")
    async with Database.opened(url) as database:
        yield Stored(SqlClaims(database), SqlLedger(database), database, clock)


async def test_an_effect_begins_once(stored: Stored) -> None:
    await stored.take("a", "1")

    begun = [await stored.claims.begin("mail", "1", "a", LONG) for _ in range(2)]

    assert begun == [True, False]


async def test_what_is_unknown_of_one_holder_is_nothing_of_another(stored: Stored) -> None:
    """Whoever has lost a claim says nothing of whoever has it now."""
    await stored.take("a", "1")
    await stored.expire()
    await stored.take("b", "1")

    await stored.claims.doubt("mail", ["1"], "a")

    assert await stored.hold("c", "1") is Hold.ELSEWHERE
    assert await stored.claims.begin("mail", "1", "b", LONG)


async def test_pipelines_claim_apart(stored: Stored) -> None:
    """Each mails for itself: confirming an action is no thanking for it."""
    await stored.take("a", "1")
    await stored.claims.take("thanks", ["1"], "a", LONG, "park")

    await stored.claims.begin("mail", "1", "a", LONG)
    await stored.claims.free("mail", ["1"], "a")

    assert await stored.hold("b", "1") is Hold.OURS
    thanks = await stored.claims.take("thanks", ["1"], "b", LONG, "park")
    assert thanks["1"].hold is Hold.ELSEWHERE
    assert await stored.claims.begin("thanks", "1", "a", LONG)


async def test_a_claim_is_held_by_one(stored: Stored) -> None:
    assert await stored.hold("a", "1") is Hold.OURS
    assert await stored.hold("a", "1") is Hold.OURS

    other = await stored.take("b", "1", "2")

    assert (other["1"].hold, other["2"].hold) == (Hold.ELSEWHERE, Hold.OURS)
    assert LONG - 10 < other["1"].seconds <= LONG


async def test_a_claim_that_ended_before_its_effect_is_free(stored: Stored) -> None:
    await stored.take("a", "1")
    await stored.expire()

    assert await stored.hold("b", "1") is Hold.OURS
    assert not await stored.claims.begin("mail", "1", "a", LONG)


@pytest.mark.parametrize(("unknown", "hold"), [("park", Hold.UNKNOWN), ("again", Hold.OURS)])
async def test_a_claim_that_ended_during_its_effect(stored: Stored, unknown: str, hold: Hold) -> None:
    await stored.take("a", "1")
    assert await stored.claims.begin("mail", "1", "a", LONG)
    assert await stored.hold("b", "1", unknown) is Hold.ELSEWHERE
    await stored.expire()

    assert await stored.hold("b", "1", unknown) is hold


async def test_what_is_done_stays_done(stored: Stored) -> None:
    await stored.take("a", "1")
    await stored.claims.begin("mail", "1", "a", LONG)
    await stored.ledger.write([row(1, pipeline="mail", claim="1")])
    await stored.claims.free("mail", ["1"], "a")
    await stored.expire()

    assert await stored.hold("a", "1") is Hold.DONE
    assert await stored.hold("b", "1", "again") is Hold.DONE


async def test_a_claim_that_was_let_go_of_is_free(stored: Stored) -> None:
    await stored.take("a", "1", "2")
    await stored.claims.begin("mail", "1", "a", LONG)
    await stored.claims.free("mail", ["1", "2"], "b")
    assert await stored.hold("b", "1") is Hold.ELSEWHERE

    await stored.claims.free("mail", ["1", "2"], "a")

    assert {one.hold for one in (await stored.take("b", "1", "2")).values()} == {Hold.OURS}


async def test_a_doubt_is_known_to_all_at_once(stored: Stored) -> None:
    await stored.take("a", "1")
    await stored.claims.begin("mail", "1", "a", LONG)
    await stored.claims.doubt("mail", ["1"], "a")

    assert await stored.hold("b", "1") is Hold.UNKNOWN
    assert await stored.hold("a", "1") is Hold.UNKNOWN


async def test_of_many_workers_one_has_each_claim(database: Database) -> None:
    keys, got = [str(n) for n in range(40)], list[str]()

    async def work(holder: str) -> None:
        standings = await SqlClaims(database).take(
            "mail", keys[:: 1 if holder > "w2" else -1], holder, LONG, "park"
        )
        got.extend(key for key, one in standings.items() if one.hold is Hold.OURS)

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(work, f"w{number}")

    assert sorted(got) == sorted(keys)
