"""`flow trace`: the story of one signature."""

import sys

import anyio
import click
import msgspec

from flow.cli.dead import moment
from flow.cli.errors import say
from flow.cli.masking import printable
from flow.cli.options import database_url
from flow.cli.table import table
from flow.exits import FAILED
from flow.records.database import Database
from flow.records.story import Event, Story, story
from flow.records.url import DatabaseUrl


@click.command()
@click.argument("action_id", metavar="ACTION_ID", type=click.IntRange(0, 2**63 - 1))
@database_url
@click.option(
    "--json", "as_json", is_flag=True, envvar="FLOW_TRACE_JSON", help="The story as one JSON object."
)
def trace(action_id: int, database_url: DatabaseUrl, as_json: bool) -> None:
    """Tell what happened to an action: submitted, processed, published, and what each pipeline did with it.

    Times are UTC; no personal data is shown. An action that is not in the records ends with 1.
    """
    found = anyio.run(_found, database_url, action_id)
    if found is None:
        say(f"there is no action {action_id} in {database_url.place}")
        sys.exit(FAILED)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
    else:
        show(found)


def show(found: Story) -> None:
    """Print a story for people."""
    supporter = (
        "nobody yet"
        if found.supporter_id is None
        else f"supporter {found.supporter_id} ({found.supporter_status})"
    )
    of = f"{found.page}, campaign {found.campaign}, organisation {found.organisation}"
    click.echo(printable(f"action {found.action_id} ({found.action_status}) of {supporter} on {of}"))
    click.echo()
    table(("TIME", "WHAT", "WHERE", "DETAIL"), [line(event) for event in found.events])


def line(event: Event) -> tuple[str, ...]:
    """Return one row of the timeline."""
    return moment(event.at), *(printable(text) for text in (event.what, event.where, event.detail))


async def _found(url: DatabaseUrl, action_id: int) -> Story | None:
    async with Database.opened(url) as database, database.reading() as connection:
        return await story(connection, action_id)
