"""`flow records`: the tables of the records, and what has become old in them."""

from datetime import timedelta
from typing import TYPE_CHECKING

import anyio
import click

from flow.cli.options import database_url
from flow.ledger import KEPT
from flow.records.database import Database
from flow.records.url import DatabaseUrl

if TYPE_CHECKING:
    from flow.records.pruning import Pruned


class Days(click.ParamType[timedelta]):
    """A number of days, like 400d."""

    name = "days"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> timedelta:
        """Return them as a timedelta."""
        if isinstance(value, timedelta):
            return value
        number = str(value).removesuffix("d")
        if not (number.isdecimal() and number.isascii() and KEPT.days <= int(number[:9]) <= 36_500):
            self.fail(
                f"give days, like 400d, {KEPT.days}d at least: younger rows may still be needed", param, ctx
            )
        return timedelta(days=int(number))


@click.group()
def records() -> None:
    """Look after the database of the records: its tables, and what has become old in them."""


@records.command(short_help="Make the tables, or update them.")
@database_url
def migrate(database_url: DatabaseUrl) -> None:
    """Make the tables, or bring those of an older version to this one, rows kept.

    All of it or nothing happens; doing it again changes nothing. Stop what writes to the records first.
    """
    done = anyio.run(_migrated, database_url)
    for step in done:
        click.echo(f"done: {step}")
    click.echo(f"{database_url.place} has the tables of this version")


@records.command(short_help="Say whether the database can be used.")
@database_url
def check(database_url: DatabaseUrl) -> None:
    """Say whether the database can be used; the exit code is 78 when something is to be done first."""
    anyio.run(_opened, database_url)
    click.echo(f"{database_url.place} has the tables of this version")


@records.command(short_help="Delete what pipelines did long ago.")
@database_url
@click.option(
    "--older-than",
    type=Days(),
    default="400d",
    show_default=True,
    metavar="DAYS",
    help=f"What is older goes; {KEPT.days}d at least.",
)
@click.option("--dry-run", is_flag=True, help="Only count what would be deleted.")
def prune(database_url: DatabaseUrl, older_than: timedelta, dry_run: bool) -> None:
    """Delete what pipelines did long ago: rows of the ledger, done claims, and notes of what was published.

    Signatures stay, and so does what is not settled or whose outcome is unknown. It may run while everything
    else does. Every 1000 rows are a transaction of their own: run it again when it was interrupted.
    """
    pruned = anyio.run(_pruned, database_url, older_than, dry_run)
    click.echo(
        f"{'would delete' if dry_run else 'deleted'} what is older than {older_than.days} days: "
        f"{pruned.ledger} rows of the ledger, {pruned.claims} claims, {pruned.published} notes of what was "
        f"published, {pruned.starts} starts"
    )


async def _pruned(url: DatabaseUrl, age: timedelta, dry_run: bool) -> "Pruned":
    from flow.records.pruning import prune as prune_records

    async with Database.opened(url) as database:
        return await prune_records(database, age, dry_run=dry_run)


async def _migrated(url: DatabaseUrl) -> list[str]:
    database = Database(url)
    try:
        return await database.migrate()
    finally:
        await database.close()


async def _opened(url: DatabaseUrl) -> None:
    async with Database.opened(url):
        pass
