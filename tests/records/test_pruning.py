"""Pruning: what is old goes, in portions; what may still be needed stays."""

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from sqlalchemy import insert, select, text

from flow.claim import Hold
from flow.ledger import digest
from flow.records import pruning
from flow.records.claims import SqlClaims
from flow.records.database import Database
from flow.records.ledger import SqlLedger
from flow.records.pruning import Pruned, prune
from flow.records.tables import claims, ledger, published, starts
from tests.records.test_ledger import row

pytestmark = pytest.mark.anyio

YEAR = timedelta(days=365)


def ago(days: float) -> datetime:
    return datetime.now(UTC) - timedelta(days=days)


@pytest.fixture(autouse=True)
def small_portions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "PORTION", 7)


async def kept(database: Database, column: Any) -> list[Any]:
    async with database.reading() as connection:
        return list(await connection.scalars(select(column).order_by(column)))


async def test_what_is_old_and_settled_goes(database: Database) -> None:
    ages = [*(400 + n for n in range(30, 0, -1)), 366, 364, 40, 1, 0]
    rows = [row(n, at=ago(days), unsettled=n % 10 == 3) for n, days in enumerate(ages)]
    await SqlLedger(database).write(rows)

    counted = await prune(database, YEAR, dry_run=True)
    before = await kept(database, ledger.c.record_id)
    done = await prune(database, YEAR)
    again = await prune(database, YEAR)

    assert counted == done == Pruned(ledger=28, claims=0, published=0, starts=0)
    assert len(before) == len(rows)
    left = [3, 13, 23, *range(31, 35)]
    assert await kept(database, ledger.c.record_id) == sorted(f"action {n}" for n in left)
    assert again.ledger == 0


async def test_an_unsettled_row_answers_however_old_its_neighbours(database: Database) -> None:
    books = SqlLedger(database)
    await books.write([row(1, at=ago(50), unsettled=False), row(2, at=ago(20)), row(3, at=ago(50))])

    await prune(database, timedelta(days=30))

    found = await books.unsettled("crm", "acme.crm", [digest(n) for n in (1, 2, 3)])
    assert [one.identity for one in found] == [digest(2)]
    assert await kept(database, ledger.c.record_id) == ["action 2", "action 3"]


async def test_claims_go_unless_their_outcome_is_unknown(database: Database) -> None:
    states = {"1": ("done", 400), "2": ("sending", 400), "3": ("claimed", 400), "4": ("done", 300)}
    async with database.begin() as connection:
        for key, (state, days) in states.items():
            await connection.execute(
                insert(claims).values(pipeline="mail", key=key, state=state, holder="a", until=ago(days))
            )

    done = await prune(database, YEAR)

    assert done.claims == 2
    held = await SqlClaims(database).take("mail", list(states), "b", 60.0, "park")
    assert {key: one.hold for key, one in held.items()} == {
        "1": Hold.OURS,
        "2": Hold.UNKNOWN,
        "3": Hold.OURS,
        "4": Hold.DONE,
    }


async def test_notes_and_starts_go_too(database: Database) -> None:
    async with database.begin() as connection:
        for days in (500, 400, 300):
            await connection.execute(insert(starts).values(identity=digest(days), at=ago(days)))
            note = {"message_id": f"m{days}", "exchange": "deliver", "routing_key": "acme.x"}
            await connection.execute(insert(published).values(published_at=ago(days), **note))

    done = await prune(database, YEAR)

    assert done == Pruned(ledger=0, claims=0, published=2, starts=2)
    assert await kept(database, published.c.message_id) == ["m300"]


async def test_too_young_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="30 days or more"):
        await prune(database, timedelta(days=29))


async def test_writers_go_on_meanwhile(database: Database) -> None:
    books = SqlLedger(database)
    await books.write([row(n, at=ago(400), unsettled=False) for n in range(300)])
    done: list[Pruned] = []

    async def run() -> None:
        done.append(await prune(database, YEAR))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        tasks.start_soon(run)
        for n in range(300, 340):
            await books.settle([one for one in await books.write([row(n)]) if one is not None])

    assert sum(one.ledger for one in done) == 300
    assert len(await kept(database, ledger.c.id)) == 40


async def test_each_portion_reads_a_bounded_part(postgresql_url: str) -> None:
    """No index on the moment is there, and none is needed, however many rows there are."""
    async with Database.opened(postgresql_url) as database, database.begin() as connection:
        many = (
            "INSERT INTO ledger (pipeline, queue, identity, attempt, outcome, at, unsettled) "
            "SELECT 'crm', 'acme.crm', decode(md5(n::text), 'hex'), 1, 'delivered', now(), false "
            "FROM generate_series(1, 20000) n"
        )
        await connection.execute(text(many))
        await connection.execute(text("ANALYZE ledger"))
        plans = []
        for statement in (
            "SELECT max(id), min(at) FROM "
            "(SELECT id, at FROM ledger WHERE id > 9 ORDER BY id LIMIT 1000) AS portion",
            "DELETE FROM ledger WHERE id > 9 AND id <= 1009 AND at < now() AND NOT unsettled",
        ):
            found = await connection.scalars(text(f"EXPLAIN {statement}"))
            plans.append("\n".join(found))

    for plan in plans:
        assert "pk_ledger" in plan
        assert "Seq Scan" not in plan
