"""`flow forget`: erase a person's data from the records."""

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import anyio
import click

from flow.cli.dead import confirmed
from flow.cli.errors import say
from flow.cli.options import database_url
from flow.exits import FAILED
from flow.records.database import Database
from flow.records.forgetting import Forgotten, Person, by_address, by_id, by_reference, forget
from flow.records.url import DatabaseUrl

if TYPE_CHECKING:
    from flow.records.cases import Connection

NOT_HERE = (
    "What was published before is not touched: messages in queues are delivered as they are, parked ones\n"
    "stay (flow dead export writes them to a file, with the ids of the actions), targets keep what they have."
)


@click.command("forget")
@click.argument("supporter", metavar="SUPPORTER")
@database_url
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
def forget_(supporter: str, database_url: DatabaseUrl, yes: bool) -> None:
    """Erase the personal data of a person from the records; ids, statuses and consents stay.

    SUPPORTER is the id of a supporter, a contact reference, or - to read an e-mail address from standard
    input, where it stands in no list of processes. The person's other signatures with the organisation are
    erased too; by an address those of every organisation. What is in a pipe cannot answer the question: give
    --yes with it.

    What was not delivered yet is rejected. Doing it again changes nothing.
    """
    if "@" in supporter:
        raise click.UsageError("give an e-mail address on standard input: flow forget -")
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: --yes erases without a question")
    address = read_address() if supporter == "-" else None
    sys.exit(anyio.run(_forgotten, database_url, supporter, address, yes))


def read_address() -> str:
    """Read an e-mail address from standard input."""
    if sys.stdin.isatty():
        click.echo("E-mail address: ", nl=False, err=True)
    address = sys.stdin.readline().strip()
    if "@" not in address:
        raise click.UsageError("standard input must hold an e-mail address")
    return address


async def _forgotten(url: DatabaseUrl, supporter: str, address: str | None, yes: bool) -> int:
    """Find the person, ask, erase and tell; return the exit code."""
    async with Database.opened(url) as database:
        async with database.reading() as connection:
            person = await found(connection, supporter, address)
        if person is None:
            who = "supporter with this address" if address else f"supporter {supporter}"
            say(f"there is no {who} in {url.place}")
            return FAILED
        click.echo(described(person))
        if not yes and not await confirmed("Erase the personal data of this person for good?"):
            say("nothing was erased")
            return FAILED
        async with database.begin() as connection:  # who signed while the question waited is meant, too
            person = await found(connection, supporter, address) or person
            done = await forget(connection, person, datetime.now(UTC))
        click.echo(told(done))
        click.echo(NOT_HERE)
        await database.clear_log()
    return 0


async def found(connection: "Connection", supporter: str, address: str | None) -> Person | None:
    """Return the person whom the argument names."""
    if address is not None:
        return await by_address(connection, address)
    if supporter.isascii() and supporter.isdecimal() and len(supporter) < 19:
        return await by_id(connection, int(supporter))
    return await by_reference(connection, supporter)


def described(person: Person) -> str:
    """Return whom it is about: how many rows, and their ids."""
    again = "" if person.known else ", forgotten before"
    return f"{counted('supporter', person.supporters)}, {counted('action', person.actions)}{again}"


def counted(what: str, ids: Sequence[int]) -> str:
    """Return how many there are, with their ids: 2 actions (7, 9)."""
    listed = f" ({', '.join(map(str, ids))})" if ids else ""
    return f"{len(ids)} {what}{'' if len(ids) == 1 else 's'}{listed}"


def told(done: Forgotten) -> str:
    """Return what was erased."""
    rows = {
        "contacts erased": done.contacts,
        "actions whose custom fields, donation and tracking were erased": done.actions,
        "reasons erased from the ledger": done.reasons,
        "messages removed from the outbox": done.waiting,
        "actions rejected that were not delivered": done.rejected,
    }
    return "\n".join(f"{what}: {count}" for what, count in rows.items())
