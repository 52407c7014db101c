"""The ledger in both databases and in memory: rows, what they answer, claims, and starts."""

import math
import secrets
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import msgspec
import pytest
from sqlalchemy import event, func, insert, select, text, update

from flow.claim import Hold, Standing
from flow.errors import DatabaseDown, LedgerError
from flow.ledger import Row, clean, digest
from flow.outcome import Decision, Outcome
from flow.records.claims import SqlClaims, standing
from flow.records.database import Database
from flow.records.ledger import SqlLedger, SqlStarts
from flow.records.memory_ledger import KEPT, MemoryLedger
from flow.records.tables import claims, ledger, starts
from tests.nodes.postgresql_node import PostgreSQLNode

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
    books = SqlLedger(database)
    ids = await books.write([row(n) for n in range(1500)])
    await books.settle([number for number in ids if number is not None])

    async with database.reading() as connection:
        rows = await connection.execute(select(ledger.c.id, ledger.c.record_id))
        found = {one.id: one.record_id for one in rows}
    assert [found[number or 0] for number in ids] == [f"action {n}" for n in range(1500)]
    assert not await books.unsettled("crm", "acme.crm", [digest(n) for n in range(1500)])


async def test_copies_of_a_message_that_end_in_one_moment_are_all_settled(database: Database) -> None:
    """Else one of them would answer for another copy that comes again, which then is not worked."""
    books, one = SqlLedger(database), row(1)

    ids = await books.write([one, one])
    await books.settle([number for number in ids if number is not None])

    assert len(set(ids)) == await count(database) == 2
    assert not await books.unsettled("crm", "acme.crm", [digest(1)])


async def test_an_unsettled_row_of_long_ago_answers_nothing(database: Database) -> None:
    books = SqlLedger(database)
    await books.write([row(n, at=datetime.now(UTC) - timedelta(days=n)) for n in (29, 31)])

    found = await books.unsettled("crm", "acme.crm", [digest(29), digest(31)])

    assert [one.identity for one in found] == [digest(29)]


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


async def test_what_is_out_of_all_bounds_is_stored_or_refused(database: Database) -> None:
    rows = [row(1, after=math.inf), row(2, after=1e300), row(3, attempt=2**63 - 1), row(4, attempt=2**64)]

    ids = await SqlLedger(database).write(rows)

    found = await SqlLedger(database).unsettled("crm", "acme.crm", [digest(1), digest(2)])
    assert [one.decision.after for one in found] == [(2**31 - 1) / 1000] * 2
    assert ids[3] is None
    assert all(ids[:2])


async def test_a_write_whose_end_is_not_known_is_not_written_twice(database: Database) -> None:
    books, rows = SqlLedger(database), [row(1), row(2)]
    first = await books.write(rows[:1])
    books._doubtful = True  # as after an answer that did not come

    assert (await books.write(rows))[0] == first[0]
    assert await count(database) == 2


class Leaving:
    """A database that goes away after some more transactions."""

    def __init__(self, database: Database, after: int) -> None:
        self.is_sqlite = database.is_sqlite
        self.left = after
        self._database = database

    def begin(self, **options: Any) -> Any:
        if not self.left:
            raise DatabaseDown("it is away")
        self.left -= 1
        return self._database.begin(**options)


@pytest.mark.parametrize("after", [2, 4, 6])
async def test_what_was_written_around_a_refused_row_before_a_fault_is_not_written_twice(
    database: Database, after: int
) -> None:
    leaving: Any = Leaving(database, after)
    books = SqlLedger(leaving)
    rows = [row(n, attempt=None if n == 5 else 1) for n in range(8)]
    with pytest.raises(LedgerError):
        await books.write(rows)
    before = await count(database)
    leaving.left = -1

    ids = await books.write(rows)

    async with database.reading() as connection:
        named = {one.id: one.record_id for one in await connection.execute(select(ledger))}
    assert before > 0
    assert [named.get(number or 0) for number in ids] == [None if n == 5 else f"action {n}" for n in range(8)]
    assert len(named) == 7


async def test_one_refused_row_of_many_costs_few_transactions(database: Database) -> None:
    counting: Any = Leaving(database, -1)

    ids = await SqlLedger(counting).write([row(n, attempt=None if n == 700 else 1) for n in range(1000)])

    assert sum(number is None for number in ids) == 1
    assert -1 - counting.left < 25


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


