"""Everything about the ledger in one pipeline's stages: what is asked, claimed, written and confirmed."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import anyio
import anyio.abc

from flow.claim import Claims
from flow.clock import Clock
from flow.errors import LedgerError
from flow.ledger import Ledger
from flow.message import Message, Origin
from flow.metrics import PipelineMetrics
from flow.pipeline import Pipeline
from flow.stages.acknowledger import Acknowledger
from flow.stages.bell import Bell
from flow.stages.claimant import Claimant
from flow.stages.commit import GroupCommit
from flow.stages.deliverer import Deliverer
from flow.stages.inquiry import Inquiry
from flow.stages.pace import Pace
from flow.stages.recall import Recall

Store = tuple[Ledger, Claims]
"""Where it is kept what was done, and what must not be done twice."""


class Books:
    """The ledger as the stages see it; a pipeline without one has no books."""

    def __init__(
        self,
        store: Store,
        pipeline: Pipeline[Any, Any],
        metrics: PipelineMetrics,
        clock: Clock,
        acknowledger: Acknowledger,
        pace: Pace,
        recall: Recall,
        *,
        receive: Callable[[list[Message[Any]]], None],
        deliverers: Sequence[Deliverer],
        quiet: Bell,
    ) -> None:
        """Take *receive*, which gets what is to be worked.

        *quiet* is rung whenever something was written or answered, or the ledger fails.
        """
        self._store = ledger, claims = store
        self._pace = pace
        self._quiet = quiet
        self._deliverers = deliverers
        self.claimant: Claimant | None = None
        """What claims messages, if the pipeline has a claim."""
        self.commit = GroupCommit(
            ledger,
            metrics,
            clock,
            written=acknowledger.written,
            changed=self._changed,
            progress=quiet.ring_all,
            claimed=lambda message: None if self.claimant is None else self.claimant.key(message),
            ready=self._ready,
        )
        acknowledger.commit = self.commit
        if pipeline.claim is not None:
            timeout = pipeline.batch_timeout if pipeline.batchings() else pipeline.handler_timeout
            self.claimant = acknowledger.claims = Claimant(
                pipeline.claim, claims, self.commit, acknowledger, metrics, clock, timeout
            )
        self.inquiry = Inquiry(metrics.pipeline, self.commit, recall, acknowledger, receive, quiet.ring_all)
        self._closed = False
        self._acknowledger = acknowledger

    @property
    def fault(self) -> str | None:
        """Why the ledger cannot be written now."""
        return self.commit.fault

    def buffered(self) -> dict[str, int]:
        """Return how many messages wait for the ledger."""
        waiting = {"inquiry": len(self.inquiry), "ledger": self.commit.open}
        return waiting if self.claimant is None else {**waiting, "claims": self.claimant.waiting}

    def receive(self, messages: list[Message[Any]]) -> None:
        """Take over what the broker delivered."""
        self.inquiry.receive(messages)
        if self._closed:
            self.give_back()

    def lost(self, unconfirmed: Sequence[Message[Any]], origin: Origin | None) -> None:
        """Take note that a session or its *origin* ended, after all its messages were told."""
        self.commit.lost(unconfirmed, origin)
        self.inquiry.discard_stale()
        if self.claimant is not None:
            self.claimant.discard_stale()

    def start(self, tasks: anyio.abc.TaskGroup) -> None:
        """Ask and write until cancelled."""
        tasks.start_soon(self.commit.run)
        tasks.start_soon(self.inquiry.run)

    def give_back(self, queue: str | None = None) -> None:
        """Give back what waits for an answer or a claim, of *queue* or all."""
        waiting = self.inquiry.clear(queue)
        if self.claimant is not None:
            waiting += self.claimant.clear(queue)
        for message in waiting:
            self._acknowledger.give_back(message)

    def close(self) -> None:
        """Start nothing more, and give back what waits to be started."""
        self._closed = True
        self.commit.close()
        self.give_back()

    async def end(self, seconds: float) -> None:
        """Write what can be written within *seconds*; the rest goes back."""
        self.give_back()  # what began to wait for a claim after `close`
        with anyio.move_on_after(seconds), suppress(LedgerError):
            while self.commit.open and self.fault is None:
                await self._quiet.wait()
            if self.claimant is not None:
                await self.claimant.flush()
        for message in self.commit.clear():
            self._acknowledger.abandon(message)

    async def _ready(self) -> None:
        """See that everything can be written that the pipeline needs.

        Raises:
            LedgerError: not now.
        """
        ledger, claims = self._store
        await ledger.ready()
        if self.claimant is not None:
            await claims.ready()

    def _changed(self) -> None:
        if self.fault is None:
            self._pace.resume()
            for deliverer in self._deliverers:
                deliverer.look()
        else:
            self._pace.halt()
            self._quiet.ring_all()  # a drain waits no more for answers
