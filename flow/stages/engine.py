"""The stages of one pipeline put together: what is received comes out settled."""

import math
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import anyio

from flow.batching import Batching
from flow.clock import Clock, LoopClock
from flow.codec import Codec
from flow.errors import ConfigError
from flow.memory import DeliveryMemory
from flow.message import Message, Origin, State
from flow.metrics import PipelineMetrics
from flow.outcome import Decision, Outcome
from flow.pipeline import Pipeline
from flow.stages.acknowledger import Acknowledger
from flow.stages.bell import Bell
from flow.stages.deliverer import Deliverer
from flow.stages.holder import Holder
from flow.stages.parker import Park, Parker
from flow.stages.processor import Processor


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
        rejectable: bool = True,
    ) -> None:
        """Take *park*, which returns once a copy of a hopeless message is safe in the park.

        Without *rejectable* the queue may drop what is rejected: it is held and tried again here instead.
        """
        clock = clock or LoopClock()
        self.pipeline = pipeline
        self.metrics = metrics
        self.memory = DeliveryMemory()
        self.origins: Sequence[Origin] = ()
        """The consumers of the present session; empty while there is none."""
        self._now = clock.now
        self._batchings = pipeline.batchings()
        self._draining = False
        self._quiet = Bell()
        self._over = anyio.Event()
        self._holder = Holder(
            clock, pipeline.retry_delay, again=self._again, reject=self._reject, early=self._early
        )
        self._rejectable = rejectable
        self.acknowledger = self.acknowledging(
            pipeline,
            metrics,
            clock,
            park=self._park,
            hold=self._holder.hold,
            keep=None if rejectable else self._holder.keep,
        )
        self._parker = Parker(park, self.acknowledger.settle, clock, loop=pipeline.park == "loop")
        self._processor = Processor(
            pipeline,
            Codec(pipeline.message_types(), max_size=pipeline.max_body),
            self.memory,
            self.acknowledger,
            metrics,
            clock,
            forward=self._forward if self._batchings else None,
            idle=self._idle,
        )
        self.deliverers = {
            name: Deliverer(name, options, pipeline, self.acknowledger, metrics, clock, idle=self._idle)
            for name, options in self._batchings.items()
        }
        chooses = type(pipeline).batcher is not Pipeline.batcher
        self._only = None if chooses else next(iter(self.deliverers.values()), None)
        self._keyed = type(pipeline).batch_key is not Pipeline.batch_key

    @property
    def running(self) -> int:
        """How many callbacks run now."""
        return self._processor.running + sum(one.running for one in self.deliverers.values())

    @property
    def unfinished(self) -> int:
        """How many received messages nothing has become of yet."""
        return sum(account.open for account in self.metrics.accounts.values())

    def buffered(self) -> dict[str, int]:
        """Return how many messages wait before each stage."""
        waiting = {
            "processor": len(self._processor.inbox),
            "held": self._holder.held,
            "parker": self._parker.open,
        }
        for name, deliverer in self.deliverers.items():
            waiting[f"batcher {name}"] = deliverer.batcher.waiting
        return waiting

    def oldest(self) -> float:
        """Return the age in seconds of the oldest message that waits, 0.0 when none does."""
        times = [one.batcher.oldest() for one in self.deliverers.values()]
        if self._processor.inbox:
            times.append(self._processor.inbox[0].received_at)
        return self._now() - min((time for time in times if time is not None), default=self._now())

    def receive(self, messages: list[Message[Any]]) -> None:
        """Take over what the broker delivered; called from its callbacks, never raises."""
        metrics = self.metrics
        for queue, count in Counter([message.origin.queue for message in messages]).items():
            metrics.accounts[queue].received += count
        for message in messages:
            if message.redelivered:
                metrics.redelivered[message.origin.queue] += 1
        self._processor.receive(messages)

    def lost(self, outstanding: Sequence[Message[Any]], unconfirmed: Sequence[Message[Any]]) -> None:
        """Take note that a session ended: what was finished or runs is remembered, the rest comes again.

        *outstanding* are its unsettled deliveries, *unconfirmed* those that were settled although the broker
        may not know.
        """
        self.origins = ()
        for message in unconfirmed:
            if message.decision is not None:
                self.memory.remember(message)
        for message in outstanding:
            self.metrics.accounts[message.queue].stale += 1
            if message.state is State.HELD:
                self._holder.let_go(message)
                message.state = State.DECIDED
            if message.state in (State.RUNNING, State.DECIDED):
                self.memory.remember(message)
            else:
                message.state = State.STALE
        for deliverer in self.deliverers.values():
            deliverer.batcher.discard_stale()
        self._processor.discard_stale()

    async def run(self) -> None:
        """Work until `drain` has ended."""
        async with anyio.create_task_group() as tasks:
            for handler in self._processor.marks:
                tasks.start_soon(self._processor.work, handler)
            for deliverer in self.deliverers.values():
                for slot in deliverer.marks:
                    tasks.start_soon(deliverer.work, slot)
            for _ in range(Parker.CONCURRENCY):
                tasks.start_soon(self._parker.run, self._quiet.ring_all)
            await self._over.wait()
            tasks.cancel_scope.cancel()

    async def drain(self, timeout: float) -> int:
        """Finish what was received within *timeout* seconds; return how many callbacks had to be cancelled.

        Handlers are started until half of the time, batches until three quarters; what was not started then
        goes back to the queue. Shortly before the end what still runs is cancelled and goes back too.
        """
        self._draining = True
        start = anyio.current_time()
        stop = timeout - min(2.0, timeout / 5)
        self._holder.drain()
        with anyio.move_on_at(start + timeout / 2):
            await self._until(self._handled)
        self._processor.close()
        for deliverer in self.deliverers.values():
            deliverer.flush()
        with anyio.move_on_at(start + min(timeout * 3 / 4, stop)):
            await self._until(lambda: not self._busy())
        for deliverer in self.deliverers.values():
            deliverer.close()
        with anyio.move_on_at(start + stop):
            await self._until(lambda: not self._busy())
        return self._end()

    async def _until(self, reached: Any) -> None:
        while not reached():
            await self._quiet.wait()

    def _handled(self) -> bool:
        """Whether no handler runs, and none will: what waits for a target that is down goes back at once."""
        gate = self._processor.gate
        down = gate is not None and gate.breaker.single
        return not self._processor.running and (down or not self._processor.inbox)

    def _busy(self) -> bool:
        waiting = any(one.batcher.waiting and not one.gate.breaker.single for one in self.deliverers.values())
        return bool(self.running or waiting or self._parker.open)

    def _end(self) -> int:
        hung = self.running
        cancelled = self._processor.cancel()
        for deliverer in self.deliverers.values():
            cancelled += deliverer.cancel()
        for message in [*cancelled, *self._parker.clear()]:
            self.acknowledger.give_back(message)
        self._holder.drain()
        self._over.set()
        return hung

    def _forward(self, message: Message[Any], body: Any) -> None:
        """Put a handled message into the open batch of its key."""
        pipeline = self.pipeline
        if body is None:
            name = type(pipeline).__name__
            raise ConfigError(
                f"{name}.handle_message returned None; return what the batch needs or raise Skip"
            )
        message.body = body
        deliverer = self._only or self._route(message)
        key: Hashable = pipeline.batch_key(message) if self._keyed else None
        weight = 0 if deliverer.options.weight is None else weighed(deliverer.options, message)
        if not message.origin.alive:
            hash(key)  # nothing may fail once another delivery took its place
            living = message.living()
            if living is None:
                return  # its redelivery is handled again
            message = living
        if (message.held or b"x-death" in message.header) and pipeline.retries.isolated(message.attempt):
            deliverer.put_alone(message, key)
        else:
            deliverer.put(message, key, self._now(), weight)

    def _route(self, message: Message[Any]) -> Deliverer:
        name = self.pipeline.batcher(message)
        if name not in self.deliverers:
            known = ", ".join(self.deliverers)
            raise ConfigError(f"{type(self.pipeline).__name__}.batcher returned {name!r}; known are {known}")
        return self.deliverers[name]

    def _idle(self, slot: Deliverer | None = None) -> bool:
        """Relieve starvation: everything the broker grants sits in open batches while a slot is free.

        The largest batches go until half of the window is released: one at a time would be bound by round
        trips. Returns whether *slot* has something to do now.
        """
        if self._draining:
            self._quiet.ring_all()
        served = False
        if self._processor.inbox:
            return False
        for origin in self.origins:
            if origin.outstanding < origin.prefetch:
                continue
            for deliverer in self.deliverers.values():
                # A slot that asks has found nothing to take; what another one may take, it has been rung for.
                looks = not deliverer.gate.shut() if deliverer is slot else deliverer.free
                if looks and (deliverer is slot or not deliverer.batcher.ready):
                    released = deliverer.starve(origin.queue, math.ceil(origin.prefetch / 2))
                    served = served or (released and deliverer is slot)
        return served

    def _again(self, message: Message[Any]) -> None:
        self._processor.again(message)

    def _park(self, message: Message[Any], decision: Decision) -> None:
        self._parker.put(message, decision)

    def _reject(self, message: Message[Any]) -> None:
        if self._rejectable:
            self.acknowledger.settle(message, message.decision or Decision(Outcome.RETRYING))
        else:
            self.acknowledger.give_back(message)

    def _early(self) -> None:
        self.metrics.retry_early += 1


def weighed(options: Batching, message: Message[Any]) -> int:
    """Return what *message* weighs.

    Raises:
        ConfigError: the user's function returned something that cannot be added up.
    """
    weight: object = options.weight(message) if options.weight is not None else 0
    if not isinstance(weight, int) or weight < 0:
        raise ConfigError(f"Batching.weight must return a whole number from 0, got {type(weight).__name__}")
    return weight
