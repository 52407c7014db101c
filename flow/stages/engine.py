"""The stages of one pipeline put together: what is received comes out settled."""

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import anyio

from flow.batching import Batching
from flow.clock import Clock, LoopClock
from flow.codec import Codec
from flow.errors import EndedUnexpectedly
from flow.memory import DeliveryMemory
from flow.message import Message, Origin
from flow.metrics import PipelineMetrics
from flow.outcome import Decision, Outcome
from flow.pipeline import Pipeline
from flow.stages.acknowledger import Acknowledger
from flow.stages.admission import Admission
from flow.stages.bell import Bell
from flow.stages.books import Books, Store
from flow.stages.deliverer import Deliverer
from flow.stages.drain import Drain
from flow.stages.holder import Holder
from flow.stages.loss import Loss
from flow.stages.pace import Pace
from flow.stages.parker import Park, Parker
from flow.stages.parts import Parts
from flow.stages.processor import Processor
from flow.stages.recall import Recall
from flow.stages.relief import Relief
from flow.stages.router import Router
from flow.stages.suspects import PATIENCE, Journal, Suspects
from flow.stages.threads import Threads
from flow.stages.waiting import Waiting


class Engine:
    """Processor, batchers, deliverers, acknowledger, holder and parker of one pipeline."""

    acknowledging: type[Acknowledger] = Acknowledger
    """What carries decisions out; `flow.testing` has one that takes notes."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        metrics: PipelineMetrics,
        park: Park,
        clock: Clock | None = None,
        *,
        rejectable: Callable[[str], bool] = lambda _: True,
        journal: Journal | None = None,
        store: Store | None = None,
    ) -> None:
        """Take *park*, which returns once a copy of a hopeless message is safe in the park.

        A queue that is not *rejectable* may drop what is rejected: it is held and tried again here instead.
        The *journal* guards against messages that kill the process. What is decided is written into the
        *store* before the broker is told; without one only this process knows it.
        """
        clock = clock or LoopClock()
        self.pipeline = pipeline
        self.metrics = metrics
        self.memory = DeliveryMemory()
        self.origins: Sequence[Origin] = ()
        """The consumers of the present session; empty while there is none."""
        self._draining = False
        self._quiet = Bell()
        self._over = anyio.Event()
        self._holder = Holder(
            clock, pipeline.retry_delay, again=self._again, reject=self._reject, early=self._early
        )
        self._rejectable = rejectable
        self._suspects = Suspects(journal, min(PATIENCE, pipeline.handler_timeout / 2))
        self.acknowledger = self.acknowledging(
            pipeline,
            metrics,
            clock,
            park=self._park,
            hold=self._holder.hold,
            keep=self._holder.keep,
            rejectable=rejectable,
            ended=self._suspects.ended,
        )
        self._parker = Parker(park, self.acknowledger.settle, clock, loop=pipeline.park == "loop")
        self._pace = Pace(pipeline.rate_limit, metrics, clock)
        self._admission = Admission(self._pace, clock)
        batchings = pipeline.batchings()
        slots = pipeline.concurrency + sum(one.concurrency for one in batchings.values())
        self._threads = Threads(slots, pipeline.name) if pipeline.blocking else None
        self.deliverers = {name: self._deliverer(name, one, clock) for name, one in batchings.items()}
        self._relief = Relief(self.deliverers, clock.now)
        recall = Recall(self.memory, self.acknowledger)
        self.books = None if store is None else self._books(store, recall, clock)
        self._admission.claimant = None if self.books is None else self.books.claimant
        self._processor = self._handlers(recall, clock)
        self._parts = self._together()
        self._waiting = Waiting(self._parts, clock.now, metrics.circuit_open)
        self._drain = Drain(self._parts, self._quiet)
        self._loss = Loss(self._parts, self.memory, metrics)

    @property
    def running(self) -> int:
        """How many callbacks run now."""
        return self._parts.running

    @property
    def unfinished(self) -> int:
        """How many received messages nothing has become of yet."""
        return sum(account.open for account in self.metrics.accounts.values())

    def buffered(self) -> dict[str, int]:
        """Return how many messages wait before each stage."""
        return self._waiting.buffered()

    def down(self) -> dict[str, float]:
        """Return the queues whose work waits for a target that is down, and for how many seconds."""
        return self._waiting.down()

    def waited(self, queue: str) -> float:
        """Return for how many seconds the oldest message of *queue* waits; 0.0 when none does."""
        return self._waiting.longest(queue)

    def give_back(self, queue: str) -> None:
        """Give back all messages of *queue* that wait for something."""
        self._processor.reception.give_back(queue)
        if self.books is not None:
            self.books.give_back(queue)
        waiting = [message for one in self.deliverers.values() for message in one.batcher.clear(queue)]
        for message in [*waiting, *self._holder.release(queue)]:
            self.acknowledger.give_back(message)

    def leave(self, queue: str) -> None:
        """Wait no more for the target of *queue*, which is consumed no more: what waits for it goes back."""
        if queue in self.down():
            self.give_back(queue)
        self._waiting.forget(queue)

    def stuck(self) -> str | None:
        """Return why nothing will ever be started again, or None."""
        if self._threads is not None and self._threads.exhausted:
            return f"every thread of {self.pipeline.name} hangs in a callback that was given up"
        return None

    def receive(self, messages: list[Message[Any]]) -> None:
        """Take over what the broker delivered; called from its callbacks, never raises."""
        metrics = self.metrics
        for queue, count in Counter([message.origin.queue for message in messages]).items():
            metrics.accounts[queue].received += count
        for message in messages:
            if message.redelivered:
                metrics.redelivered[message.origin.queue] += 1
        receive = self._processor.reception.receive if self.books is None else self.books.receive
        receive(messages)

    def closed(self, origin: Origin) -> None:
        """Take note that the broker knows of all that was settled of *origin*, which has ended."""
        if self.books is not None:
            self.books.commit.arrived(origin)

    def lost(
        self,
        outstanding: Sequence[Message[Any]],
        unconfirmed: Sequence[Message[Any]],
        origin: Origin | None = None,
    ) -> None:
        """Take note that a session or its *origin* ended: what was finished or runs is remembered.

        The rest comes again. *outstanding* are its unsettled deliveries, *unconfirmed* those that were
        settled although the broker may not know.
        """
        self._loss.take(outstanding, unconfirmed, origin)

    async def run(self) -> None:
        """Work until `drain` has ended; a stage that ends otherwise raises `EndedUnexpectedly`."""
        async with anyio.create_task_group() as tasks:
            for handler in self._processor.marks:
                tasks.start_soon(self._processor.work, handler)
            for deliverer in self.deliverers.values():
                for slot in deliverer.marks:
                    tasks.start_soon(deliverer.work, slot)
            tasks.start_soon(self._processor.sort)
            tasks.start_soon(self._suspects.run)
            if self.books is not None:
                self.books.start(tasks)
            for _ in range(Parker.CONCURRENCY):
                tasks.start_soon(self._parker.run, self._quiet.ring_all)
            await self._over.wait()
            tasks.cancel_scope.cancel()
        if not self._over.is_set():  # a stranger cancelled a task, which ends its group without a word
            raise EndedUnexpectedly(f"a stage of {self.pipeline.name} was cancelled from outside")

    async def drain(self, timeout: float) -> int:
        """Finish what was received in *timeout* seconds; return how many callbacks had to be cancelled."""
        self._draining = True
        hung = await self._drain.run(timeout)
        if self._threads is not None:
            self._threads.close()
        self._over.set()
        return hung

    def _together(self) -> Parts:
        return Parts(
            processor=self._processor,
            deliverers=self.deliverers,
            holder=self._holder,
            parker=self._parker,
            pace=self._pace,
            acknowledger=self.acknowledger,
            suspects=self._suspects,
            books=self.books,
        )

    def _handlers(self, recall: Recall, clock: Clock) -> Processor:
        pipeline, forward = self.pipeline, None
        handle = self._callback(pipeline.handle_message)
        if self.deliverers:
            forward = Router(pipeline, self.deliverers).forward
        elif self._admission.claimant is not None:
            handle = self._admission.claimant.handling(handle)
        return Processor(
            pipeline,
            Codec(pipeline.message_types(), max_size=pipeline.max_body),
            recall,
            self._suspects,
            self.acknowledger,
            self._admission,
            self.metrics,
            clock,
            handle=handle,
            forward=forward,
            idle=self._idle,
        )

    def _deliverer(self, name: str, options: Batching, clock: Clock) -> Deliverer:
        return Deliverer(
            name,
            options,
            self.pipeline,
            self.acknowledger,
            self._admission,
            self.metrics,
            clock,
            handle=self._callback(self.pipeline.handle_batch),
            idle=self._idle,
            apart=self.pipeline.shared(),
        )

    def _books(self, store: Store, recall: Recall, clock: Clock) -> Books:
        return Books(
            store,
            self.pipeline,
            self.metrics,
            clock,
            self.acknowledger,
            self._pace,
            recall,
            receive=lambda messages: self._processor.reception.receive(messages),
            deliverers=list(self.deliverers.values()),
            quiet=self._quiet,
        )

    def _callback(self, callback: Callable[..., Any]) -> Callable[..., Any]:
        """Return *callback*, or what runs it in a thread."""
        return callback if self._threads is None else partial(self._threads.run, callback)

    def _idle(self, slot: Deliverer | None = None) -> bool:
        """Do what is due when a worker or a *slot* has nothing to do; tell whether the slot has now."""
        self._suspects.discard_stale()  # a callback that went on without its session may have ended
        if self._draining:
            self._quiet.ring_all()
        reception = self._processor.reception
        waiting = reception.queues() if reception else set()
        if self.books is not None:
            waiting |= self.books.inquiry.queues()
        return self._relief.give([one for one in self.origins if one.queue not in waiting], slot)

    def _again(self, message: Message[Any]) -> None:
        self._processor.reception.receive([message])

    def _park(self, message: Message[Any], decision: Decision) -> None:
        self._parker.put(message, decision)

    def _reject(self, message: Message[Any]) -> None:
        if self._rejectable(message.queue):
            self.acknowledger.settle(message, message.decision or Decision(Outcome.RETRYING))
        else:
            self.acknowledger.give_back(message)

    def _early(self) -> None:
        self.metrics.retry_early += 1
