"""When the delivering callback of a pipeline may be called: its rate limit, and the state of its ledger."""

from collections import deque
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

import anyio

from flow.clock import Clock
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.ratelimit import RateLimit, RateLimiter


class Pace:
    """Lets deliveries start no faster than the rate limit says; one for the whole pipeline.

    While it is halted none starts: what became of them could not be noted.
    """

    def __init__(self, options: RateLimit | None, metrics: PipelineMetrics, clock: Clock) -> None:
        """Take the limit; None: nothing waits."""
        self.limiter = None if options is None else RateLimiter(options)
        self.lines: dict[Hashable, deque[anyio.Event]] = {}
        """Who waits for each limit, in order of coming; those that are not empty."""
        self.looks: list[Callable[[], None]] = []
        """What lets those look again who have passed over a batch because of its limit."""
        self._metrics = metrics
        self._clock = clock
        self._sleeping: set[anyio.Event] = set()
        self._stopped = False
        self._resumed: anyio.Event | None = None

    @property
    def halted(self) -> bool:
        """Whether nothing may start now."""
        return self._resumed is not None

    async def resumed(self) -> bool:
        """Wait while nothing may start; tell whether anything will."""
        while self._resumed is not None and not self._stopped:
            await self._resumed.wait()
        return not self._stopped

    def place(self) -> "Place":
        """Return a place before the limit, for one call that waits for it."""
        return Place(self, self._metrics, self._clock)

    @contextmanager
    def reserved(self, first: Message[Any], count: int) -> Iterator[None]:
        """Set aside, within the block, what a call with *count* messages costs, *first* among them.

        Raises what the user's `key` raises.
        """
        if self.limiter is None:
            yield
            return
        key = self.limiter.key(first)
        self.limiter.reserve(key, count, self._clock.now())
        try:
            yield
        finally:
            self.limiter.release(key, count)
            self.wake()

    def passes(self, first: Message[Any], count: int) -> bool:
        """Take what such a call costs and return True, all at once; False: that is too early.

        Raises what the user's `key` raises.
        """
        if not self.startable():
            return False
        if self.limiter is None:
            return True
        passes = self.limiter.delay(self.limiter.key(first), count, self._clock.now()) <= 0
        self.wake()
        return passes

    async def sleep(self, seconds: float) -> None:
        """Wait for *seconds*, or until `wake`."""
        over = anyio.Event()
        self._sleeping.add(over)
        timer = self._clock.call_at(self._clock.now() + seconds, over.set)
        try:
            await over.wait()
        finally:
            self._sleeping.discard(over)
            timer.cancel()

    def halt(self) -> None:
        """Let nothing start until `resume`."""
        if self._resumed is None:
            self._resumed = anyio.Event()

    def resume(self) -> None:
        """Let deliveries start again."""
        if self._resumed is not None:
            self._resumed.set()
            self._resumed = None

    def stop(self) -> None:
        """Let nothing start any more; who waits is told at once."""
        self._stopped = True
        if self._resumed is not None:
            self._resumed.set()
        self.wake()

    def wake(self) -> None:
        """Let who waits look whether there is still something to wait for: it holds up what comes after."""
        for over in self._sleeping:
            over.set()
        for look in self.looks:
            look()

    def startable(self) -> bool:
        """Tell whether a call may start now, as far as the ledger and a drain go."""
        return self._resumed is None and not self._stopped


class Place:
    """The place of one call before the rate limit; a context, in which it is kept.

    Who needs much is not overtaken for ever by those who need little.
    """

    def __init__(self, pace: Pace, metrics: PipelineMetrics, clock: Clock) -> None:
        self._pace = pace
        self._metrics = metrics
        self._clock = clock
        self._line: Hashable = None
        self._turn: anyio.Event | None = None  # set when nobody is before it; None: it is in no line
        self._since = 0.0

    async def __aenter__(self) -> "Place":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._turn is None:
            return
        self._metrics.rate_limit_wait_seconds_total += self._clock.now() - self._since
        line = self._pace.lines[self._line]
        line.remove(self._turn)
        if line:
            line[0].set()
        else:
            del self._pace.lines[self._line]

    async def passes(self, first: Message[Any], count: int) -> bool:
        """Take what a call with *count* messages costs, *first* among them, and return True, all at once.

        False: that is too early; it was waited, and much may have happened meanwhile. Raises what the user's
        `key` raises.
        """
        pace = self._pace
        if not pace.startable():
            return False
        if pace.limiter is None:
            return True
        key = pace.limiter.key(first)
        if self._turn is None and key in pace.lines:
            await self._join(key)
            return False
        delay = pace.limiter.delay(key, count, self._clock.now())
        if delay <= 0:
            return True
        if self._turn is None:
            await self._join(key)
        else:
            await pace.sleep(delay)
        return False

    async def _join(self, key: Hashable) -> None:
        """Wait at the end of the line of *key* until nobody is before it."""
        self._line, self._turn, self._since = key, anyio.Event(), self._clock.now()
        line = self._pace.lines.setdefault(key, deque())
        line.append(self._turn)
        line[0].set()
        await self._turn.wait()
