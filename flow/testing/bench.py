"""One pipeline between queues and a park in memory, with time that jumps."""

import asyncio
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio

from flow.batch import Batch
from flow.breaker import Breaker
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.outcome import Decision, Outcome, Unavailable
from flow.pipeline import Pipeline
from flow.records.memory_ledger import MemoryLedger
from flow.stages.mark import Mark
from flow.testing.clock import VirtualClock
from flow.testing.messages import Unsent
from flow.testing.queue import MemoryQueue
from flow.testing.recorder import RecordingEngine
from flow.testing.result import InBatch, Result

TURNS = 10  # of the loop in which nothing moves: more than the stages need from one step to the next
PAUSE = 0.001  # seconds between two looks at callbacks that wait for something real
PATIENCE = 5.0  # seconds after which a callback is taken to wait for something that only time brings
OUTAGE = 600.0  # virtual seconds after which nothing will become of what waits for a target that is down


class Bench:
    """Works messages until something has become of each."""

    def __init__(self, pipeline: Pipeline[Any, Any], *, follow_retries: bool) -> None:
        self.clock = VirtualClock()
        self.metrics = PipelineMetrics(pipeline.name, list(pipeline.batchings()))
        memory = MemoryLedger(self.clock.now)
        store = (memory, memory) if pipeline.claim is not None else None
        self.engine = RecordingEngine(pipeline, self.metrics, park, self.clock, store=store)
        self.engine.recorder.deliverers = list(self.engine.deliverers.values())
        self.engine.recorder.holds = follow_retries
        self._pipeline = pipeline
        retries = pipeline.retries
        self._follow_to = max(retries.attempts, *retries.per.values(), 0) if follow_retries else 0
        self._queues: dict[str, MemoryQueue] = {}
        self._results: dict[int, Result] = {}
        self._count = 0
        self._decided_at = self.clock.now()
        self._batches: dict[Batch[Any], InBatch] = {}
        # When the target of each is to be tried again, and since when that is known: since its last failure.
        self._failures: dict[Breaker, tuple[float, float]] = {}
        self._looks: dict[Mark[Any], tuple[Any, float, int]] = {}  # at what it has in hand since when

    @property
    def open(self) -> int:
        """Of how many messages nothing has become yet."""
        return self._count - len(self._results)

    async def run(self, messages: Sequence[Unsent]) -> list[Result]:
        """Deliver *messages* and work until something has become of each; return it in their order."""
        self._count = len(messages)
        for number, unsent in enumerate(messages):
            self._queue(unsent).put(number, unsent)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.engine.run)
            while self.open:
                await self._go_on()
            tasks.cancel_scope.cancel()
        return [self._results[number] for number in range(len(messages))]

    async def _go_on(self) -> None:
        """Let everything run that can; then wait for what is real, or else turn the clock."""
        await self._quiet()
        if not self.open:
            return
        if self._held():
            await asyncio.sleep(PAUSE)
        elif (reason := self._down()) is not None:
            for number in set(range(self._count)) - self._results.keys():
                self._note(number, Decision(Outcome.RETRYING, reason), Unavailable(reason), None)
        elif not self.clock.jump() and not self.engine.running:
            raise RuntimeError(f"flow forgot {self.open} messages: nothing runs, and no timer is set")

    async def _quiet(self) -> None:
        still, before = 0, self._position()
        while still < TURNS and self.open:
            await asyncio.sleep(0)
            now = self._position()
            still, before = (still + 1 if now == before else 0), now

    def _position(self) -> tuple[int, ...]:
        return len(self._results), self.clock.armed, *self.engine.waiting

    def _held(self) -> bool:
        """Tell whether a callback holds the clock: one that runs does, until its patience is used up.

        That is counted in looks, so that a machine that stops for a while does not use it up.
        """
        held = self.engine.recorder.telling > 0
        for mark, timeout in self.engine.workers():
            if mark.work is None or mark.since == math.inf:  # the latter waits for the rate limit
                continue
            work, since, looks = self._looks.get(mark, (None, 0.0, 0))
            looks = looks + 1 if work is mark.work and since == mark.since else 1
            self._looks[mark] = mark.work, mark.since, looks
            held = held or looks * PAUSE <= min(timeout, PATIENCE)
        return held

    def _down(self) -> str | None:
        """Return why a target is down, if a call has failed so long after the first that it will stay so."""
        now = self.clock.now()
        for breaker in self.engine.breakers():
            if breaker.opened_at is None:
                continue
            if self._failures.get(breaker, (-1.0, now))[0] != breaker.retry_at:
                self._failures[breaker] = breaker.retry_at, now
            if self._failures[breaker][1] - max(breaker.opened_at, self._decided_at) >= OUTAGE:
                return breaker.reason
        return None

    def _queue(self, unsent: Unsent) -> MemoryQueue:
        name = unsent.queue or self._pipeline.queue
        if name not in self._queues:
            self.metrics.account(name)
            self._queues[name] = MemoryQueue(
                name,
                self._pipeline.granted(),
                self._pipeline.max_body,
                receive=self.engine.receive,
                settled=self._settled,
                now=self.clock.now,
            )
            self.engine.origins = list(self._queues.values())
        return self._queues[name]

    def _settled(self, number: int, unsent: Unsent, message: Message[Any]) -> None:
        """Note what became of *message*, or deliver it again when its retries are followed."""
        self._decided_at = self.clock.now()
        decision = message.decision or Decision(Outcome.RETRYING)
        error, batch = self.engine.recorder.causes.pop(message)
        if decision.outcome is Outcome.RETRYING and message.attempt < self._follow_to:
            again = replace(unsent, attempt=message.attempt - message.held + 1, redelivered=False)
            when = self.clock.now() + self._pipeline.retry_delay
            self.clock.call_at(when, lambda: self._queue(unsent).put(number, again))
        else:
            self._note(number, decision, error, batch)

    def _note(
        self, number: int, decision: Decision, error: Exception | None, batch: Batch[Any] | None
    ) -> None:
        within = None
        if batch is not None:
            within = self._batches.get(batch)
            if within is None:
                within = self._batches[batch] = InBatch(
                    key=batch.key, batcher=batch.batcher, trigger=batch.trigger, size=len(batch)
                )
        self._results[number] = Result(
            outcome=decision.outcome, reason=decision.reason, error=error, after=decision.after, batch=within
        )


async def park(message: Message[Any], reason: str) -> None:
    """Take *message*, as a park does that always works."""
