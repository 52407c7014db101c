"""`flow org`: the queues of organisations."""

import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from typing import Any, TypeVar

import anyio
import click

from flow.broker.url import BrokerUrl
from flow.checking.organisations import State, states
from flow.cli.errors import Guarded, say
from flow.cli.masking import printable
from flow.cli.options import amqp_url
from flow.cli.table import table
from flow.errors import InUse
from flow.exits import CONFIGURATION, FAILED
from flow.management import VARIABLE, ManagementApi
from flow.options import variable
from flow.plumbing.plumbing import Plumbing
from flow.topology import (
    ORGANISATION_PARTS,
    QUEUE_TYPES,
    QueueType,
    check_organisation,
    organisation_binding,
)

F = TypeVar("F", bound=Callable[..., Any])
HELP = {
    "crm": "NAME.crm: everything that is delivered for it.",
    "confirm": "NAME.confirm: supporters that it confirms itself.",
    "moderate": "NAME.moderate: actions that it moderates.",
    "sqs": "Its binding on system.sqs, the queue of the SQS forwarder.",
}


def parts(command: F) -> F:
    """Add a flag for each part; the command gets them by the names of the parts."""
    for part in reversed(ORGANISATION_PARTS):
        command = click.option(f"--{part}", is_flag=True, help=HELP[part])(command)
    return command


def chosen(flags: dict[str, bool]) -> list[str]:
    """Return the parts that are asked for.

    Raises:
        click.UsageError: none is.
    """
    found = [part for part in ORGANISATION_PARTS if flags[part]]
    if not found:
        raise click.UsageError(f"say which: {', '.join(f'--{part}' for part in ORGANISATION_PARTS)}")
    return found


@click.group(cls=Guarded)
def org() -> None:
    """Give organisations their queues, or take them away.

    FLOW_MANAGEMENT_URL, like https://USER:PASSWORD@HOST:15671, names the management API of RabbitMQ, which
    tells who reads a queue, and which organisations there are.
    """


@org.command(short_help="Make its queues, and bind them.")
@click.argument("name")
@amqp_url
@parts
@click.option(
    "--queue-type",
    type=click.Choice(QUEUE_TYPES),
    default="quorum",
    show_default=True,
    help="As for flow setup.",
)
def add(name: str, url: BrokerUrl, queue_type: QueueType, **flags: bool) -> None:
    """Declare and bind what the organisation NAME wants; doing it again changes nothing.

    The exchanges and the retry loop must be there: `flow setup`.
    """
    wanted = chosen(flags)
    check_organisation(name)

    async def act(plumbing: Plumbing) -> int:
        drifts = await plumbing.set_up_organisation(name, wanted)
        differing = {drift.name for drift in drifts}
        for part in wanted:
            binding = organisation_binding(name, part)
            if binding.queue not in differing:
                click.echo(f"{binding.queue} gets {binding.key} of {binding.exchange}")
        for drift in drifts:
            say(drift.sentence)
        return CONFIGURATION if drifts else 0

    sys.exit(anyio.run(with_plumbing, url, queue_type, act))


@org.command(short_help="Stop what comes into its queues.")
@click.argument("name")
@amqp_url
@parts
def off(name: str, url: BrokerUrl, **flags: bool) -> None:
    """Give the organisation NAME no new messages; what waits in its queues is left alone.

    `flow org add` turns it on again.
    """
    wanted = chosen(flags)
    check_organisation(name)

    async def act(plumbing: Plumbing) -> int:
        for part in wanted:
            await plumbing.turn_off(name, part)
            binding = organisation_binding(name, part)
            click.echo(f"{binding.queue} gets no {binding.key} of {binding.exchange} any more")
        return 0

    sys.exit(anyio.run(with_plumbing, url, "quorum", act))


@org.command(short_help="Delete queues of it that are empty.")
@click.argument("name")
@amqp_url
@parts
def drop(name: str, url: BrokerUrl, **flags: bool) -> None:
    """Delete queues of the organisation NAME that are empty and that nobody reads; sqs is turned off.

    Others are refused and stay as they are; the exit code is then 1. Messages of a dropped queue that wait
    for another attempt are parked when they come back. What AMQP does not show, such as messages on their way
    to another queue, counts when the management API is named.
    """
    wanted = chosen(flags)
    check_organisation(name)

    async def act(plumbing: Plumbing) -> int:
        code = 0
        for part in wanted:
            queue = organisation_binding(name, part).queue
            try:
                there = await plumbing.drop_organisation_queue(name, part)
            except InUse as error:
                say(printable(str(error)))
                code = FAILED
                continue
            if part == "sqs":
                click.echo(f"{queue} gets nothing of {name} any more")
            else:
                click.echo(f"{queue} is dropped" if there else f"{queue} is not there")
        return code

    sys.exit(anyio.run(with_plumbing, url, "quorum", act))


@org.command(name="list", short_help="List organisations and what they have.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@amqp_url
def list_(names: Sequence[str], url: BrokerUrl) -> None:
    """List organisations and what they have: those of NAME, or all that the management API shows."""
    for name in names:
        check_organisation(name)
    found = anyio.run(states, url, list(names), variable(os.environ, VARIABLE))
    if not found:
        say("no organisation has a queue here")
        return
    table(("ORGANISATION", *(part.upper() for part in ORGANISATION_PARTS)), list(rows(found)))


def rows(found: dict[str, dict[str, State]]) -> Iterator[tuple[str, ...]]:
    """Yield the table, a row for each organisation."""
    for name, its in found.items():
        yield printable(name), *(str(its[part]) for part in ORGANISATION_PARTS)


async def with_plumbing(
    url: BrokerUrl, queue_type: QueueType, act: Callable[[Plumbing], Awaitable[int]]
) -> int:
    """Do something over one connection, and with the management API where it is given."""
    async with AsyncExitStack() as stack:
        address = variable(os.environ, VARIABLE)
        api = await stack.enter_async_context(ManagementApi(address)) if address else None
        plumbing = Plumbing(url, queue_type=queue_type, management=api)
        return await act(await stack.enter_async_context(plumbing))
