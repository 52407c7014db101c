"""Runs a pipeline on messages that come from somewhere else than a running consumer."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from flow.account import Account
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.pipeline import Pipeline
from flow.stages.books import Store
from flow.stages.commit import GroupCommit
from flow.stages.engine import Engine
from flow.trial.origin import Settled, TrialOrigin

# The delay of a retry loop that is over before anything could wait for it: nothing is held, nothing is tried
# twice.
NO_LOOP = -math.inf
INTERVAL = 1.0  # seconds between two looks at what was settled
LAST = 10.0  # seconds to write the last of it down

Feed = Callable[["Trial"], Awaitable[None]]


class Trial:
    """The stages of one pipeline, without a broker behind them."""

    def __init__(
        self, pipeline: Pipeline[Any, Any], window: int, settled: Settled, store: Store | None = None
    ) -> None:
        """Take over *pipeline*, let at most *window* messages be open, and tell *settled* what is decided.

        In the *store* it is written down, and what must not happen twice is claimed there.
        """
        pipeline.retry_delay = NO_LOOP
        self.pipeline = pipeline
        self.origin = TrialOrigin(pipeline.queue, window, settled)
        self._metrics = PipelineMetrics(pipeline.name, list(pipeline.batchings()))
        self._metrics.account(pipeline.queue)
        self._store = store
        self._engine: Engine
        self._working = anyio.CancelScope()

    @property
    def account(self) -> Account:
        """What became of the messages."""
        return self._metrics.accounts[self.pipeline.queue]

    def stop(self) -> None:
        """Take no more messages, and give those back that are not finished soon; returns at once."""
        self._working.cancel()

    def receive(self, message: Message[Any]) -> None:
        """Let *message* be worked; it must be the origin's."""
        self._engine.receive([message])

    async def run(self, feed: Feed, timeout: float) -> None:
        """Work everything that *feed* brings; once it has ended open batches go without waiting for more.

        After `stop` what still runs is cancelled within *timeout* seconds.
        """
        async with self.pipeline.lifespan(), anyio.create_task_group() as tasks:
            self._engine = Engine(self.pipeline, self._metrics, parked, store=self._store)
            self._engine.origins = [self.origin]
            tasks.start_soon(self._engine.run)
            if self._engine.books is not None:
                tasks.start_soon(self._confirm, self._engine.books.commit)
            try:
                with self._working:
                    await feed(self)
                    await self._engine.drain(math.inf)
                if self._working.cancelled_caught:
                    await self._engine.drain(timeout)
                if self._engine.books is not None:
                    with anyio.move_on_after(LAST):
                        self._arrived(self._engine.books.commit)
                        await self._engine.books.commit.flush()
            finally:
                tasks.cancel_scope.cancel()

    async def _confirm(self, commit: GroupCommit) -> None:
        """Take what was settled for known, again and again: there is no broker that might not know of it."""
        while True:
            await anyio.sleep(INTERVAL)
            self._arrived(commit)

    def _arrived(self, commit: GroupCommit) -> None:
        commit.arrived(self.origin, commit.unconfirmed().get(self.origin, 0))


async def parked(message: Message[Any], reason: str) -> None:
    """Bring nothing anywhere: there is no park."""
