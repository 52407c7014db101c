"""Which queues a pipeline wants, and keeping a session in line with that."""

import logging
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import anyio

from flow.broker.line import Line
from flow.broker.session import Session
from flow.errors import BrokerError, ConfigError, ConnectionLost, ConsumerCancelled, EndedUnexpectedly
from flow.pipeline import Pipeline
from flow.retries import describe
from flow.sizing import shared_prefetch
from flow.stages.engine import Engine

TICK = 1.0  # seconds between two looks
AGAIN = 30.0  # seconds until a queue that was refused is tried again, or queues that could not be listed
AT_ONCE = 20  # queues that are asked for at the same time

log = logging.getLogger("flow")


class Subscription:
    """The queues of one pipeline: one for ever, or several that change.

    One queue of several that cannot be consumed is tried again and touches no other; only a pipeline that is
    left without any has lost its session.
    """

    def __init__(self, pipeline: Pipeline[Any, Any], engine: Engine, *, longest_hold: float) -> None:
        """Give messages back that were held for *longest_hold* seconds because their target is down."""
        self.wanted: list[str] = []
        self.faults: dict[str, str] = {}
        """Why a queue that is wanted is not consumed now."""
        self._pipeline = pipeline
        self._engine = engine
        self._metrics = engine.metrics
        self._longest_hold = longest_hold
        self._single = hasattr(pipeline, "queue")
        self._session: Session | None = None
        self._again_at: dict[str, float] = {}
        self._resting: set[str] = set()  # consumed one message at a time, as a probe
        self._limiter = anyio.CapacityLimiter(AT_ONCE)
        self._changing = False  # queues are being added or consumed anew: one lost meanwhile is not the last
        self._last_lost: BrokerError | None = None  # why the last line ended while others were to come
        self._known = anyio.Event()
        self._changed = anyio.Event()

    async def follow(self) -> None:
        """Take note of what the pipeline wants, until cancelled.

        What its `queues` raises before it has named any goes on; after that it is started again.

        Raises:
            ConfigError: it ends, or yields something else, before it has named any.
        """
        while True:
            try:
                async for queues in self._lists():
                    self._want(queues)
                if not self._known.is_set():
                    name = type(self._pipeline).__name__
                    raise ConfigError(f"{name}.queues ended before it yielded a list of queues")
                return
            except Exception as error:  # the user's generator
                if not self._known.is_set():
                    raise
                name = type(self._pipeline).__name__
                log.error(
                    "%s.queues failed, the list stays: %s", name, describe(error), extra={"error": error}
                )
            await anyio.sleep(AGAIN)

    async def fill(self, session: Session) -> None:
        """Consume what is wanted in the new *session*.

        Raises:
            BrokerError: nothing of it can be consumed.
        """
        await self._known.wait()
        self._session = session
        self._again_at.clear()
        self._resting.intersection_update(self._engine.down())
        with self._change_of(session):
            errors = await self._add(session, self.wanted)
        if self.wanted and not session.lines:
            raise errors[0] if errors else session.failure or ConnectionLost("the session ended")

    async def keep(self, session: Session) -> None:
        """Keep *session* in line with what is wanted until it has failed.

        Raises:
            EndedUnexpectedly: something else ended this.
        """
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._keep, session)
            await session.failed.wait()
            tasks.cancel_scope.cancel()
        if not session.failed.is_set():
            raise EndedUnexpectedly(
                f"what keeps the session of {self._pipeline.name} was cancelled from outside"
            )
        self._session = None
        self._look()

    def lost(self, line: Line, failure: BrokerError) -> None:
        """Take note that *line* ended by itself; a queue that is wanted and not consumed is tried again."""
        session = self._session
        self._engine.lost(line.outstanding(), line.unconfirmed(), line.consumer)
        consumed = session is not None and line.queue in session.lines
        if line.queue in self.wanted and not consumed:  # else the line was retired before
            self.faults[line.queue] = str(failure)
        self._metrics.reconnects["cancelled" if isinstance(failure, ConsumerCancelled) else "lost"] += 1
        self._look()
        if session is None:
            return
        if not session.lines and not self._changing:
            session.fail(failure)
            return
        self._last_lost = failure
        log.error("%s: %s; its other queues go on", self._pipeline.name, failure)

    def oldest(self) -> float:
        """Return the age in seconds of the oldest unsettled delivery, 0.0 when there is none."""
        received_at = None if self._session is None else self._session.oldest()
        return 0.0 if received_at is None else anyio.current_time() - received_at

    @property
    def _share(self) -> int:
        """The prefetch of a queue that is consumed from now on."""
        granted = self._pipeline.granted()
        return granted if self._single else shared_prefetch(granted, len(self.wanted))

    def _lists(self) -> AsyncIterator[Sequence[str]]:
        return only(self._pipeline.queue) if self._single else self._pipeline.queues()

    def _want(self, queues: Sequence[str]) -> None:
        """Take a new list.

        Raises:
            ConfigError: it holds something that is no name of a queue.
        """
        names: list[Any] = (
            list(queues) if isinstance(queues, Iterable) and not isinstance(queues, str) else [None]
        )
        if not all(isinstance(one, str) and 0 < len(one.encode()) < 256 for one in names):
            raise ConfigError(f"{type(self._pipeline).__name__}.queues must yield lists of names of queues")
        self.wanted = list(dict.fromkeys(names))
        for queue in self.wanted:
            self._metrics.account(queue)
        self.faults = {queue: fault for queue, fault in self.faults.items() if queue in self.wanted}
        self._known.set()
        self._changed.set()

    async def _keep(self, session: Session) -> None:
        while True:
            with anyio.move_on_after(TICK):
                await self._changed.wait()
            self._changed = anyio.Event()
            # A request to stop waits for this: given up half-way, the connection would have to go, with the
            # acknowledgements that are under way. Every step is bounded.
            with anyio.CancelScope(shield=True):
                with self._change_of(session):
                    await self._change(session)
            self._look()

    @contextmanager
    def _change_of(self, session: Session) -> Iterator[None]:
        """Do not take a queue for the last one that is lost while others are about to be consumed.

        When none of these is there at the end, the session has failed after all.
        """
        self._changing = True
        try:
            yield
        finally:
            self._changing = False
            failure, self._last_lost = self._last_lost, None
        if failure is not None and self.wanted and not session.lines:
            session.fail(failure)

    async def _change(self, session: Session) -> None:
        """Do what is due in *session*; what is asked of the broker has its own limits of time."""
        for queue in [one for one in session.lines if one not in self.wanted]:
            log.info("%s consumes %s no more", self._pipeline.name, queue)
            await session.retire(queue)
            self._engine.leave(queue)
            self._resting.discard(queue)
        now = anyio.current_time()
        missing = [one for one in self.wanted if one not in session.lines]
        await self._add(session, [one for one in missing if self._again_at.get(one, now) <= now])
        await self._rest(session)
        await self._resize(session)
        for consumer in await session.close_retired():
            self._engine.closed(consumer)

    async def _add(self, session: Session, queues: Sequence[str]) -> list[BrokerError]:
        """Consume *queues*; return what was refused."""
        errors: list[BrokerError] = []
        share = self._share

        async def add(queue: str) -> None:
            try:
                prefetch = 1 if queue in self._resting else share
                async with self._limiter:
                    await session.add(queue, prefetch)
                if queue in session.lines:  # else it was lost again at once
                    self.faults.pop(queue, None)
                    log.info("%s consumes %s, %d messages at a time", self._pipeline.name, queue, prefetch)
            except BrokerError as error:
                self.faults[queue] = str(error)
                self._again_at[queue] = anyio.current_time() + AGAIN
                errors.append(error)
                if self._single:
                    session.fail(error)  # who opens the next one says why, and how long that takes
                elif not session.failed.is_set():
                    log.error("%s: %s; it is tried again in %g s", self._pipeline.name, error, AGAIN)

        async with anyio.create_task_group() as tasks:
            for queue in queues:
                tasks.start_soon(add, queue)
        self._look()
        return errors

    async def _rest(self, session: Session) -> None:
        """Give back what waits too long for a target that is down, and leave one message as the probe.

        A broker ends a channel whose messages stay unacknowledged for too long (`consumer_timeout`).
        """
        down = self._engine.down()
        for queue in [one for one, seconds in down.items() if seconds >= self._longest_hold]:
            if queue in session.lines and self._engine.waited(queue) >= self._longest_hold:
                minutes = down[queue] / 60
                log.warning(
                    "%s: the target of %s has been down for %.0f minutes: what waits goes back to the queue",
                    self._pipeline.name,
                    queue,
                    minutes,
                )
                self._resting.add(queue)
                await self._again(session, queue)
        self._resting.intersection_update(down)

    async def _resize(self, session: Session) -> None:
        """Consume anew what has less than half or more than twice its share.

        So it is with many when the list has grown or shrunk, and with one that rested.
        """
        share = self._share
        async with anyio.create_task_group() as tasks:
            for queue, line in session.lines.items():
                if queue not in self._resting and not share <= 2 * line.consumer.prefetch <= 4 * share:
                    tasks.start_soon(self._again, session, queue)

    async def _again(self, session: Session, queue: str) -> None:
        """Consume *queue* with another prefetch."""
        await session.retire(queue)
        if queue in self._resting:
            self._engine.give_back(queue)
        await self._add(session, [queue])

    def _look(self) -> None:
        """Let the engine and the metrics know what is consumed now."""
        lines = {} if self._session is None else self._session.lines
        self._engine.origins = [] if self._session is None else self._session.consumers
        self._metrics.consumer_up = {queue: queue in lines for queue in self.wanted}


async def only(queue: str) -> AsyncIterator[Sequence[str]]:
    """Yield the list of the one *queue*."""
    yield [queue]
