"""Forgetting erases what is personal, everywhere, and nothing of anybody else."""

from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select

from flow.records.database import Database
from flow.records.forgetting import Person, by_address, by_id, by_reference, forget
from flow.records.tables import actions, metadata, outbox, supporters
from tests.records.signatures import action, add, after, page, supporter

pytestmark = pytest.mark.anyio


async def everything(database: Database) -> str:
    """Return all rows of all tables as one text."""
    async with database.reading() as connection:
        rows = [row for table in metadata.sorted_tables for row in await connection.execute(select(table))]
    return "\n".join(map(str, rows))


async def people(database: Database) -> dict[str, int]:
    """Add Ada, who signed twice and in another campaign, and Bob; return the ids of their supporters."""
    async with database.begin() as connection:
        where, other = await page(connection), await page(connection, "other")
        other |= {"organisation_id": where["organisation_id"]}
        ids = {
            "first": await supporter(connection, where, "ada"),
            "second": await supporter(connection, where, "ada", "confirming"),
            "third": await supporter(connection, other, "ada"),
            "bob": await supporter(connection, where, "bob", "confirming"),
        }
        for name, status in {"first": "delivered", "second": "new", "third": "accepted"}.items():
            await action(connection, where, ids[name], "ada", status)
        await action(connection, where, ids["bob"], "bob", "new")
        first = select(actions.c.id).where(actions.c.supporter_id == ids["first"])
        about: list[dict[str, Any]] = [
            {"message_id": "of-a-supporter", "supporter_id": ids["second"]},
            {"message_id": "of-an-action", "action_id": (await connection.scalars(first)).one()},
        ]
        for one in about:
            waiting = {"body": b"ada@example.org", "exchange": "deliver", "routing_key": "x", **one}
            await add(connection, outbox, **waiting, created_at=after(9))
    return ids


async def found(database: Database, supporter_id: int) -> Person:
    async with database.reading() as connection:
        person = await by_id(connection, supporter_id)
    assert person is not None
    return person


async def test_a_person_is_erased_everywhere_and_nobody_else(database: Database) -> None:
    ids = await people(database)
    before = await everything(database)
    person = await found(database, ids["second"])

    async with database.begin() as connection:
        done = await forget(connection, person, after(100))

    text = await everything(database)
    assert "ada@" in before
    assert "I am ada" in before
    assert "account of ada" in before
    assert [line for line in text.splitlines() if "ada" in line.replace("ref-ada", "")] == []
    assert text.count("bob@example.org") == before.count("bob@example.org")
    assert text.count("I am bob") == 1
    assert (done.contacts, done.actions, done.reasons, done.waiting, done.rejected) == (3, 3, 3, 5, 2)


async def test_ids_and_what_the_target_calls_them_stay(database: Database) -> None:
    ids = await people(database)
    person = await found(database, ids["first"])
    async with database.begin() as connection:
        await forget(connection, person, after(100))

    text = await everything(database)
    async with database.reading() as connection:
        rows = (await connection.execute(select(supporters).order_by(supporters.c.id))).all()
    assert text.count("crm-77") == 4
    assert [row.id for row in rows] == list(ids.values())
    assert [row.forgotten_at for row in rows] == [after(100)] * 3 + [None]
    statuses = [(row.email_status, row.email_status_changed_at) for row in rows]
    assert statuses == [(None, None)] * 3 + [("double_opt_in", after(3))]
    assert list(person.supporters) == list(ids.values())[:3]
    assert len(person.actions) == 3


async def test_what_waits_is_rejected_and_what_was_delivered_is_not(database: Database) -> None:
    ids = await people(database)
    async with database.begin() as connection:
        await forget(connection, await found(database, ids["first"]), after(100))

    async with database.reading() as connection:
        of_actions = select(actions.c.processing_status).order_by(actions.c.id)
        of_supporters = select(supporters.c.processing_status).order_by(supporters.c.id)
        assert list(await connection.scalars(of_actions)) == ["delivered", "rejected", "rejected", "new"]
        assert list(await connection.scalars(of_supporters)) == [
            "accepted",
            "rejected",
            "accepted",
            "confirming",
        ]


async def test_forgetting_again_changes_nothing(database: Database) -> None:
    ids = await people(database)
    async with database.begin() as connection:
        await forget(connection, await found(database, ids["first"]), after(100))
    once = await everything(database)

    person = await found(database, ids["first"])
    async with database.begin() as connection:
        done = await forget(connection, person, after(200))

    assert await everything(database) == once
    assert person.known == 0
    assert (done.contacts, done.actions, done.reasons, done.waiting, done.rejected) == (0, 0, 0, 0, 0)


async def test_people_are_found_by_reference_and_by_address(database: Database) -> None:
    ids = await people(database)

    async with database.reading() as connection:
        by_ref = await by_reference(connection, "ref-ada")
        by_mail = await by_address(connection, " ADA@example.org ")
        assert await by_reference(connection, "nobody") is None
        assert await by_address(connection, "a%@example.org") is None
        assert await by_id(connection, 10**9) is None
    assert by_ref == by_mail == await found(database, ids["third"])


async def test_the_file_of_sqlite_holds_nothing_of_it(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    async with Database.opened(f"sqlite:///{path}") as database:
        ids = await people(database)
        async with database.begin() as connection:
            await forget(connection, await found(database, ids["first"]), after(100))
        await database.clear_log()

        files = [anyio.Path(path), anyio.Path(f"{path}-wal")]
        content = b"".join([await file.read_bytes() for file in files])
    assert b"bob@example.org" in content
    assert b"ada@example.org" not in content
    assert b"I am ada" not in content
