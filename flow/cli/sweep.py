"""`flow sweep`: publish the outbox and settle what a crash or an import left behind."""

import signal
import sys

import anyio
import click

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.cli.errors import exit_code, say
from flow.cli.options import amqp_url, database_url
from flow.exits import FAILED
from flow.plumbing.outbox import Outbox
from flow.plumbing.sweeper import Sweeper
from flow.records.database import Database
from flow.records.url import DatabaseUrl


@click.command()
@amqp_url
@database_url
@click.option(
    "--every",
    type=click.FloatRange(min=0.1),
    metavar="SECONDS",
    help="Go on until stopped, with so many seconds between two sweeps; a broker or database that is down "
    "is waited for.",
)
def sweep(url: BrokerUrl, database_url: DatabaseUrl, every: float | None) -> None:
    """Publish the messages of the outbox, and settle what a crash or an import left half-way.

    Ends with 1 when messages are left: the broker was lost, or would not take them. Several may run at once.
    """
    sys.exit(anyio.run(run, url, database_url, every))


async def run(url: BrokerUrl, database_url: DatabaseUrl, every: float | None) -> int:
    """Sweep once, or until SIGINT or SIGTERM; return the exit code."""
    publisher = Publisher(url, name="flow sweep")
    try:
        async with Database.opened(database_url, away=every is not None) as database:
            sweeper = Sweeper(database, Outbox(database, publisher), say=say)
            if every is None:
                swept = await sweeper.sweep(refused_too=True)
                click.echo(swept.sentence)
                fault = swept.account.fault
                return exit_code(fault) if fault else FAILED if swept.refused else 0
            with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
                async with anyio.create_task_group() as group:
                    group.start_soon(sweeper.run, every)
                    say(f"sweeping {database_url} every {every:g} s")
                    async for _ in signals:
                        break
                    group.cancel_scope.cancel()
        return 0
    finally:
        with anyio.CancelScope(shield=True):
            await publisher.close()
