"""`flow serve` as one process: the callbacks, and the messages that decisions put into the outbox."""

import logging
import signal
from collections.abc import Collection, Mapping
from contextlib import AsyncExitStack
from typing import Any

import anyio

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.endpoint import Endpoint
from flow.histogram import Histogram
from flow.ops import Ops
from flow.plumbing.outbox import Outbox
from flow.plumbing.sweeper import Sweeper
from flow.records.database import Database
from flow.records.url import DatabaseUrl
from flow.serving.admission import Policy
from flow.serving.app import application
from flow.serving.desk import RecordsDesk
from flow.serving.numbers import ServingNumbers

OPS_PORT = 9301  # beside a `flow run` on the same machine

log = logging.getLogger("flow")


class Serving:
    """Answers links and publishes what they cause, until a signal."""

    def __init__(
        self,
        database: DatabaseUrl,
        broker: BrokerUrl,
        policy: Policy,
        *,
        host: str,
        port: int,
        proxies: Collection[str] = (),
        every: float = 10.0,
        ops_host: str = "127.0.0.1",
        ops_port: int | None = OPS_PORT,
    ) -> None:
        """Answer at *host* and *port* as *policy* allows, and sweep the outbox *every* so many seconds.

        *proxies* are the addresses whose X-Forwarded-For is believed. Metrics and health are served on
        *ops_host* and *ops_port* (0: a free one; None: not at all).
        """
        self._database_url = database
        self._broker_url = broker
        self._policy = policy
        self._host = host
        self._port = port
        self._proxies = proxies
        self._every = every
        self._ops_host = ops_host
        self._ops_port = ops_port

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            ConfigError: the database is wrong, or an address cannot be listened on.
        """
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with AsyncExitStack() as stack:
                database = await stack.enter_async_context(Database.opened(self._database_url, away=True))
                publisher = Publisher(self._broker_url, name="flow-serve")
                stack.push_async_callback(publisher.close)
                sweeper = Sweeper(database, Outbox(database, publisher), say=log.error)
                numbers = ServingNumbers(sweeper)
                if self._ops_port is not None:
                    health = ServingHealth(sweeper, numbers)
                    ops = Ops(self._ops_host, self._ops_port, health, of="serving")
                    await stack.enter_async_context(ops)
                    log.info("metrics and health at %s", ops.address)
                app = application(RecordsDesk(database, sweeper.wake), self._policy, numbers, self._proxies)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(sweeper.run, self._every)
                    async with Endpoint(app, self._host, self._port, options="-", extra="serve") as endpoint:
                        log.info("links are answered at %s", endpoint.address)
                        async for number in signals:
                            log.info("%s: finishing", signal.Signals(number).name)
                            break
                    tasks.cancel_scope.cancel()


class ServingHealth:
    """What the ops endpoints ask about `flow serve`."""

    def __init__(self, sweeper: Sweeper, numbers: ServingNumbers) -> None:
        """Tell of the *sweeper* and its *numbers*."""
        self._sweeper = sweeper
        self._numbers = numbers

    def live(self) -> str | None:
        """Return None: nothing but a blocked loop asks for a restart."""
        return None

    def ready(self) -> str | None:
        """Return why links cannot be answered now, or None; without the broker they can."""
        return self._sweeper.down

    def state(self) -> Mapping[str, Any]:
        """Return how database and outbox stand."""
        return {
            "database": "ok" if self._numbers.database_up else "down",
            "outbox": {"waiting": self._sweeper.waiting, "refused": self._sweeper.refused},
        }

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        """Return the metrics of links, outbox and process."""
        return self._numbers.exposition(accept, loop_lag)
