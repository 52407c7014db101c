"""Relieves starvation: everything the broker grants sits in open batches while a delivery slot is free."""

import math
from collections.abc import Callable, Mapping, Sequence

from flow.message import Origin
from flow.stages.deliverer import Deliverer

EARLY = 0.75  # of a window that was full a short while ago
SHORT_WHILE = 1.0  # seconds


class Relief:
    """Lets the largest batches go until half of the window is released.

    One at a time would be bound by round trips. A window that was full a short while ago counts as full from
    three quarters on: what is released then travels beside what comes.
    """

    def __init__(self, deliverers: Mapping[str, Deliverer], now: Callable[[], float]) -> None:
        """Look after the batches of *deliverers*."""
        self._deliverers = deliverers
        self._now = now
        self._early_until: dict[str, float] = {}  # by queue

    def give(self, origins: Sequence[Origin], slot: Deliverer | None) -> bool:
        """Let batches go where a window is full and no message of it waits for a worker.

        Returns whether *slot*, which asks because it has nothing to do, has something now.
        """
        served = False
        for origin in origins:
            if origin.outstanding < origin.prefetch and not self._early(origin):
                continue
            for deliverer in self._deliverers.values():
                # A slot that asks has found nothing to take; what another one may take, it has been rung for.
                looks = deliverer is slot or (deliverer.free and not deliverer.batcher.ready)
                if looks and not deliverer.shut(origin.queue):
                    released = deliverer.starve(origin.queue, math.ceil(origin.prefetch / 2))
                    if released:
                        self._early_until[origin.queue] = self._now() + SHORT_WHILE
                    served = served or (released and deliverer is slot)
        return served

    def _early(self, origin: Origin) -> bool:
        """Tell whether the window of *origin*, not full now, is as good as full."""
        until = self._early_until.get(origin.queue)
        if until is None or origin.outstanding < origin.prefetch * EARLY:
            return False
        return self._now() < until
