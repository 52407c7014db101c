"""`flow setup`: declare exchanges, the retry loop, the park and queues."""

import os
import sys
from collections.abc import Collection, Sequence

import anyio
import click

from flow.broker.declaring import Drift
from flow.broker.url import BrokerUrl
from flow.checking.setup import check_set_up
from flow.cli.check import Report
from flow.cli.errors import say
from flow.cli.options import amqp_url, retry_delay_option
from flow.cli.table import table
from flow.exits import CONFIGURATION
from flow.management import VARIABLE
from flow.options import variable
from flow.plumbing.setup import set_up, topology_for
from flow.topology import QUEUE_TYPES, Binding, Queue, QueueType, Topology


@click.command()
@amqp_url
@click.option(
    "--org",
    "organisations",
    multiple=True,
    metavar="NAME",
    envvar="FLOW_SETUP_ORG",
    help="The queue NAME.crm of this organisation too; repeatable.",
)
@click.option(
    "--queue",
    "queues",
    multiple=True,
    metavar="NAME",
    envvar="FLOW_SETUP_QUEUE",
    help="This work queue too; repeatable. --bind says what comes into it.",
)
@click.option(
    "--bind",
    "bindings",
    multiple=True,
    metavar="EXCHANGE:KEY",
    envvar="FLOW_SETUP_BIND",
    help="Bring what this exchange gets with this key into the one --queue; repeatable. 'deliver:acme.*.*' "
    "is all that is delivered for acme.",
)
@click.option(
    "--queue-type",
    type=click.Choice(QUEUE_TYPES),
    default="quorum",
    show_default=True,
    help="classic: the old kind, which may lose a rejected message when the broker crashes.",
)
@retry_delay_option
@click.option(
    "--no-system-queues",
    is_flag=True,
    help="Leave out system.email.confirm, system.email.thankyou and system.sqs, of which the first two get "
    "messages of every organisation.",
)
@click.option("--dry-run", is_flag=True, help="Only print what would be declared; the broker is not asked.")
@click.option(
    "--check",
    is_flag=True,
    help="Only tell where what is there differs from what would be declared; nothing is changed.",
)
def setup(
    url: BrokerUrl,
    organisations: Sequence[str],
    queues: Sequence[str],
    bindings: Sequence[str],
    queue_type: QueueType,
    retry_delay: float,
    no_system_queues: bool,
    dry_run: bool,
    check: bool,
) -> None:
    """Declare the exchanges, the retry loop and the park, and the queues that are asked for.

    Doing it again changes nothing. What exists with other arguments is left as it is and reported; the exit
    code is then 78. So it is when --check finds a drift. FLOW_MANAGEMENT_URL, like
    https://USER:PASSWORD@HOST:15671, names the management API of RabbitMQ, which tells what AMQP does not.
    """
    if dry_run and check:
        raise click.UsageError("--dry-run asks no broker, and --check compares with one: give one of them")
    if bindings and len(queues) != 1:
        raise click.UsageError("--bind goes with one --queue: set up one queue at a time")
    topology = topology_for(
        organisations,
        queues,
        bindings,
        system_queues=not no_system_queues,
        queue_type=queue_type,
        retry_delay=retry_delay,
    )
    if dry_run:
        table(HEAD, rows(topology, "would be declared", ()))
        return
    if check:
        report = Report(as_json=False)
        anyio.run(check_set_up, url, topology, variable(os.environ, VARIABLE), report)
        sys.exit(CONFIGURATION if report.wrong else 0)
    drifts = anyio.run(set_up, url, topology)
    table(HEAD, rows(topology, "declared", drifts))
    for drift in drifts:
        say(drift.sentence)
    sys.exit(CONFIGURATION if drifts else 0)


HEAD = ("KIND", "NAME", "AS", "STATE")


def rows(topology: Topology, state: str, drifts: Collection[Drift]) -> list[tuple[str, ...]]:
    """Return the table: *state* for everything that is not among the *drifts*."""
    differing = {(drift.kind, drift.name) for drift in drifts}

    def line(kind: str, name: str, details: str) -> tuple[str, ...]:
        return kind, name, details, "differs, left as it is" if (kind, name) in differing else state

    exchanges = [line("exchange", one.name, one.kind) for one in topology.exchanges]
    queues = [line("queue", one.name, described(one)) for one in topology.queues]
    bindings = [bound(one, state, ("queue", one.queue) in differing) for one in topology.bindings]
    return [*exchanges, *queues, *bindings]


def described(queue: Queue) -> str:
    """Return the type of *queue*, and how long messages wait in it."""
    delay = queue.arguments.get("x-message-ttl")
    kind = str(queue.arguments["x-queue-type"])
    return f"{kind}, {int(delay) / 1000:g} s" if delay is not None else kind


def bound(binding: Binding, state: str, untouched: bool) -> tuple[str, ...]:
    """Return the row of a binding; those of a queue that differs are not made."""
    arrow = f"{binding.exchange} -> {binding.queue}"
    return "binding", arrow, binding.key or "everything", "not made" if untouched else state
