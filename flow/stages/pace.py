"""Waits for the rate limit of a pipeline before its delivering callback."""

from typing import Any

import anyio

from flow.clock import Clock
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.ratelimit import RateLimit, RateLimiter


class Pace:
    """Lets deliveries start no faster than the rate limit says; one for the whole pipeline."""

    def __init__(self, options: RateLimit | None, metrics: PipelineMetrics, clock: Clock) -> None:
        """Take the limit; None: nothing waits."""
        self.limited = options is not None
        self._limiter = None if options is None else RateLimiter(options)
        self._metrics = metrics
        self._clock = clock
        self._waiting: set[anyio.Event] = set()
        self._stopped = False

    async def wait(self, first: Message[Any], count: int) -> bool:
        """Wait until *count* messages may be delivered, *first* among them; tell whether they still may be.

        Raises what the user's `key` raises.
        """
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

    def stop(self) -> None:
        """Let nothing start any more; who waits is told at once."""
        self._stopped = True
        for over in self._waiting:
            over.set()
