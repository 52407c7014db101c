"""`flow dead`: look after parked messages."""

import os
import sys
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click
import msgspec

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.cli.errors import say
from flow.cli.masking import masked, printable, revealed
from flow.cli.options import amqp_url
from flow.cli.private import new_file
from flow.cli.table import table
from flow.exits import FAILED
from flow.parking import Parked
from flow.plumbing.dead import Look, Selection, drop, replay, visit
from flow.plumbing.park import WINDOW
from flow.plumbing.spool import load, spooled

F = TypeVar("F", bound=Callable[..., Any])
UNKNOWN = "no parked message has the id {}: `flow dead list` tells the ids"

of_queue = click.option("--queue", metavar="QUEUE", help="Only messages that failed in this queue.")


def which(command: F) -> F:
    """Add the options that say which messages are meant: --queue, --id and --all."""
    everything = click.option(
        "--all", "everything", is_flag=True, allow_from_autoenv=False, help="All parked messages."
    )
    ids = click.option(
        "--id",
        "ids",
        multiple=True,
        metavar="ID",
        allow_from_autoenv=False,
        help="Only this message; may be repeated.",
    )
    return of_queue(ids(everything(command)))


def selected(queue: str | None, ids: Sequence[str], everything: bool) -> Selection:
    """Return which messages are meant.

    Raises:
        click.UsageError: that was not said, or in two ways.
    """
    if everything == bool(queue or ids):
        raise click.UsageError("say which messages: either --queue or --id, or --all")
    return Selection(queue=queue, ids=frozenset(ids))


@click.group()
def dead() -> None:
    """Look after parked messages: those that no attempt could deliver.

    They wait in the queue system.dead. Looking at them leaves them there, though a quorum queue puts them
    at its end.
    """


@dead.command("list")
@amqp_url
@of_queue
@click.option(
    "--limit", type=click.IntRange(1, WINDOW), default=50, show_default=True, help="List at most so many."
)
@click.option(
    "--json", "as_json", is_flag=True, envvar="FLOW_DEAD_LIST_JSON", help="One JSON object on each line."
)
def list_(url: BrokerUrl, queue: str | None, limit: int, as_json: bool) -> None:
    """List parked messages, without their bodies.

    ID is for the other commands of `flow dead`, ACTION for `flow trace`; it is empty where a body names no
    action.
    """
    rows: list[Parked] = []
    selection = Selection(queue=queue)
    look = anyio.run(visit, url, selection, lambda parked, _: rows.append(parked), limit)
    if as_json:
        for parked in rows:
            click.echo(msgspec.json.encode(parked).decode())
    else:
        show(rows)
    left = look.waiting - look.seen
    if left or not look.waiting:
        say(f"{look.waiting} messages are parked" + (f", {left} of them were not looked at" if left else ""))


@dead.command("show", short_help="Show one parked message.")
@click.argument("identifier", metavar="ID")
@amqp_url
@click.option(
    "--show-personal-data",
    is_flag=True,
    allow_from_autoenv=False,  # a person asks for it, not a surrounding
    help="Show the body as it is, not only its structure.",
)
def show_(identifier: str, url: BrokerUrl, show_personal_data: bool) -> None:
    """Show one parked message; ID is the one that `flow dead list` tells."""
    found: list[tuple[Parked, bytes]] = []
    selection = Selection(ids=frozenset({identifier}))
    anyio.run(visit, url, selection, lambda parked, body: found.append((parked, body)), 1)
    if not found:
        say(UNKNOWN.format(printable(identifier)))
        sys.exit(FAILED)
    parked, body = found[0]
    for name, value in plain(parked).items():
        click.echo(f"{name.replace('_', ' ')}: {'' if value is None else printable(str(value))}")
    click.echo()
    click.echo(revealed(body) if show_personal_data else masked(body))


@dead.command("replay", short_help="Send parked messages back to their queues.")
@amqp_url
@which
def replay_(url: BrokerUrl, queue: str | None, ids: Sequence[str], everything: bool) -> None:
    """Send parked messages back to the queues in which they failed, with all attempts before them again.

    A message leaves the park only after the broker has confirmed its copy: if this command is interrupted, it
    may be in both places, never in none.
    """
    replayed: list[str] = []
    selection = selected(queue, ids, everything)
    look = anyio.run(replay, url, selection, lambda parked: replayed.append(parked.id))
    whole = tell(look, selection)
    click.echo(f"replayed {len(replayed)} of {look.waiting} parked messages")
    sys.exit(0 if whole else FAILED)


