"""The way to the delivering callback: what must not happen twice is claimed, then the rate limit is kept."""

import math
from collections.abc import Callable
from typing import Any

from flow.batch import Batch
from flow.claim import MARGIN
from flow.clock import Clock
from flow.errors import LedgerError
from flow.message import Message, State
from flow.stages.claimant import Claimant
from flow.stages.elsewhere import Later
from flow.stages.pace import Pace

FRESH = MARGIN / 2  # seconds; a call that began later would end too close to the end of its claims


class Admission:
    """Says what may be delivered now; one for the whole pipeline.

    Claims come first and tokens last, for exactly what is delivered then: looking at claims costs none, and
    whatever happens during a wait is known when they are taken.
    """

    def __init__(self, pace: Pace, clock: Clock) -> None:
        """Keep to *pace*."""
        self.pace = pace
        self.claimant: Claimant | None = None
        """What claims messages, if the pipeline has a claim."""
        self._now = clock.now

    @property
    def needed(self) -> bool:
        """Whether anything is claimed or limited."""
        return self.claimant is not None or self.pace.limiter is not None

    async def batch(self, batch: Batch[Any], shut: Callable[[], bool], later: Later) -> bool:
        """Claim *batch*, for which there were tokens when it was taken; tell whether it may be delivered.

        What may not, or not now, leaves it: what is held elsewhere is given to *later*. *shut* tells that the
        target is down. Raises what the user's `RateLimit.key` raises.
        """
        if self.claimant is not None:
            with self.pace.reserved(batch[0], len(batch)):
                try:
                    await self.claimant.admit(batch, later)
                except LedgerError:
                    return False
            batch.messages[:] = [message for message in batch.messages if message.state is State.BATCHED]
        if not batch.messages or shut():
            return False
        return self.pace.passes(batch[0], len(batch))

    async def message(self, message: Message[Any], shut: Callable[[], bool], later: Later) -> bool:
        """Wait until *message* may be delivered alone; tell whether it may still be.

        What is held elsewhere is given to *later*, and *shut* tells that the target is down.

        Raises what decides it instead: a verdict, or what the user's keys raise.
        """
        if not self.needed and self.pace.startable():
            return True

        claim_at = -math.inf
        async with self.pace.place() as place:
            while await self.pace.resumed():
                if self.claimant is not None and self._now() >= claim_at:
                    claim_at = self._now() + FRESH
                    try:
                        await self.claimant.claim(message, later)
                    except LedgerError:
                        return False
                if message.state is not State.RUNNING or shut():
                    return False
                if await place.passes(message, 1):
                    return True
        return False
