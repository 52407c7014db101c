"""Delivers the batches of one batcher: `handle_batch`, a few at a time."""

import asyncio
import inspect
from collections.abc import Callable, Hashable
from typing import Any

import anyio

from flow.batch import Batch
from flow.batching import Batcher, Batching
from flow.clock import Clock, Timer
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.pipeline import Pipeline
from flow.retries import judge
from flow.stages.acknowledger import Acknowledger
from flow.stages.bell import Bell
from flow.stages.guard import Guard
from flow.stages.mark import Mark, Watchdog


class Deliverer:
    """The delivery slots of one batcher."""

    def __init__(
        self,
        name: str,
        options: Batching,
        pipeline: Pipeline[Any, Any],
        acknowledger: Acknowledger,
        metrics: PipelineMetrics,
        clock: Clock,
        *,
        idle: "Callable[[Deliverer], bool]",
    ) -> None:
        """Take *idle*, called whenever a slot has nothing to do; it tells whether there is something now."""
        self.name = name
        self.options = options
        self.batcher = Batcher(name, options)
        self.marks: list[Mark[Batch[Any]]] = [Mark() for _ in range(options.concurrency)]
        self._pipeline = pipeline
        self._acknowledger = acknowledger
        self._metrics = metrics
        self._clock = clock
        self._idle = idle
        self._bell = Bell()
        self._timer: Timer | None = None
        self._closed = False
        self._cancelled = False
        self._watchdog = Watchdog(self.marks, pipeline.batch_timeout, clock)

    @property
    def free(self) -> bool:
        """Whether a slot waits for a batch."""
        return self._bell.waiting > 0

    @property
    def running(self) -> int:
        """How many batches are being delivered."""
        return sum(mark.work is not None for mark in self.marks)

    def put(self, message: Message[Any], key: Hashable, now: float, weight: int, *, alone: bool) -> None:
        """Put *message* into the open batch of *key*, or *alone* into one of its own."""
        if self._closed:
            self._acknowledger.give_back(message)
            return
        message.state = State.BATCHED
        if alone:
            self.batcher.add_alone(message, key)
        else:
            self.batcher.add(message, key, now, weight)
        self.look()

    def look(self) -> None:
        """Wake a slot when a batch may go, else see to it that one is woken when the next is due."""
        if self.batcher.ready:
            self._bell.ring()
        else:
            self._arm()

    def starve(self, queue: str, enough: int) -> bool:
        """Let the largest open batches go until *enough* messages of *queue* are released."""
        released = self.batcher.starve(queue, enough)
        if released:
            self._bell.ring_all()
        return released > 0

    def flush(self) -> None:
        """Let every open batch go, now and from now on."""
        self.batcher.flush()
        self._bell.ring_all()

    def close(self) -> None:
        """Start nothing more and give back what waits in batches."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for message in self.batcher.clear():
            self._acknowledger.give_back(message)

    def cancel(self) -> list[Message[Any]]:
        """Cancel the running deliveries and return their messages."""
        self._cancelled = True
        self._watchdog.stop()
        cancelled = [message for mark in self.marks if mark.work is not None for message in mark.work]
        for mark in self.marks:
            mark.work = None
            mark.scope.cancel()
        return cancelled

    async def work(self, mark: Mark[Batch[Any]]) -> None:
        """Deliver one batch after another until cancelled."""
        while not self._cancelled:
            with anyio.CancelScope() as mark.scope:
                await self._stretch(mark)
            batch, mark.work = mark.work, None
            if batch is not None:
                late = TimeoutError(f"handle_batch took longer than {self._pipeline.batch_timeout:g} s")
                await self._settle(batch, late)
                self.batcher.done(batch)

    async def _stretch(self, mark: Mark[Batch[Any]]) -> None:
        """Work until the scope of *mark* is cancelled, by the watchdog or by a drain."""
        guard = Guard()
        while not mark.scope.cancel_called:
            batch = None if self._closed else self.batcher.take(self._clock.now())
            if batch is None:
                self._arm()
                if not self._idle(self):
                    await self._bell.wait()
                continue
            self.look()
            self._start(batch, mark)
            with guard:
                result = self._pipeline.handle_batch(batch)
                if inspect.isawaitable(result):
                    await result
            self._metrics.batch_seconds[self.name].observe(self._clock.now() - mark.since)
            await self._settle(batch, guard.error)
            mark.work = None
            self.batcher.done(batch)
            await asyncio.sleep(0)

    def _start(self, batch: Batch[Any], mark: Mark[Batch[Any]]) -> None:
        mark.work, mark.since = batch, self._clock.now()
        for message in batch.messages:
            message.state = State.RUNNING
        metrics, name = self._metrics, self.name
        metrics.batch_size[name].observe(len(batch))
        metrics.batch_wait_seconds[name].observe(mark.since - batch.messages[0].received_at)
        metrics.batch_triggers[name, batch.trigger.value] += 1
        self._watchdog.watch()

    async def _settle(self, batch: Batch[Any], error: Exception | None) -> None:
        """Carry out the marks; *error* decides what is not marked, which is delivered without one."""
        if error is None and not batch.marks:
            self._acknowledger.delivered(batch.messages)
            return
        unmarked = [message for message in batch.messages if message not in batch.marks]
        if error is None:
            self._acknowledger.delivered(unmarked)
        for message in batch.messages:
            verdict = batch.marks.get(message)
            if verdict is not None:
                await self._acknowledger.decide(
                    message, judge(verdict, message.attempt, self._pipeline.retries)
                )
        if error is not None:
            await self._acknowledger.failed(unmarked, error, "handle_batch")

    def _arm(self) -> None:
        """See to it that a slot is woken when the next open batch is due."""
        if self._timer is None:
            due = self.batcher.deadline()
            if due is not None:
                self._timer = self._clock.call_at(due, self._due)

    def _due(self) -> None:
        self._timer = None
        self._bell.ring()
