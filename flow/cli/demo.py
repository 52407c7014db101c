"""`flow demo`: the main job with everything that goes wrong, and an account of every message."""

import sys

import anyio
import click

from flow.cli.logs import configure
from flow.demo.story import Cast, Demo


@click.command()
@click.option("--signatures", type=click.IntRange(200, 100_000), default=3000, show_default=True)
def demo(signatures: int) -> None:
    """Show the main job on a private RabbitMQ node: outages, poison, retries, and the account.

    Exit code 0: every message is explained.
    """
    configure("console", "error", tracebacks=False)
    explained = anyio.run(Demo(click.echo, Cast(signatures)).run)
    click.echo("Every message is explained." if explained else "Not every message is explained.")
    sys.exit(0 if explained else 1)
