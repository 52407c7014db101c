"""`flow dev`: a broker in memory, with the plumbing set up."""

import errno
import importlib.util
import signal
from collections.abc import Sequence
from dataclasses import replace

import anyio
import click

from flow.broker.url import BrokerUrl, is_loopback
from flow.cli.errors import say
from flow.cli.feeding import feeding
from flow.cli.options import retry_delay_option
from flow.devbroker.server import DevBroker
from flow.errors import ConfigError
from flow.plumbing.setup import set_up, topology_for
from flow.topology import QUEUE_TYPES, QueueType, Topology

PORT = 5672
NEAR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # who listens everywhere is reached here without the network
TRIES = 100  # ports that are tried one after the other


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=PORT,
    show_default=True,
    help="The port, or the next one that is free; 0: any.",
)
@click.option(
    "--org", "organisations", multiple=True, metavar="NAME", help="The queue NAME.crm too; repeatable."
)
@click.option("--queue", "queues", multiple=True, metavar="NAME", help="This work queue too; repeatable.")
@click.option(
    "--queue-type",
    type=click.Choice(QUEUE_TYPES),
    default="quorum",
    show_default=True,
    help="As for flow setup.",
)
@retry_delay_option
def dev(
    host: str,
    port: int,
    organisations: Sequence[str],
    queues: Sequence[str],
    queue_type: QueueType,
    retry_delay: float,
) -> None:
    """Run a broker in memory until stopped, set up like `flow setup`, and print its URL.

    It speaks AMQP 0-9-1 as RabbitMQ does, lets guest/guest do everything and keeps nothing: for development
    and tests only.
    """
    topology = topology_for(organisations, queues, queue_type=queue_type, retry_delay=retry_delay)
    fast = importlib.util.find_spec("uvloop") is not None
    fed = [*(f"{name}.crm" for name in organisations), *queues]
    anyio.run(serve, host, port, topology, fed, backend_options={"use_uvloop": fast})


async def serve(host: str, port: int, topology: Topology, queues: Sequence[str]) -> None:
    """Run the broker until SIGINT or SIGTERM, and tell at its start how each of *queues* is fed.

    Raises:
        ConfigError: it cannot listen there.
    """
    async with await listening(host, port) as broker:
        url = BrokerUrl.parse(broker.url())
        await set_up(replace(url, host=NEAR.get(host, host)), topology)
        if not is_loopback(host):
            say("guest/guest may do everything here, and the whole network can reach it")
        for queue in queues:
            say(f"to feed {queue}: {feeding(queue, topology, broker.url())}")
        click.echo(broker.url())
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for _ in signals:
                break


async def listening(host: str, port: int) -> DevBroker:
    """Return a broker for the first port from *port* on that is free.

    Raises:
        ConfigError: none is, or the address is not of this machine.
    """
    for candidate in range(port, min(port + TRIES, 65536)):
        if await is_free(host, candidate):
            return DevBroker(host=host, port=candidate)
    raise ConfigError(f"No port from {port} on is free at {host}: name another one with --port")


async def is_free(host: str, port: int) -> bool:
    """Whether nobody listens at *host* and *port*.

    Raises:
        ConfigError: the address is not of this machine.
    """
    try:
        async with await anyio.create_tcp_listener(local_host=host, local_port=port):
            return True
    except OSError as error:
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            return False
        raise ConfigError(f"--host must be an address of this machine, got {host}") from error
