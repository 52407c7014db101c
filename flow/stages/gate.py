"""When the delivering callback may be called: the breaker of its target, and its rate limit."""

import logging
from collections.abc import Callable
from typing import Any

import anyio

from flow.breaker import Breaker
from flow.clock import Clock, Timer
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.outcome import Unavailable, Verdict
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimiter
from flow.retries import describe

log = logging.getLogger("flow")


class Gate:
    """Holds back calls while the target does not work, and paces them while it does."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        name: str,
        slots: int,
        metrics: PipelineMetrics,
        clock: Clock,
        wake: Callable[[], None],
    ) -> None:
        """Take the number of *slots* that call, and *wake*, which lets them look again."""
        self.breaker = Breaker(slots)
        self._target = pipeline.name if name == "default" else f"{pipeline.name} {name}"
        self._limiter = None if pipeline.rate_limit is None else RateLimiter(pipeline.rate_limit)
        self._clock = clock
        self._wake = wake
        self._metrics = metrics
        self._timer: Timer | None = None
        self._pacing: set[anyio.Event] = set()
        self._stopped = False

    def shut(self) -> bool:
        """Tell whether no call may start now; once one may, the slots are woken."""
        breaker = self.breaker
        if breaker.closed or breaker.may_start(self._clock.now()):
            return False
        if breaker.single and self._timer is None:
            self._timer = self._clock.call_at(breaker.retry_at, self._probe)
        return True

    async def pace(self, first: Message[Any], count: int) -> bool:
        """Wait until the rate limit lets *count* messages through; tell whether the call may start then.

        It may not when the target went down meanwhile, or nothing is started any more. Raises what the
        user's `key` raises.
        """
        if self._limiter is None:
            return True
        while not self._stopped and (delay := self._limiter.delay(first, count, self._clock.now())) > 0:
            self._metrics.rate_limit_wait_seconds_total += delay
            over = anyio.Event()
            self._pacing.add(over)
            timer = self._clock.call_at(self._clock.now() + delay, over.set)
            try:
                await over.wait()
            finally:
                self._pacing.discard(over)
                timer.cancel()
        return not (self._stopped or self.shut())

    def ended(self, epoch: int, error: Exception | None) -> bool:
        """Take note of how a call ended; True: the target is down and the messages are kept.

        A verdict other than `Unavailable` is an answer of a target that works.
        """
        breaker, working = self.breaker, self.breaker.closed
        if isinstance(error, Unavailable):
            breaker.open(error.reason, error.after, self._clock.now())
            down = True
        elif error is None or isinstance(error, Verdict):
            breaker.succeeded(epoch)
            down = False
        else:
            down = breaker.failed(epoch, describe(error), self._clock.now())
        if working and down:
            wait = breaker.retry_at - self._clock.now()
            log.warning(
                "%s: the target is down, trying again in %.1f s: %s", self._target, wait, breaker.reason
            )
        elif breaker.closed and not working:
            log.warning("%s: the target works again", self._target)
        if not working:
            self._wake()
        return down

    def stop(self) -> None:
        """Let no call start any more; who waits for the rate limit is told at once."""
        self._stopped = True
        if self._timer is not None:
            self._timer.cancel()
        for over in self._pacing:
            over.set()

    def _probe(self) -> None:
        self._timer = None
        self._wake()
