"""Decodes messages and hands them to `handle_message`: a few workers on one intake, or on one each."""

import asyncio
import inspect
import math
from collections.abc import Callable
from typing import Any

import anyio

from flow.clock import Clock
from flow.codec import Codec
from flow.errors import DecodeError
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.outcome import Unavailable, Verdict
from flow.pipeline import Pipeline
from flow.stages.acknowledger import Acknowledger
from flow.stages.admission import Admission
from flow.stages.gate import Gates
from flow.stages.guard import CallbackTimeout, Guard, NotNow
from flow.stages.intake import Intake
from flow.stages.mark import NOT_STARTED, Mark, Watchdog, Work, in_hand
from flow.stages.preparer import Preparer
from flow.stages.recall import Recall
from flow.stages.reception import Reception
from flow.stages.suspects import Suspects

TURN = 64  # messages a worker takes before it lets the rest of the loop run
LARGE_HEADER = 16 * 1024  # bytes; decoding a larger one could block the loop for a tenth of a second


class Processor:
    """`concurrency` workers that take messages, decode and handle them."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        codec: Codec,
        recall: Recall,
        suspects: Suspects,
        acknowledger: Acknowledger,
        admission: Admission,
        metrics: PipelineMetrics,
        clock: Clock,
        *,
        handle: Callable[[Message[Any]], Any],
        forward: Callable[[Message[Any], Any], None] | None,
        idle: Callable[[], object],
    ) -> None:
        """Take *handle*, and *forward*, which puts a handled message into a batch (None: handling delivers).

        *idle* is called whenever a worker has nothing to do.
        """
        self._pipeline = pipeline
        self._decode = codec.decode
        self._recall = recall
        self._suspects = suspects
        self._acknowledger = acknowledger
        self._admission = admission
        self._metrics = metrics
        self._clock = clock
        self._handle = handle
        self._forward = forward
        self._idle = idle
        self._label = "default" if forward is None else "handle_message"
        self.gates = Gates(pipeline.name, pipeline.concurrency, clock, lambda: self.reception.wake_all())
        self._cancelled = False
        self.reception = Reception(
            pipeline, codec.decode, acknowledger.give_back, self.gates.shut, self._unavailable
        )
        self.marks: list[Mark[Work]] = [Mark() for _ in range(pipeline.concurrency)]
        self._watchdog = Watchdog(self.marks, pipeline.handler_timeout, clock)
        self._asynchronous = inspect.iscoroutinefunction(handle)
        self._preparer = None
        if type(pipeline).prepare_messages is not Pipeline.prepare_messages:
            self._preparer = Preparer(pipeline, codec.decode, recall, suspects, self.reception.unfit)

    @property
    def running(self) -> int:
        """How many workers have something in hand."""
        return sum(mark.work is not None for mark in self.marks)

    @property
    def startable(self) -> bool:
        """Whether a message waits that is not held up by a target that is down."""
        return any(not self.gates.single(queue) for queue in self.reception.queues())

    def close(self) -> None:
        """Start nothing more and give back what has not been started."""
        self.gates.stop()
        self.reception.close()

    def cancel(self) -> list[Message[Any]]:
        """Cancel the running handlers and return their messages."""
        self._cancelled = True
        self._watchdog.stop()
        cancelled = [message for mark in self.marks for message in in_hand(mark)]
        for mark in self.marks:
            mark.work = None
            mark.scope.cancel()
        return cancelled

    async def sort(self) -> None:
        """Sort messages into partitions, if there are any, until cancelled."""
        if self.reception.partitions is not None:
            await self.reception.partitions.run()

    async def work(self, mark: Mark[Work]) -> None:
        """Handle one message after another until cancelled."""
        intakes = self.reception.intakes
        intake = intakes[self.marks.index(mark) % len(intakes)]
        while not self._cancelled:
            with anyio.CancelScope() as mark.scope:
                await self._stretch(mark, intake)
            if mark.work is not None:
                timeout = self._pipeline.handler_timeout
                name = "prepare_messages" if isinstance(mark.work, list) else "handle_message"
                await self._end(mark, CallbackTimeout(f"{name} took longer than {timeout:g} s"))

    async def _stretch(self, mark: Mark[Work], intake: Intake) -> None:
        """Work until the scope of *mark* is cancelled, by the watchdog or by a drain."""
        bell, now, forward, down = intake.bell, self._clock.now, self._forward, self.gates.down
        handle, asynchronous, observe = (
            self._handle,
            self._asynchronous,
            self._metrics.handler_seconds.observe,
        )
        unfit, raw = self.reception.unfit, self._preparer is None
        plain = raw and self.reception.partitions is None
        take = intake.received.take if raw else intake.prepared.take
        answered, decode, guard, turn = self._recall.answers, self._decode, Guard(), 0
        self._watch(mark)
        while not mark.scope.cancel_called:
            message = take()
            if message is None:
                if raw or not await self._prepare(mark, intake):
                    self._idle()
                    await bell.wait()
                    intake.rung = False
                self._watch(mark)
                continue
            if message.state is not State.WAITING:
                continue
            if not intake.rung and bell.waiting and intake:
                intake.wake()
            message.state = State.RUNNING
            if raw and message.redelivered and answered(message):
                unfit.pop(message, None)
                continue
            mark.work, called = message, False
            with guard:
                if unfit and (error := unfit.pop(message, None)) is not None:
                    raise error
                if len(message.header) > LARGE_HEADER:
                    await anyio.to_thread.run_sync(message.preload)
                if plain:
                    decode(message)
                if raw and message.redelivered and self._suspects.suspect(message):
                    await self._admit(message, mark)
                if forward is None or down:
                    await self._pass(message, mark)
                called = True
                result = handle(message)
                if asynchronous or hasattr(result, "__await__"):
                    result = await result
                if forward is not None:
                    forward(message, result)
            done = now()
            if called:
                observe(done - mark.since)
            mark.since = done
            if guard.error is not None or mark.epoch != NOT_STARTED:
                await self._end(mark, guard.error)
                mark.since = now()
            mark.work = None
            turn += 1
            if turn % TURN == 0:
                await asyncio.sleep(0)
                self._watch(mark)

    def _watch(self, mark: Mark[Work]) -> None:
        """Measure the time of *mark* from now on."""
        self._watchdog.watch()
        mark.since = self._clock.now()

    async def _admit(self, message: Message[Any], mark: Mark[Work]) -> None:
        """Wait until the suspect *message* may start, which is no time of its callback.

        Raises:
            Reject: it ended the process too often.
            NotNow: it may not start.
        """
        commit = self._acknowledger.commit
        mark.since = math.inf
        try:
            await self._suspects.admit(message, None if commit is None else commit.before)
        finally:
            mark.since = self._clock.now()

    async def _pass(self, message: Message[Any], mark: Mark[Work]) -> None:
        """Wait until a call may start: for its claim and the rate limit before a delivering one.

        Raises:
            NotNow: it may not start.
        """
        queue = message.origin.queue
        if self._forward is None:
            mark.since = math.inf
            try:
                if not await self._admission.message(message, lambda: self.gates.shut(queue), self._again):
                    raise NotNow
            finally:
                mark.since = self._clock.now()
        if self.gates.shut(queue):
            raise NotNow
        mark.epoch = self.gates.start(queue)

    async def _prepare(self, mark: Mark[Work], intake: Intake) -> bool:
        """Prepare the next chunk, of one message while a target is down; tell whether there is more to do."""
        assert self._preparer is not None
        received = len(intake.received)
        chunk = self._preparer.chunk(intake, alone=bool(self.gates.down))
        if not chunk:
            return len(intake.received) < received  # what was taken needs no preparing
        if intake:
            intake.wake()  # the others take their share meanwhile
        mark.work = chunk
        if self.gates.down:
            mark.epoch = self.gates.start(chunk[0].origin.queue)
        error = await self._preparer.prepare(chunk, lambda suspect: self._admit(suspect, mark))
        if error is not None:
            await self._end(mark, error)
            return True
        self._abandon(mark, chunk)
        mark.work = None
        intake.prepared.put(self.reception.waiting_again(chunk))
        intake.wake()
        return True

    async def _end(self, mark: Mark[Work], error: Exception | None) -> None:
        """Carry out what *error* decides; without one a delivering call has delivered.

        What went wrong before the delivering call says nothing about the target.
        """
        messages = in_hand(mark)
        mark.since = math.inf  # `handle_failed` has a limit of its own
        unavailable, preparing = isinstance(error, Unavailable), isinstance(mark.work, list)
        down = isinstance(error, NotNow)
        if down or (preparing and not unavailable):
            self._abandon(mark, messages)
        elif mark.epoch != NOT_STARTED or unavailable:
            delivering = self._forward is None
            down = self._tell_gates(mark, messages, error if unavailable or delivering else None)
        if down:
            self._keep(messages, first=unavailable or isinstance(error, NotNow))
        elif error is not None:
            self._metrics.handler_errors += not isinstance(error, Verdict | DecodeError)
            await self._acknowledger.failed(
                messages, error, "prepare_messages" if preparing else "handle_message"
            )
        elif self._forward is None:
            self._acknowledger.delivered(messages)
        mark.work = None

    def _unavailable(self, queue: str, error: Unavailable) -> None:
        """Tell the gates that messages of *queue* cannot even be sorted."""
        self.gates.ended(queue, self.gates.start(queue), error)
        self._metrics.circuit_open[self._label] = True
        self.reception.wake_all()  # a drain waits for nothing that this queue holds

    def _tell_gates(self, mark: Mark[Work], messages: list[Message[Any]], error: Exception | None) -> bool:
        """Tell the gates how a call about *messages* ended; return whether they are to be kept."""
        epoch, mark.epoch = mark.epoch, NOT_STARTED
        queues = dict.fromkeys(message.origin.queue for message in messages)
        down = [self.gates.ended(queue, epoch, error) for queue in queues]
        self._metrics.circuit_open[self._label] = bool(self.gates.down)
        return any(down)

    def _abandon(self, mark: Mark[Work], chunk: list[Message[Any]]) -> None:
        """Tell the gates that preparing *chunk* has probed nothing: handling it does."""
        if mark.epoch != NOT_STARTED:
            self.gates.abandoned(chunk[0].origin.queue, mark.epoch)
            mark.epoch = NOT_STARTED

    def _again(self, message: Message[Any]) -> None:
        """Let *message* be worked again, whose claim was held elsewhere."""
        message.state = State.WAITING
        self.reception.receive([message])

    def _keep(self, messages: list[Message[Any]], *, first: bool) -> None:
        """Keep *messages* for when calls may start."""
        if self.reception.partitions is not None:
            for message in messages:
                self._decode(message)  # a callback may have put something else into its body
        self.reception.keep(messages, first=first)
