"""`flow run --dev`: the pipelines and a broker in memory in one process."""

import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from flow.broker.url import BrokerUrl
from flow.cli.dev import PORT, listening
from flow.cli.feeding import feeding
from flow.declaration import derived
from flow.devbroker.server import DevBroker
from flow.options import variable
from flow.pipeline import Pipeline
from flow.plumbing.development import development_topology
from flow.plumbing.setup import set_up

HOST = "127.0.0.1"
ADDRESSES = ("FLOW_AMQP_URL", "AMQP_URL", "PROCA_URL")
OTHERS = {
    "source": "--from",
    "dry_run": "--dry-run",
    "dump_only": "--dump-only",
    "reload": "--reload",
}
"""What makes no sense with a broker that is empty at the start and gone at the end, and its flag."""
GONE = "and the broker in memory with all that it holds"
"""What a second signal makes of messages that are not finished."""

F = TypeVar("F", bound=Callable[..., Any])
PipelineClass = type[Pipeline[Any, Any]]

log = logging.getLogger("flow")


def dev_option(command: F) -> F:
    """Add `--dev`."""
    return click.option(
        "--dev",
        is_flag=True,
        envvar="FLOW_DEV",
        is_eager=True,  # the broker's address is not needed then
        help="Consume from a broker in memory, in this process, and print its URL; it keeps nothing.",
    )(command)


def check_dev(options: dict[str, Any]) -> None:
    """Check that nothing contradicts `--dev`, if it was given.

    Raises:
        click.UsageError: something does.
    """
    if not options["dev"]:
        return
    if options["workers"] > 1:
        raise click.UsageError("--dev goes with one process: the broker is in it, so leave --workers away")
    for name, flag in OTHERS.items():
        if options[name]:
            raise click.UsageError(
                f"--dev does not go with {flag}: its broker is empty at the start and gone at the end"
            )
    source = click.get_current_context().get_parameter_source("dev")
    address = next((name for name in ADDRESSES if variable(os.environ, name)), None)
    if source is ParameterSource.ENVIRONMENT and address is not None:
        raise click.UsageError(f"FLOW_DEV and {address} contradict each other: unset one of them")


class Embedded:
    """A broker in memory in which pipelines find their queues."""

    def __init__(self) -> None:
        self._url: BrokerUrl | None = None
        self._broker: DevBroker | None = None
        self._retry_delay = 0.0
        self._declared: set[str] = set()

    def of(self, cls: PipelineClass) -> PipelineClass:
        """Return *cls*; if it names its queues while it runs, they are declared when it does."""
        if hasattr(cls, "queue"):
            return cls
        embedded = self

        async def queues(pipeline: Any) -> AsyncIterator[Sequence[str]]:
            async for names in cls.queues(pipeline):
                if isinstance(names, list | tuple):  # anything else is refused where it is consumed
                    await embedded.declare([name for name in names if isinstance(name, str)])
                yield names

        return derived(cls, queues=queues)

    async def start(self, pipelines: Sequence[Pipeline[Any, Any]]) -> BrokerUrl:
        """Declare the queues of *pipelines* and return the URL; `async with` has begun before.

        Raises:
            ConfigError: a queue has a name that cannot be declared.
        """
        assert self._broker is not None
        self._url = BrokerUrl.parse(self._broker.url())
        self._retry_delay = max(pipeline.retry_delay for pipeline in pipelines)
        await self.declare([pipeline.queue for pipeline in pipelines if hasattr(pipeline, "queue")])
        return self._url

    def tell(self) -> None:
        """Print the URL."""
        assert self._broker is not None
        click.echo(self._broker.url())

    async def declare(self, queues: Sequence[str]) -> None:
        """Declare *queues* with what they need, and tell how they are fed; doing it again changes nothing."""
        assert self._url is not None
        assert self._broker is not None
        topology = development_topology(queues, retry_delay=self._retry_delay)
        await set_up(self._url, topology)
        for queue in queues:
            if queue not in self._declared:
                self._declared.add(queue)
                log.info("to feed %s: %s", queue, feeding(queue, topology, self._broker.url()))

    async def __aenter__(self) -> "Embedded":
        self._broker = await listening(HOST, PORT)
        await self._broker.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        assert self._broker is not None
        left = {queue: length for queue, length in self._broker.lengths().items() if length}
        if left:
            queues = ", ".join(f"{length} in {queue}" for queue, length in left.items())
            log.warning("the broker in memory ends, and what it held is gone: %s", queues)
        await self._broker.__aexit__(kind, error, traceback)
