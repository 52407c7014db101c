"""`flow serve` as one process: the callbacks, and the messages that decisions put into the outbox."""

import logging
import signal
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack

import anyio

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.endpoint import Endpoint
from flow.errors import DatabaseError
from flow.plumbing.outbox import Outbox
from flow.plumbing.sweeper import Sweeper
from flow.records.database import Database
from flow.records.url import DatabaseUrl
from flow.serving.app import Policy, application
from flow.serving.desk import RecordsDesk

PATIENCE = 5.0  # seconds that a database may take to answer whether it is there

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
    ) -> None:
        """Answer at *host* and *port* as *policy* allows, and sweep the outbox *every* so many seconds.

        *proxies* are the addresses whose X-Forwarded-For is believed.
        """
        self._database_url = database
        self._broker_url = broker
        self._policy = policy
        self._host = host
        self._port = port
        self._proxies = proxies
        self._every = every

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            ConfigError: the database is wrong, or the address cannot be listened on.
        """
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with AsyncExitStack() as stack:
                database = await stack.enter_async_context(Database.opened(self._database_url, away=True))
                publisher = Publisher(self._broker_url, name="flow-serve")
                stack.push_async_callback(publisher.close)
                sweeper = Sweeper(database, Outbox(database, publisher), say=log.error)
                app = application(
                    RecordsDesk(database, sweeper.wake), self._policy, readiness(database), self._proxies
                )
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(sweeper.run, self._every)
                    async with Endpoint(app, self._host, self._port, options="-", extra="serve") as endpoint:
                        log.info("links are answered at %s", endpoint.address)
                        async for number in signals:
                            log.info("%s: finishing", signal.Signals(number).name)
                            break
                    tasks.cancel_scope.cancel()


def readiness(database: Database) -> Callable[[], Awaitable[str | None]]:
    """Return what tells why links cannot be answered now."""

    async def ready() -> str | None:
        try:
            async with database.reading(patience=PATIENCE):
                return None
        except DatabaseError as error:
            return str(error)

    return ready
