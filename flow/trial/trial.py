"""Runs a pipeline on messages that come from somewhere else than a running consumer."""

import math
from collections.abc import Awaitable, Callable
from typing import Any

import anyio

from flow.account import Account
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.pipeline import Pipeline
from flow.records.memory_ledger import MemoryLedger
from flow.stages.engine import Engine
from flow.trial.origin import Settled, TrialOrigin

# The delay of a retry loop that is over before anything could wait for it: nothing is held, nothing is tried
# twice.
NO_LOOP = -math.inf

Feed = Callable[["Trial"], Awaitable[None]]


class Trial:
    """The stages of one pipeline, without a broker behind them."""

    def __init__(self, pipeline: Pipeline[Any, Any], window: int, settled: Settled) -> None:
        """Take over *pipeline*, let at most *window* messages be open, and tell *settled* what is decided."""
        pipeline.retry_delay = NO_LOOP
        self.pipeline = pipeline
        self.origin = TrialOrigin(pipeline.queue, window, settled)
        self._metrics = PipelineMetrics(pipeline.name, list(pipeline.batchings()))
        self._metrics.account(pipeline.queue)
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
            memory = MemoryLedger()
            store = (memory, memory) if self.pipeline.claim is not None else None
            self._engine = Engine(self.pipeline, self._metrics, parked, store=store)
            self._engine.origins = [self.origin]
            tasks.start_soon(self._engine.run)
            try:
                with self._working:
                    await feed(self)
                    await self._engine.drain(math.inf)
                if self._working.cancelled_caught:
                    await self._engine.drain(timeout)
            finally:
                tasks.cancel_scope.cancel()


async def parked(message: Message[Any], reason: str) -> None:
    """Bring nothing anywhere: there is no park."""
