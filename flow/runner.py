"""Runs one pipeline: one session with the broker after another, until it is asked to stop."""

import logging
import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio

from flow.account import Account
from flow.broker.backoff import Backoff
from flow.broker.line import Consuming
from flow.broker.session import Session
from flow.broker.tap import Receive
from flow.broker.url import BrokerUrl
from flow.confirmation import Confirmation
from flow.deadletters import DeadLetters
from flow.errors import BrokerError, ConnectionLost, ConsumerCancelled
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.options import option
from flow.pipeline import Pipeline
from flow.plumbing.copier import Copier
from flow.records.database import Database
from flow.records.stores import kept, starts
from flow.sizing import pace_warning
from flow.stages.engine import Engine
from flow.stages.suspects import Journal
from flow.subscription import Subscription

LEAVING = 0.2  # of the time of a drain, at most, until the broker delivers no more
HEALTHY = 60.0  # seconds after which a session counts as healthy even if nothing was delivered

log = logging.getLogger("flow")


@option
class RunOptions:
    """How a pipeline is run."""

    shutdown_timeout: float = 25.0
    """Seconds from the request to stop until what still runs is given up."""
    wait: bool = False
    """Whether to try again every minute when the set-up is wrong at start, instead of ending."""
    slow_retry: float = 60.0
    """Seconds between two tries while the set-up is wrong."""
    longest_hold: float = 600.0
    """Seconds after which messages that wait for a target that is down go back to their queue."""
    state_dir: Path | None = None
    """Where it is noted which suspect messages were started, if there is no database."""
    database: Database | None = None
    """Where ledger, claims and starts are kept; None: the process alone knows what it did."""
    copy: Callable[[Sequence[Message[Any]]], None] | None = None
    """Gets everything that is received, before it is worked; it must not raise."""


