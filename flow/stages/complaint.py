"""Says now and then that messages are tried again because the user's code asked for it."""

import logging
import math
from collections.abc import Sequence

from flow.clock import Clock
from flow.outcome import Decision, Outcome

log = logging.getLogger("flow")

QUIET = 60.0  # seconds between two such lines: a target that answers badly does so to every call


class Complaint:
    """Says what nobody else does: a verdict is no error, and it can take hours until a message is parked."""

    def __init__(self, pipeline: str, clock: Clock) -> None:
        self._pipeline = pipeline
        self._now = clock.now
        self._told_at = -math.inf
        self._untold = 0

    def hear(self, decisions: Sequence[Decision]) -> None:
        """Count those of *decisions* that mean another attempt, and say how many came since the last line."""
        retried = [one for one in decisions if one.outcome is Outcome.RETRYING]
        self._untold += len(retried)
        if not retried or self._now() - self._told_at < QUIET:
            return
        which = "1 message is" if self._untold == 1 else f"{self._untold} messages are"
        log.warning("%s: %s tried again: %s", self._pipeline, which, retried[-1].reason)
        self._told_at, self._untold = self._now(), 0
