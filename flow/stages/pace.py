"""When the delivering callback of a pipeline may be called: its rate limit, and the state of its ledger."""

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
        self.limited = options is not None
        self._limiter = None if options is None else RateLimiter(options)
        self._metrics = metrics
        self._clock = clock
        self._waiting: set[anyio.Event] = set()
        self._stopped = False
        self._resumed: anyio.Event | None = None

    @property
    def halted(self) -> bool:
        """Whether nothing may start now."""
        return self._resumed is not None

    async def wait(self, first: Message[Any], count: int) -> bool:
        """Wait until *count* messages may be delivered, *first* among them; tell whether they still may be.

        Raises what the user's `key` raises.
        """
        while self._resumed is not None and not self._stopped:
            await self._resumed.wait()
        if self._limiter is None:
            return not self._stopped
        while not self._stopped and (delay := self._limiter.delay(first, count, self._clock.now())) > 0:
            self._metrics.rate_limit_wait_seconds_total += delay
            over = anyio.Event()
            self._waiting.add(over)
            timer = self._clock.call_at(self._clock.now() + delay, over.set)
            try:
                await over.wait()
            finally:
                self._waiting.discard(over)
                timer.cancel()
        return not self._stopped

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
        for over in self._waiting:
            over.set()
