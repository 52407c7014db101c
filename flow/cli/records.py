"""`flow records`: the tables of the records."""

import anyio
import click

from flow.cli.options import database_url
from flow.records.database import Database
from flow.records.url import DatabaseUrl


@click.group()
def records() -> None:
    """Give the database of the records the tables of this version of flow."""


@records.command()
@database_url
def migrate(database_url: DatabaseUrl) -> None:
    """Make the tables, or bring those of an older version to this one, rows kept.

    All of it or nothing happens; doing it again changes nothing. Stop what writes to the records first.
    """
    done = anyio.run(_migrated, database_url)
    for step in done:
        click.echo(f"done: {step}")
    click.echo(f"{database_url.place} has the tables of this version")


@records.command()
@database_url
def check(database_url: DatabaseUrl) -> None:
    """Say whether the database can be used; the exit code is 78 when something is to be done first."""
    anyio.run(_opened, database_url)
    click.echo(f"{database_url.place} has the tables of this version")


async def _migrated(url: DatabaseUrl) -> list[str]:
    database = Database(url)
    try:
        return await database.migrate()
    finally:
        await database.close()


async def _opened(url: DatabaseUrl) -> None:
    async with Database.opened(url):
        pass
