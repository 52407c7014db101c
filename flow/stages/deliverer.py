"""Delivers the batches of one batcher: `handle_batch`, a few at a time."""

import asyncio
import inspect
import math
from collections.abc import Callable, Hashable
from typing import Any

import anyio

from flow.batch import Batch
from flow.batcher import Batcher
from flow.batching import Batching
from flow.clock import Clock
from flow.errors import LedgerError
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.outcome import Unavailable, Verdict
from flow.pipeline import Pipeline
from flow.stages.acknowledger import Acknowledger
from flow.stages.admission import Admission
from flow.stages.alarm import Alarm
from flow.stages.forecast import Forecast
from flow.stages.gate import Gates
from flow.stages.guard import CallbackTimeout, Guard, NotNow
from flow.stages.mark import NOT_STARTED, Mark, Watchdog

TURN = 0.01  # seconds; a slot delivers that long before the rest of the loop runs and its settling is written


class Deliverer:
    """The delivery slots of one batcher."""

    def __init__(
        self,
        name: str,
        options: Batching,
        pipeline: Pipeline[Any, Any],
        acknowledger: Acknowledger,
        admission: Admission,
        metrics: PipelineMetrics,
        clock: Clock,
        *,
        handle: Callable[[Batch[Any]], Any],
        idle: "Callable[[Deliverer], bool]",
        apart: bool,
    ) -> None:
        """Take *handle*, and *idle*, called whenever a slot has nothing to do: is there something now?

        *apart* says that there are several queues or partitions.
        """
        self.name = name
        self.options = options
        self.batcher = Batcher(name, options, apart=apart)
        self.marks: list[Mark[Batch[Any]]] = [Mark() for _ in range(options.concurrency)]
        self._pipeline = pipeline
        self._acknowledger = acknowledger
        self._metrics = metrics
        self._clock = clock
        self._idle = idle
        self._closed = False
        self._cancelled = False
        self._watchdog = Watchdog(self.marks, pipeline.batch_timeout, clock)
        self._handle = handle
        self._admission = admission
        self._pace = admission.pace
        self._alarm = Alarm(self.batcher, self._pace, clock)
        target = pipeline.name if name == "default" else f"{pipeline.name} {name}"
        self.gates = Gates(target, options.concurrency, clock, self._alarm.bell.ring_all)
        self._forecast: Forecast | None = None
        if self._pace.limiter is not None:
            self._forecast = Forecast(self._pace.limiter, self.gates.single, metrics, clock.now)
            self._pace.looks.append(self.look)

    @property
    def free(self) -> bool:
        """Whether a slot waits for a batch."""
        return self._alarm.bell.waiting > 0

    @property
    def startable(self) -> bool:
        """Whether a message waits that is not held up by a target that is down."""
        return any(not self.gates.single(queue) for queue in self.batcher.queues())

    def shut(self, queue: str) -> bool:
        """Tell whether nothing of *queue* may be delivered now."""
        return self._pace.halted or self.gates.shut(queue)

    @property
    def running(self) -> int:
        """How many batches are being delivered."""
        return sum(mark.work is not None for mark in self.marks)

    def put(self, message: Message[Any], key: Hashable, weight: int) -> None:
        """Put *message* into the open batch of *key*; what could spoil others, into one of its own."""
        retried = message.held or b"x-death" in message.header
        if message.alone or (retried and self._pipeline.retries.isolated(message.attempt)):
            self.batcher.add_alone(message, key)
            changed = True
        else:
            changed = self.batcher.add(message, key, self._clock.now(), weight)
        message.state = State.BATCHED
        if changed:
            self.look()

    def put_again(self, message: Message[Any], key: Hashable) -> None:
        """Put *message* into the open batch of *key* once more, whose claim was held elsewhere."""
        guard, weight = Guard(), self.options.max_weight or 0  # what cannot be weighed any more goes alone
        with guard:
            weight = self.options.weigh(message)
        self.put(message, key, weight)

    def look(self) -> None:
        """Wake a slot when a batch may go; when none will, give back what waits."""
        if self._closed:
            for message in self.batcher.clear():
                self._acknowledger.give_back(message)
        else:
            self._alarm.look()

    def starve(self, queue: str, enough: int) -> bool:
        """Let the largest open batches go until *enough* messages of *queue* are released."""
        released = self.batcher.starve(queue, enough)
        if released:
            self._alarm.bell.ring_all()
        return released > 0

    def flush(self) -> None:
        """Let every open batch go, now and from now on."""
        self.batcher.flush()
        self._alarm.bell.ring_all()

    def close(self) -> None:
        """Start nothing more and give back what waits in batches."""
        self._closed = True
        self.gates.stop()
        self._alarm.stop()
        for message in self.batcher.clear():
            self._acknowledger.give_back(message)

    def cancel(self) -> list[Message[Any]]:
        """Cancel the running deliveries and return their messages."""
        self._cancelled = True
        self._watchdog.stop()
        running = [mark.work for mark in self.marks if mark.work is not None]
        self._acknowledger.delivered(
            [message for batch in running for message in batch if message in batch.sent]
        )
        cancelled = [message for batch in running for message in batch]
        for mark in self.marks:
            mark.work = None
            mark.scope.cancel()
        return cancelled

    async def work(self, mark: Mark[Batch[Any]]) -> None:
        """Deliver one batch after another until cancelled."""
        while not self._cancelled:
            with anyio.CancelScope() as mark.scope:
                await self._stretch(mark)
            if mark.work is not None:
                late = CallbackTimeout(f"handle_batch took longer than {self._pipeline.batch_timeout:g} s")
                await self._end(mark.work, mark, late)
                mark.work = None

    async def _stretch(self, mark: Mark[Batch[Any]]) -> None:
        """Work until the scope of *mark* is cancelled, by the watchdog or by a drain."""
        guard, turn_ends = Guard(), self._clock.now() + TURN
        while not mark.scope.cancel_called:
            batch = self._take()
            if batch is None:
                self._alarm.arm()
                if self._forecast is not None:
                    self._alarm.expect(self._forecast.due)
                if not self._idle(self):
                    await self._alarm.wait()
                    turn_ends = self._clock.now() + TURN
                continue
            self.look()
            if self._admission.needed and not await self._admitted(batch, mark):
                continue
            self._start(batch, mark)
            with guard:
                result = self._handle(batch)
                if inspect.isawaitable(result):
                    await result
            self._metrics.batch_seconds[self.name].observe(self._clock.now() - mark.since)
            await self._end(batch, mark, guard.error)
            mark.work = None
            if self._clock.now() >= turn_ends:
                await asyncio.sleep(0)
                turn_ends = self._clock.now() + TURN

    def _take(self) -> Batch[Any] | None:
        """Take the next batch; while the target is being probed, one message of it."""
        gates, forecast, late = self.gates, self._forecast, None
        if forecast is not None:
            forecast.begin()
            late = forecast.late
        if self._closed or self._pace.halted:
            return None
        batch = self.batcher.take(self._clock.now(), gates.shut if gates.down else None, late)
        if batch is not None and len(batch) > 1 and gates.single(batch.queue):
            self.batcher.put_back(batch.part(batch.messages[1:]))
            return batch.part(batch.messages[:1])
        return batch

    async def _admitted(self, batch: Batch[Any], mark: Mark[Batch[Any]]) -> bool:
        """Claim *batch* and take its tokens; tell whether it may be delivered, in part at least."""
        mark.work, mark.since = batch, math.inf
        guard, admitted = Guard(), False
        with guard:
            admitted = await self._admission.batch(
                batch, lambda: self._shut(batch), lambda message: self.put_again(message, batch.key)
            )
        if admitted:
            return True
        batch.messages[:] = [message for message in batch.messages if message.state is State.BATCHED]
        for message in batch.messages:
            message.state = State.RUNNING
        await self._end(batch, mark, guard.error or NotNow())
        mark.work = None
        return False

    def _shut(self, batch: Batch[Any]) -> bool:
        """Tell whether *batch* may not be delivered now; as a probe, only one message of it may."""
        gates = self.gates
        return gates.shut(batch.queue) or (len(batch) > 1 and gates.single(batch.queue))

    def _start(self, batch: Batch[Any], mark: Mark[Batch[Any]]) -> None:
        mark.work, mark.since, mark.epoch = batch, self._clock.now(), self.gates.start(batch.queue)
        for message in batch.messages:
            message.state = State.RUNNING
        metrics, name = self._metrics, self.name
        metrics.batch_size[name].observe(len(batch))
        metrics.batch_wait_seconds[name].observe(mark.since - batch.messages[0].received_at)
        metrics.batch_triggers[name, batch.trigger] += 1
        self._watchdog.watch()

    async def _end(self, batch: Batch[Any], mark: Mark[Batch[Any]], error: Exception | None) -> None:
        """Carry out the marks; *error* decides what is not marked, which is delivered without one.

        While the target is down, what is not marked is kept for later instead.
        """
        mark.since = math.inf  # `handle_failed` has a limit of its own
        down = self._tell_gates(batch, mark, error)
        unmarked = batch.messages
        if batch.marks or batch.sent:
            unmarked = [one for one in batch.messages if one not in batch.marks and one not in batch.sent]
            self._acknowledger.delivered([one for one in batch.messages if one in batch.sent])
        if self._admission.claimant is not None:
            unmarked = await self._admission.claimant.ended(batch, unmarked, error)
        if error is None:
            self._acknowledger.delivered(unmarked)
        if batch.marks:
            await self._acknowledger.marked(batch.marks)
        if down:
            self._keep(batch, unmarked, first=isinstance(error, Unavailable | LedgerError | NotNow))
        elif error is not None:
            self._metrics.batch_errors += not isinstance(error, Verdict)
            await self._acknowledger.failed(unmarked, error, "handle_batch")
        self.batcher.done(batch)

    def _tell_gates(self, batch: Batch[Any], mark: Mark[Batch[Any]], error: Exception | None) -> bool:
        """Tell the gates how a call ended; return whether its messages are to be kept."""
        epoch, mark.epoch = mark.epoch, NOT_STARTED
        claiming = self._admission.claimant is not None
        if isinstance(error, NotNow) or (claiming and isinstance(error, LedgerError)):
            if epoch != NOT_STARTED:  # no effect could begin, which says nothing about the target
                self.gates.abandoned(batch.queue, epoch)
            return True
        down = epoch != NOT_STARTED and self.gates.ended(batch.queue, epoch, error)
        if down:
            self._pace.wake()
        self._metrics.circuit_open[self.name] = bool(self.gates.down)
        return down

    def _keep(self, batch: Batch[Any], messages: list[Message[Any]], *, first: bool) -> None:
        """Put *messages* back into the line of their key: no attempt is spent.

        *First*, as they are; or else last and each alone, so that another one is the probe, and one that can
        never be delivered does not hold up its neighbours: they have lost their place in their partition.
        """
        running = [message for message in messages if message.state is State.RUNNING]
        kept = [living for message in running if (living := message.living()) is not None]
        for message in kept:
            message.state = State.BATCHED
        if self._closed:
            for message in kept:
                self._acknowledger.give_back(message)
        elif kept and first:
            self.batcher.put_back(batch.part(kept))
        elif kept:
            self.batcher.put_last(batch.part(kept))