@pytest.mark.parametrize(
    ("table", "kind", "right"),
    [
        *[("ledger", SqlLedger, right) for right in ("INSERT", "UPDATE")],
        *[("claims", SqlClaims, right) for right in ("INSERT", "UPDATE", "DELETE")],
    ],
)
async def test_without_a_right_they_are_not_ready(
    postgresql: PostgreSQLNode, postgresql_url: str, table: str, kind: Any, right: str
) -> None:
    """Else they would work again and be down again, as fast as the database answers."""
    role = f"limited_{secrets.token_hex(4)}"
    postgresql.execute(f"CREATE ROLE {role} LOGIN")
    url = postgresql_url.replace("postgres@", f"{role}@")
    try:
        async with Database.opened(postgresql_url) as owned:
            async with owned.begin() as connection:
                await connection.execute(text(f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}"))
                await connection.execute(text(f"REVOKE {right} ON {table} FROM {role}"))
            async with Database.opened(url) as limited:
                with pytest.raises(LedgerError):
                    await kind(limited).ready()
            async with owned.begin() as connection:
                await connection.execute(text(f"GRANT {right} ON {table} TO {role}"))
            async with Database.opened(url) as limited:
                await kind(limited).ready()
            async with owned.begin() as connection:
                await connection.execute(text(f"DROP OWNED BY {role}"))
    finally:
        postgresql.execute(f"DROP ROLE {role}")


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


async def test_what_is_ready_has_written_nothing(stored: Stored) -> None:
    await stored.take("a", "1")

    await stored.ledger.ready()
    await stored.claims.ready()

    assert await stored.claims.begin("mail", "1", "a", LONG)


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


@pytest.mark.parametrize(("unknown", "hold"), [("park", Hold.UNKNOWN), ("again", Hold.OURS)])
async def test_an_effect_that_is_under_way_is_nobodys_to_begin(
    stored: Stored, unknown: str, hold: Hold
) -> None:
    """Not even its own worker's, which may have lost track of it; unless it lets go of it."""
    await stored.take("a", "1", "2")
    for key in ("1", "2"):
        assert await stored.claims.begin("mail", key, "a", LONG)

    assert await stored.hold("a", "1", unknown) is Hold.ELSEWHERE
    await stored.claims.free("mail", ["2"], "a")
    assert await stored.hold("a", "2", unknown) is Hold.OURS
    await stored.expire()
    assert await stored.hold("a", "1", unknown) is hold


@pytest.mark.parametrize(
    ("state", "left", "unknown", "hold"),
    [
        ("done", -1.0, "park", Standing(Hold.DONE)),
        ("claimed", 5.0, "park", Standing(Hold.ELSEWHERE, 5.0)),
        ("sending", 5.0, "park", Standing(Hold.ELSEWHERE, 5.0)),
        ("sending", 0.0, "park", Standing(Hold.UNKNOWN)),
        ("sending", 0.0, "again", Standing(Hold.ELSEWHERE)),  # it ended between two statements
        ("claimed", 0.0, "park", Standing(Hold.ELSEWHERE)),
    ],
)
def test_how_a_claim_stands_that_could_not_be_taken(
    state: str, left: float, unknown: Any, hold: Standing
) -> None:
    assert standing(state, left, unknown) == hold


async def test_what_is_done_stays_done(stored: Stored) -> None:
    await stored.take("a", "1")
    await stored.claims.begin("mail", "1", "a", LONG)
    await stored.ledger.write([row(1, pipeline="mail", claim="1")])
    await stored.claims.free("mail", ["1"], "a")
    await stored.expire()

    assert await stored.hold("a", "1") is Hold.DONE
    assert await stored.hold("b", "1", "again") is Hold.DONE


async def test_many_claims_are_ended_by_as_many_statements_as_one(database: Database) -> None:
    """A round trip for each would make the slowest network the limit, with the locks held."""
    books, said = SqlLedger(database), list[str]()

    @event.listens_for(database._engine.sync_engine, "before_cursor_execute")
    def note(_: Any, __: Any, statement: str, *___: Any) -> None:
        said.append(statement)

    counts = []
    for many in (1, 300):
        said.clear()
        await books.write([row(n, claim=f"{many}/{n}") for n in range(many)])
        counts.append(len(said))

    assert counts[0] == counts[1]


async def test_two_that_end_the_same_claims_do_not_wait_for_each_other(postgresql_url: str) -> None:
    async with Database.opened(postgresql_url) as database:
        keys = [str(n) for n in range(300)]
        await SqlClaims(database).take("crm", keys, "a", LONG, "again")

        async with anyio.create_task_group() as tasks:
            for order in (keys, keys[::-1]):
                rows = [row(n, claim=key, target_id=None) for n, key in enumerate(order)]
                tasks.start_soon(SqlLedger(database).write, rows)

        held = await SqlClaims(database).take("crm", keys, "a", LONG, "again")
        assert {one.hold for one in held.values()} == {Hold.DONE}


async def test_in_memory_one_that_is_not_done_keeps_no_other() -> None:
    memory = MemoryLedger(lambda: 0.0)
    await memory.take("crm", ["stuck"], "a", LONG, "park")

    for n in range(KEPT + 500):
        await memory.write([row(n, claim=str(n), unsettled=False)])

    held = await memory.take("crm", ["stuck", "0", str(KEPT + 499)], "b", LONG, "park")
    assert [one.hold for one in held.values()] == [Hold.ELSEWHERE, Hold.OURS, Hold.DONE]


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
