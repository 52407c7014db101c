"""How all actions stand, and what the ledger knows of them."""

import pytest

from flow.records.database import Database
from flow.records.standings import Deed, Standing, deeds, standings
from tests.records.signatures import action, page, supporter

pytestmark = pytest.mark.anyio


async def test_all_actions_and_what_was_done_with_them(database: Database) -> None:
    async with database.begin() as connection:
        where = await page(connection)
        who = await supporter(connection, where, "ada")
        first = await action(connection, where, who, "ada")
        lone = await action(connection, where, None, "nobody", "new")

    found = await standings(database)

    assert [(one.action_id, one.action) for one in found] == [(first, "delivered"), (lone, "new")]
    assert found[0].supporter is not None
    assert found[1] == Standing(lone, found[1].submission, "new", None)
    assert Deed("acme.crm", str(first), "delivered", None) in await deeds(database, "delivered")
    assert await deeds(database, "parked") == set()
