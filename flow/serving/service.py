"""`flow serve` as one process: the callbacks, and the messages that decisions put into the outbox."""

import logging
import signal
from collections.abc import Collection

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
        self._decided = anyio.Event()

    async def run(self) -> None:
        """Serve until SIGINT or SIGTERM.

        Raises:
            ConfigError: the database is wrong or not to be reached, or the address cannot be listened on.
        """
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with (
                Database.opened(self._database_url) as database,
                Publisher(self._broker_url, name="flow-serve") as publisher,
            ):
                desk = RecordsDesk(database, self._wake)
                app = application(desk, self._policy, self._ready(database), self._proxies)
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(self._sweep, Sweeper(database, Outbox(database, publisher), say=log.error))
                    async with Endpoint(
                        app, self._host, self._port, options="-", extra="serve"
                    ) as endpoint:
                        log.info("links are answered at %s", endpoint.address)
                        async for number in signals:
                            log.info("%s: finishing", signal.Signals(number).name)
                            break
                    tasks.cancel_scope.cancel()

    def _wake(self) -> None:
        self._decided.set()

    async def _sweep(self, sweeper: Sweeper) -> None:
        """Sweep after each decision, and now and then; a fault of the database is waited out."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sweeper.run, self._every)

    def _ready(self, database: Database):
        async def ready() -> str | None:
            try:
                async with database.reading(patience=2.0):
                    return None
            except DatabaseError as error:
                return str(error)

        return ready
