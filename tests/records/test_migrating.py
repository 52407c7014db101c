"""The migrations lead to the tables that the program uses, from wherever a database is, with its rows."""

from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, insert, select, text

from flow.errors import ConfigError
from flow.records.database import Database
from flow.records.migrating import VERSION_TABLE, upgrade
from flow.records.tables import ledger, metadata, organisations
from tests.nodes.postgresql_control import PostgreSQLControl

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without tables."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    node: PostgreSQLControl = request.getfixturevalue("postgresql")
    name = node.add_database()
    yield node.url(name)
    node.drop_database(name)


def differences(connection: Connection) -> list[object]:
    options = {"compare_type": True, "compare_server_default": both_empty, "version_table": VERSION_TABLE}
    context = MigrationContext.configure(connection, opts=options)
    return list(compare_metadata(context, metadata))


def both_empty(*defaults: object) -> bool | None:
    """Say that two empty texts are equal, which alembic does not see; leave the rest to it."""
    *_, inspected, _, rendered = defaults
    return False if (inspected, rendered) == ("('')", "") else None


async def test_the_migrations_lead_to_the_tables_of_the_program(empty_url: str) -> None:
    database = Database(empty_url)

    done = await database.migrate()

    async with database.begin() as connection:
        assert await connection.run_sync(differences) == []
    assert [line.split()[0] for line in done] == ["0001", "0002", "0003"]
    await database.ready()
    assert await database.migrate() == []
    await database.close()


async def test_an_older_version_is_upgraded_with_its_rows(empty_url: str) -> None:
    database = Database(empty_url)
    async with database.begin() as connection:
        await connection.run_sync(upgrade, "0001")
        await connection.execute(insert(organisations).values(name="acme"))
    with pytest.raises(ConfigError, match=r"older flow \(0001\): run flow records migrate"):
        await database.ready()

    assert [line.split()[0] for line in await database.migrate()] == ["0002", "0003"]

    await database.ready()
    async with database.reading() as connection:
        assert (await connection.scalars(select(organisations.c.name))).all() == ["acme"]
        assert (await connection.execute(select(ledger))).all() == []
    await database.close()


async def test_a_migration_that_fails_changes_nothing(empty_url: str) -> None:
    database = Database(empty_url)
    async with database.begin() as connection:
        await connection.run_sync(upgrade, "0001")
        await connection.execute(text("CREATE TABLE claims (id INTEGER)"))

    with pytest.raises(ConfigError, match="refused a statement"):
        await database.migrate()

    with pytest.raises(ConfigError, match=r"older flow \(0001\)"):
        await database.ready()
    async with database.begin() as connection:
        await connection.execute(text("DROP TABLE claims"))
    assert [line.split()[0] for line in await database.migrate()] == ["0002", "0003"]
    await database.close()


async def test_a_newer_version_is_left_alone(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    with pytest.raises(ConfigError, match=r"newer flow \(9999\): update flow"):
        await database.ready()
    with pytest.raises(ConfigError, match="newer flow"):
        await database.migrate()


async def test_tables_of_another_program_are_left_alone(empty_url: str) -> None:
    database = Database(empty_url)
    async with database.begin() as connection:
        await connection.execute(text("CREATE TABLE actions (id INTEGER)"))

    for attempt in (database.ready, database.migrate):
        with pytest.raises(ConfigError, match=r"another program \(actions\)"):
            await attempt()
    await database.close()


async def test_of_several_that_migrate_at_once_one_does(empty_url: str) -> None:
    databases = [Database(empty_url) for _ in range(4)]
    done: list[list[str]] = []

    async def migrate(database: Database) -> None:
        done.append(await database.migrate())

    async with anyio.create_task_group() as tasks:
        for database in databases:
            tasks.start_soon(migrate, database)

    assert sorted(len(steps) for steps in done) == [0, 0, 0, 3]
    for database in databases:
        await database.ready()
        await database.close()
