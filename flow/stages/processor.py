"""Decodes messages and hands them to `handle_message`; a few workers on one shared queue."""

import asyncio
import inspect
import math
from collections import deque
from collections.abc import Callable
from typing import Any

import anyio

from flow.clock import Clock
from flow.codec import Codec
from flow.memory import DeliveryMemory
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.outcome import Decision, Unavailable
from flow.pipeline import Pipeline
from flow.stages.acknowledger import Acknowledger
from flow.stages.bell import Bell
from flow.stages.gate import Gate
from flow.stages.guard import CallbackTimeout, Guard, NotNow
from flow.stages.mark import NOT_STARTED, Mark, Watchdog

TURN = 64  # messages a worker takes before it lets the rest of the loop run
LARGE_HEADER = 16 * 1024  # bytes; decoding a larger one could block the loop for a tenth of a second


class Processor:
    """`concurrency` workers that take messages from one inbox, decode and handle them."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        codec: Codec,
        memory: DeliveryMemory,
        acknowledger: Acknowledger,
        metrics: PipelineMetrics,
        clock: Clock,
        *,
        forward: Callable[[Message[Any], Any], None] | None,
        idle: Callable[[], object],
    ) -> None:
        """Take *forward*, which puts a handled message into a batch (None: handling delivers).

        *idle* is called whenever a worker has nothing to do.
        """
        self._pipeline = pipeline
        self._codec = codec
        self._memory = memory
        self._acknowledger = acknowledger
        self._metrics = metrics
        self._clock = clock
        self._forward = forward
        self._idle = idle
        self._bell = Bell()
        self.gate: Gate | None = None
        if forward is None:
            self.gate = Gate(pipeline, "default", pipeline.concurrency, metrics, clock, self._bell.ring_all)
        self._rung = False  # a worker was woken and has not run yet
        self._closed = False
        self._cancelled = False
        self.inbox: deque[Message[Any]] = deque()
        self.marks: list[Mark[Message[Any]]] = [Mark() for _ in range(pipeline.concurrency)]
        self._watchdog = Watchdog(self.marks, pipeline.handler_timeout, clock)
        self._asynchronous = inspect.iscoroutinefunction(pipeline.handle_message)

    @property
    def running(self) -> int:
        """How many handlers run."""
        return sum(mark.work is not None for mark in self.marks)

    def receive(self, messages: list[Message[Any]]) -> None:
        """Take over *messages*; they are given back at once when nothing is started any more."""
        if self._closed:
            for message in messages:
                self._acknowledger.give_back(message)
            return
        self.inbox.extend(messages)
        self._wake()

    def again(self, message: Message[Any]) -> None:
        """Work *message* once more."""
        self.receive([message])

    def discard_stale(self) -> None:
        """Drop what was not started and whose session ended: the broker delivers it again."""
        kept = [message for message in self.inbox if message.state is State.WAITING]
        self.inbox.clear()
        self.inbox.extend(kept)

    def close(self) -> None:
        """Start nothing more and give back what has not been started."""
        self._closed = True
        if self.gate is not None:
            self.gate.stop()
        while self.inbox:
            self._acknowledger.give_back(self.inbox.popleft())

    def cancel(self) -> list[Message[Any]]:
        """Cancel the running handlers and return their messages."""
        self._cancelled = True
        self._watchdog.stop()
        cancelled = [mark.work for mark in self.marks if mark.work is not None]
        for mark in self.marks:
            mark.work = None
            mark.scope.cancel()
        return cancelled

    async def work(self, mark: Mark[Message[Any]]) -> None:
        """Handle one message after another until cancelled."""
        while not self._cancelled:
            with anyio.CancelScope() as mark.scope:
                await self._stretch(mark)
            if mark.work is not None:
                timeout = self._pipeline.handler_timeout
                late = CallbackTimeout(f"handle_message took longer than {timeout:g} s")
                await self._end(mark.work, mark, late)
                mark.work = None

    async def _stretch(self, mark: Mark[Message[Any]]) -> None:
        """Work until the scope of *mark* is cancelled, by the watchdog or by a drain."""
        inbox, bell, now, forward = self.inbox, self._bell, self._clock.now, self._forward
        gate, observe = self.gate, self._metrics.handler_seconds.observe
        decode, handle, asynchronous = self._codec.decode, self._pipeline.handle_message, self._asynchronous
        guard, turn, watch = Guard(), 0, self._watchdog.watch
        watch()
        mark.since = now()
        while not mark.scope.cancel_called:
            if not inbox or (gate is not None and gate.shut()):
                self._idle()
                await bell.wait()
                self._rung = False
                watch()
                mark.since = now()
                continue
            message = inbox.popleft()
            if message.state is not State.WAITING:
                continue
            if inbox and not self._rung and bell.waiting:
                self._wake()
            message.state = State.RUNNING
            if message.redelivered and self._memory and self._recalled(message):
                continue
            mark.work = message
            with guard:
                if len(message.header) > LARGE_HEADER:
                    await anyio.to_thread.run_sync(message.preload)
                decode(message)
                if gate is not None:
                    await self._pass(gate, message, mark)
                result = handle(message)
                if asynchronous or hasattr(result, "__await__"):
                    result = await result
                if forward is not None:
                    forward(message, result)
            done = now()
            observe(done - mark.since)
            mark.since = done
            if guard.error is not None or gate is not None:
                await self._end(message, mark, guard.error)
                mark.since = now()
            mark.work = None
            turn += 1
            if turn % TURN == 0:
                await asyncio.sleep(0)
                watch()
                mark.since = now()

    async def _pass(self, gate: Gate, message: Message[Any], mark: Mark[Message[Any]]) -> None:
        """Wait for the rate limit before a delivering call.

        Raises:
            NotNow: it may not start.
        """
        mark.since = math.inf
        try:
            if not await gate.pace(message, 1):
                raise NotNow
        finally:
            mark.since = self._clock.now()
        mark.epoch = gate.breaker.start()

    async def _end(self, message: Message[Any], mark: Mark[Message[Any]], error: Exception | None) -> None:
        """Carry out what *error* decides; without one a delivering call has delivered.

        What went wrong before the delivering call says nothing about the target.
        """
        mark.since = math.inf  # `handle_failed` has a limit of its own
        down = isinstance(error, NotNow)
        epoch, mark.epoch = mark.epoch, NOT_STARTED
        if self.gate is not None and epoch != NOT_STARTED:
            down = self.gate.ended(epoch, error)
            self._metrics.circuit_open["default"] = not self.gate.breaker.closed
        if error is None:
            self._acknowledger.delivered((message,))
        elif down:
            self._keep(message, first=isinstance(error, NotNow | Unavailable))
        else:
            self._metrics.handler_errors += 1
            await self._acknowledger.failed([message], error, "handle_message")

    def _keep(self, message: Message[Any], *, first: bool) -> None:
        """Keep *message* for when calls may start: *first*, or else last, so that another one probes."""
        kept = message.living() if message.state is State.RUNNING else None
        if kept is None:
            return
        kept.state = State.WAITING
        if self._closed:
            self._acknowledger.give_back(kept)
        elif first:
            self.inbox.appendleft(kept)
        else:
            self.inbox.append(kept)

    def _wake(self) -> None:
        # One at a time: a woken worker wakes the next one while there is more to do, so that a burst that one
        # worker handles without waiting does not wake all of them.
        self._rung = self._bell.waiting > 0
        self._bell.ring()

    def _recalled(self, message: Message[Any]) -> bool:
        """Settle the redelivery *message* by what is remembered of its first delivery."""
        entry = self._memory.recall(message)
        if entry is None:
            return False
        if isinstance(entry, Decision):
            self._acknowledger.repeat(message, entry)
        else:
            while entry.successor is not None:
                entry = entry.successor
            entry.successor = message
        return True
