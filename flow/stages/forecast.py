"""Which batches have to wait for the rate limit, and until when."""

import math
from collections.abc import Callable, Hashable
from typing import Any

from flow.lane import Lane
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.ratelimit import RateLimiter
from flow.stages.guard import Guard


class Forecast:
    """What the slots of one batcher see of the rate limit when they look for a batch.

    Batches are passed over before they are taken, so that those with another limit go meanwhile. Of one limit
    none is passed over for another that needs less.
    """

    def __init__(
        self,
        limiter: RateLimiter,
        single: Callable[[str], bool],
        metrics: PipelineMetrics,
        now: Callable[[], float],
    ) -> None:
        """Take *single*, which tells of a queue whether only one message of a batch is delivered now."""
        self.due = math.inf
        """When one of those that were passed over may go; infinite: none was."""
        self._limiter = limiter
        self._single = single
        self._metrics = metrics
        self._now = now
        self._passed: set[Hashable] = set()

    def begin(self) -> None:
        """Begin a look at the batches, in order."""
        self._passed.clear()
        self.due = math.inf

    def late(self, lane: Lane, messages: list[Message[Any]]) -> bool:
        """Tell whether *messages*, which are next in *lane*, have to wait; if not, they go."""
        guard, now, wait = Guard(), self._now(), 0.0
        count = 1 if self._single(lane.queue) else len(messages)
        with guard:  # what `RateLimit.key` raises is told when they go
            key = self._limiter.key(messages[0])
            if key in self._passed:
                wait = math.inf
            else:
                wait = self._limiter.wait(key, count, now, self)
                if wait > 0:
                    self._passed.add(key)
        if wait > 0:
            self.due = min(self.due, now + wait)
            lane.late_since = now if lane.late_since is None else lane.late_since
        elif lane.late_since is not None:
            self._metrics.rate_limit_wait_seconds_total += now - lane.late_since
            lane.late_since = None
        return wait > 0