@dead.command("drop", short_help="Delete parked messages for good.")
@amqp_url
@which
@click.option("--yes", is_flag=True, allow_from_autoenv=False, help="Do not ask.")
def drop_(url: BrokerUrl, queue: str | None, ids: Sequence[str], everything: bool, yes: bool) -> None:
    """Delete parked messages for good, after a question on the terminal unless --yes is given.

    `flow dead export` keeps a copy of them. What is parked while the question waits is not deleted. The exit
    code is 1 when the answer was no, or one of them is still there.
    """
    selection = selected(queue, ids, everything)
    if not yes and not sys.stdin.isatty():
        raise click.UsageError("there is no terminal to ask on: --yes deletes without a question")

    async def agreed(count: int) -> bool:
        return yes or await confirmed(f"Delete {count} parked message{'s' * (count > 1)} for good?")

    look = anyio.run(drop, url, selection, agreed)
    whole = tell(look, selection)
    click.echo(f"dropped {look.deleted} of {look.waiting} parked messages")
    sys.exit(0 if whole and look.deleted == len(look.found) else FAILED)


async def confirmed(question: str) -> bool:
    """Ask on the terminal while the connection goes on; everything but y or yes is a no."""
    click.echo(f"{question} [y/N]: ", nl=False, err=True)
    await anyio.wait_readable(sys.stdin)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


@dead.command("export", short_help="Write parked messages to a file.")
@click.argument("path", metavar="NEW_FILE", type=click.Path(dir_okay=False, path_type=Path))
@amqp_url
@of_queue
def export(path: Path, url: BrokerUrl, queue: str | None) -> None:
    """Write parked messages to NEW_FILE, a JSON object on each line; they stay parked.

    The file holds the bodies with all personal data, and only its owner may read it (mode 0600).
    """
    with new_file(path) as file:

        def write(parked: Parked, body: bytes) -> None:
            file.write(msgspec.json.encode(plain(parked) | text_of(body)) + b"\n")

        try:
            look = anyio.run(visit, url, Selection(queue=queue), write)
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            path.unlink()  # half a file would be taken for a whole one
            raise
    click.echo(f"exported {len(look.found)} of {look.waiting} parked messages")
    sys.exit(FAILED if tell_unseen(look) else 0)


@dead.command("load", short_help="Bring messages from files into the park.")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@amqp_url
def load_(folder: Path, url: BrokerUrl) -> None:
    """Bring what pipelines with park = "spool:FOLDER" wrote to FOLDER into the park.

    Each file is deleted once the broker has confirmed its message; if this command is interrupted, a message
    may be in both places, never in none.
    """
    files, loaded = spooled(folder), 0

    def count() -> None:
        nonlocal loaded
        loaded += 1

    async def publish() -> list[str]:
        publisher = Publisher(url, name="flow dead load")
        try:
            return await load(files, publisher, count)
        finally:
            await publisher.close()

    try:
        odd = anyio.run(publish)
    finally:
        click.echo(f"loaded {loaded} of {len(files)} messages")
    for sentence in odd:
        say(printable(sentence))
    sys.exit(FAILED if odd else 0)


def show(rows: Sequence[Parked]) -> None:
    """Print the table of `flow dead list`."""
    head = ("ID", "QUEUE", "PIPELINE", "ACTION", "ATTEMPTS", "PARKED", "REASON")
    table(head, [line(parked) for parked in rows])


def line(parked: Parked) -> tuple[str, ...]:
    """Return one row of `flow dead list`."""
    action = "" if parked.action_id is None else str(parked.action_id)
    failed = parked.queue or "?", parked.pipeline or "", action, str(parked.attempts)
    return parked.id, *(printable(text) for text in (*failed, moment(parked.parked_at), parked.reason))


def moment(at: datetime | None) -> str:
    """Return a time in UTC, to the second."""
    return f"{at:%Y-%m-%d %H:%M:%S}" if at else ""


def plain(parked: Parked) -> dict[str, Any]:
    """Return what is known of *parked* under its names, times as ISO 8601."""
    known: dict[str, Any] = msgspec.to_builtins(parked)
    return known


def text_of(body: bytes) -> dict[str, str]:
    """Return the body under `body` as text, or under `body_base64` when it is none."""
    try:
        return {"body": body.decode()}
    except UnicodeDecodeError:
        return {"body_base64": msgspec.to_builtins(body)}


def tell(look: Look, selection: Selection) -> bool:
    """Say what could not be done, which ids nobody has, and what was not looked at; whether all was well."""
    for failure in look.failures:
        say(printable(failure))
    missing = sorted(selection.ids - set(look.found))
    for identifier in missing:
        say(UNKNOWN.format(printable(identifier)))
    unseen = not selection.complete(look.found) and tell_unseen(look)
    return not (look.failures or missing or unseen)


def tell_unseen(look: Look) -> bool:
    """Say how many messages were not looked at, if any; whether there were some."""
    unseen = look.waiting - look.seen
    if unseen > 0:
        say(f"{unseen} parked messages were not looked at: another command holds them, or they are too many")
    return unseen > 0
