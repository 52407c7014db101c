"""The story of an action is whole, in order, and holds nothing personal."""

import pytest
from sqlalchemy import insert, update

from flow.records.database import Database
from flow.records.story import story
from flow.records.tables import actions, claims
from tests.records.signatures import action, after, page, supporter

pytestmark = pytest.mark.anyio


async def test_everything_is_told_in_the_order_of_time(database: Database) -> None:
    async with database.begin() as connection:
        where = await page(connection)
        who = await supporter(connection, where, "ada")
        made = await action(connection, where, who, "ada")
        await action(connection, where, who, "ada")
        for key, state in ((f"thanks:{made}", "done"), (f"thanks:{made}0", "done"), (f"{made}", "sending")):
            row = {"pipeline": "ThankYou", "holder": "h", "until": after(60), "key": key, "state": state}
            await connection.execute(insert(claims).values(**row))

        told = await story(connection, made)

    assert told is not None
    assert [(event.at, event.what) for event in told.events] == [
        (after(0), "submitted"),
        (after(0), "supporter stored"),
        (after(3), "address status"),
        (after(4), "processed"),
        (after(5.999999), "waits in the outbox"),
        (after(6), "published"),
        (after(7), "retrying"),
        (after(8), "delivered"),
        (None, "claim done"),
        (None, "claim sending"),
    ]
    assert told.events[5].where == "deliver acme.system.action"
    assert told.events[6].where == "Crm acme.crm"
    assert told.events[6].detail.startswith("attempt 1; who is ada?; again after 0.5 s; the broker")
    assert told.events[7].detail == "attempt 2; target id crm-77"
    assert told.events[9].detail == f"key {made}; until 2026-02-19 15:18:29"


async def test_an_action_without_a_supporter_has_a_story_too(database: Database) -> None:
    async with database.begin() as connection:
        where = await page(connection)
        made = await action(connection, where, None, "nobody", "new")

        told = await story(connection, made)
        nothing = await story(connection, made + 1)

    assert told is not None
    assert told.supporter_id is None
    assert told.events[0].what == "submitted"
    assert nothing is None


async def test_nothing_personal_is_told(database: Database) -> None:
    async with database.begin() as connection:
        where = await page(connection)
        made = await action(connection, where, await supporter(connection, where, "ada"), "ada")

        told = str(await story(connection, made))

    assert "ada" not in told.replace("who is ada?", "")  # a reason, which is flow's own word elsewhere
    assert "example.org" not in told


async def test_what_waits_comes_after_what_led_to_it_within_a_second(database: Database) -> None:
    async with database.begin() as connection:
        where = await page(connection)
        made = await action(connection, where, await supporter(connection, where, "ada"), "ada")
        await connection.execute(update(actions).values(created_at=after(5.4), processed_at=after(5.5)))

        told = await story(connection, made)

    assert told is not None
    names = [event.what for event in told.events]
    assert names.index("submitted") < names.index("processed") < names.index("waits in the outbox")