class Runner:
    """Keeps one pipeline consuming; every fault of the broker after the first success is waited out."""

    def __init__(
        self, pipeline: Pipeline[Any, Any], url: BrokerUrl, options: RunOptions | None = None
    ) -> None:
        """Prepare to run *pipeline*.

        Raises:
            ConfigError: the spool or the folder for the state cannot be written, or the pipeline has claims
                that need a database.
        """
        self.pipeline = pipeline
        self.options = options or RunOptions()
        self.metrics = PipelineMetrics(pipeline.name, list(pipeline.batchings()))
        self.hung = 0
        """How many callbacks had to be cancelled at the end of the drain."""
        self.ended = anyio.Event()
        self._url = url
        self._session: Session | None = None
        self._copier = Copier(pipeline, url, self.metrics)
        self._stopping = anyio.Event()
        self._starting = anyio.CancelScope()
        self._started = False
        self._connecting = anyio.CancelScope()
        self._consumed = False
        self._fault = "not connected yet"
        self._store = kept(pipeline, self.options.database)
        self._journal: Journal | None = starts(self.options.database, self.options.state_dir)
        self._subscription: Subscription | None = None
        self._engine: Engine | None = None

    @property
    def account(self) -> Account:
        """What became of everything received so far."""
        total = Account()
        for account in self.metrics.accounts.values():
            total.add(account)
        return total

    def stop(self) -> None:
        """Ask for a drain; returns at once."""
        self._stopping.set()
        if not self._started:
            self._starting.cancel()
        self._connecting.cancel()

    def unready(self) -> str | None:
        """Return why nothing is consumed now, or None while something is."""
        if self._stopping.is_set():
            return f"{self.pipeline.name} is draining"
        if self._session is None or self._subscription is None:
            return f"{self.pipeline.name}: {self._fault}"
        if (fault := self.ledger_fault()) is not None:
            return f"{self.pipeline.name}: the ledger is down: {fault}"
        faults = self._subscription.faults
        if not faults:
            return None
        first = next(iter(faults.values()))
        return f"{self.pipeline.name}: {len(faults)} of {len(self._subscription.wanted)} queues wait: {first}"

    def stuck(self) -> str | None:
        """Return why nothing will ever be started again, or None."""
        return None if self._engine is None else self._engine.stuck()

    def down(self) -> dict[str, float]:
        """Return the queues whose work waits for a target that is down, and for how many seconds."""
        return {} if self._engine is None else self._engine.down()

    def ledger_fault(self) -> str | None:
        """Return why the ledger cannot be written now, or None."""
        books = None if self._engine is None else self._engine.books
        return None if books is None else books.fault

    async def run(self) -> None:
        """Consume until `stop`; then drain.

        Cancelling this drains as well, and goes on being cancelled after it.

        Raises:
            BrokerError: the set-up is wrong, before anything was consumed.
        """
        async with anyio.create_task_group() as outer:
            outer.start_soon(self._stop_when_cancelled)
            with anyio.CancelScope(shield=True):
                with self._starting:
                    async with self.pipeline.lifespan():
                        self._started = True
                        await self._work()
            self.ended.set()
            outer.cancel_scope.cancel()

    async def _stop_when_cancelled(self) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            self.stop()

    async def _work(self) -> None:
        if self._journal is None:
            log.info(
                "%s: without FLOW_STATE_DIR or a database no message that crashes the process is parked",
                self.pipeline.name,
            )
        pipeline = self.pipeline
        if slow := pace_warning(pipeline.rate_limit, pipeline.granted(), pipeline.batchings().values()):
            log.warning("%s: %s", pipeline.name, slow)
        engine = Engine(
            pipeline,
            self.metrics,
            self._copier.copy,
            rejectable=DeadLetters(self.pipeline).rejectable,
            journal=self._journal,
            store=self._store,
        )
        self._engine = engine
        self._gauges(engine)
        subscription = Subscription(self.pipeline, engine, longest_hold=self.options.longest_hold)
        self._subscription = subscription
        self.metrics.oldest_seconds = subscription.oldest
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.run)
            tasks.start_soon(subscription.follow)
            try:
                with self._connecting:
                    await self._sessions(engine, subscription)
                await self._drain(engine)
            finally:
                tasks.cancel_scope.cancel()
                with anyio.CancelScope(shield=True):
                    if self._session is not None:  # only after an error: its messages go back to the queue
                        await self._session.close()
                    await self._copier.close()

    async def _sessions(self, engine: Engine, subscription: Subscription) -> None:
        """Open one session after another until stopped."""
        backoff = Backoff(random.Random())
        while not self._stopping.is_set():
            try:
                session = await self._open(engine, subscription)
            except BrokerError as error:
                await self._wait_out(error, backoff)
                continue
            began, received = anyio.current_time(), self.account.received
            self._consumed = True
            async with anyio.create_task_group() as tasks:
                if engine.books is not None:
                    tasks.start_soon(Confirmation(engine.books.commit, session).run)
                await subscription.keep(session)
                tasks.cancel_scope.cancel()
            await self._lost(engine, session)
            if anyio.current_time() - began >= HEALTHY or self.account.received > received:
                backoff.reset()
            else:
                await anyio.sleep(backoff.next())

    async def _open(self, engine: Engine, subscription: Subscription) -> Session:
        pipeline = self.pipeline
        session = await Session.connect(
            self._url,
            name=f"flow {pipeline.name}",
            max_body=pipeline.max_body,
            consuming=Consuming(
                name=f"flow {pipeline.name}",
                exclusive=pipeline.exclusive,
                priority=pipeline.consumer_priority,
            ),
            line_lost=None if hasattr(pipeline, "queue") else subscription.lost,
        )
        try:
            await subscription.fill(session)
        except BrokerError:
            await session.close()
            raise
        except BaseException:  # cancelled: nothing has been worked yet
            session.abort()
            raise
        self._session = session
        self.metrics.connected = True
        session.begin(self._receive(engine))
        return session

    def _receive(self, engine: Engine) -> Receive:
        copy = self.options.copy
        if copy is None:
            return engine.receive

        def receive(messages: list[Message[Any]]) -> None:
            copy(messages)
            engine.receive(messages)

        return receive

    async def _lost(self, engine: Engine, session: Session) -> None:
        self._session = None
        self._fault = str(session.failure or ConnectionLost("the session ended"))
        self.metrics.connected = False
        engine.lost(session.outstanding(), session.unconfirmed())
        cancelled = isinstance(session.failure, ConsumerCancelled)
        self.metrics.reconnects["cancelled" if cancelled else "lost"] += 1
        log.warning("%s lost its session and opens a new one: %s", self.pipeline.name, self._fault)
        await session.close()

    async def _wait_out(self, error: BrokerError, backoff: Backoff) -> None:
        """Wait before the next try; end when the set-up is wrong and nothing was consumed yet."""
        self._fault = str(error)
        weather = isinstance(error, ConnectionLost)
        if not weather and not self._consumed and not self.options.wait:
            raise error
        self.metrics.reconnects["refused" if weather else "configuration"] += 1
        delay = backoff.next() if weather else self.options.slow_retry
        log.warning("%s; the next try is in %.1f s", error, delay)
        await anyio.sleep(delay)

    async def _drain(self, engine: Engine) -> None:
        """Let the broker deliver no more, then finish; what went back before would come here again."""
        session, self._session = self._session, None
        end = anyio.current_time() + self.options.shutdown_timeout
        async with anyio.create_task_group() as tasks:
            if session is not None:
                tasks.start_soon(self._notice_loss, engine, session)
                with anyio.move_on_after(self.options.shutdown_timeout * LEAVING):
                    await session.cancel()
            self.hung = await engine.drain(end - anyio.current_time())
            if session is not None and engine.books is not None:
                await Confirmation(engine.books.commit, session).finish()
            tasks.cancel_scope.cancel()
        if session is not None:
            await session.close()
        self.metrics.connected = False
        self.metrics.consumer_up = dict.fromkeys(self.metrics.consumer_up, False)

    async def _notice_loss(self, engine: Engine, session: Session) -> None:
        try:
            await session.failed.wait()
        finally:  # the drain may end before this task is woken
            if session.failed.is_set():
                engine.lost(session.outstanding(), session.unconfirmed())

    def _gauges(self, engine: Engine) -> None:
        self.metrics.in_progress = lambda: engine.running
        self.metrics.buffered = engine.buffered
        self.metrics.unsettled = lambda: {one.queue: one.outstanding for one in engine.origins}
