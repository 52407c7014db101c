"""Organisations are read with their settings."""

import pytest
from sqlalchemy import insert

from flow.records import organisations
from flow.records.database import Database
from flow.records.organisations import Organisation
from flow.records.tables import organisations as table

pytestmark = pytest.mark.anyio


async def test_organisations_are_found_by_name_and_listed(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(table).values(name="river_club", action_confirm=True, public_key="k"))
        await connection.execute(insert(table).values(name="acme", title="Acme", custom_delivery=True))

        everybody = await organisations.listed(connection)
        club = await organisations.find(connection, "river_club")
        nobody = await organisations.find(connection, "River_club")

    assert [one.name for one in everybody] == ["acme", "river_club"]
    assert club == everybody[1]
    assert nobody is None
    assert everybody[0] == Organisation(
        id=everybody[0].id,
        name="acme",
        title="Acme",
        supporter_confirm=False,
        action_confirm=False,
        custom_supporter_confirm=False,
        custom_delivery=True,
        public_key=None,
        mail_from=None,
    )
    assert (club.action_confirm, club.public_key) == (True, "k")
