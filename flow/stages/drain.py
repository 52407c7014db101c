"""The end of a pipeline's work: what was received is finished, or goes back, within a deadline."""

from collections.abc import Callable
from contextlib import suppress

import anyio

from flow.errors import LedgerError
from flow.stages.bell import Bell
from flow.stages.parts import Parts

RESERVE = 2.0  # seconds before the deadline, at which what still runs is cancelled


class Drain:
    """Finishes what was received, in phases.

    Handlers are started until half of the time, batches until three quarters; what was not started then goes
    back to the queue. Shortly before the end what still runs is cancelled and goes back too.
    """

    def __init__(self, parts: Parts, quiet: Bell) -> None:
        """Take the stages, and the bell that rings whenever something may have come to its end."""
        self._parts = parts
        self._quiet = quiet

    async def run(self, timeout: float) -> int:
        """Finish within *timeout* seconds; return how many callbacks had to be cancelled."""
        start = anyio.current_time()
        reserve = min(RESERVE, timeout / 5)
        stop = timeout - reserve
        self._parts.holder.drain()
        with anyio.move_on_at(start + timeout / 2):
            await self._until(self._handled)
        if self._parts.books is not None:
            self._parts.books.close()
        self._parts.processor.close()
        if not self._parts.deliverers:
            self._parts.pace.stop()
        for deliverer in self._parts.deliverers.values():
            deliverer.flush()
        with anyio.move_on_at(start + min(timeout * 3 / 4, stop)):
            await self._until(lambda: not self._busy())
        self._parts.pace.stop()
        for deliverer in self._parts.deliverers.values():
            deliverer.close()
        with anyio.move_on_at(start + stop):
            await self._until(lambda: not self._busy())
        return await self._end(reserve / 2)

    async def _until(self, reached: Callable[[], bool]) -> None:
        while not reached():
            await self._quiet.wait()

    def _handled(self) -> bool:
        """Whether no handler runs, and none will: what waits for a target that is down goes back at once."""
        asked = self._parts.books is not None and self._parts.books.inquiry.startable
        return not asked and not self._parts.processor.running and not self._parts.processor.startable

    def _busy(self) -> bool:
        waiting = any(one.startable for one in self._parts.deliverers.values())
        written = self._parts.books is None or not self._parts.books.commit.open
        return bool(self._parts.running or waiting or self._parts.parker.open) or not written

    async def _end(self, seconds: float) -> int:
        hung = self._parts.running
        cancelled = self._parts.processor.cancel()
        for deliverer in self._parts.deliverers.values():
            cancelled += deliverer.cancel()
        for message in [*cancelled, *self._parts.parker.clear()]:
            self._parts.acknowledger.give_back(message)
        self._parts.holder.drain()
        if self._parts.books is not None:
            await self._parts.books.end(seconds)
            self._parts.holder.drain()  # what was written last may have been held
        with anyio.move_on_after(seconds), suppress(LedgerError, OSError):
            await self._parts.suspects.flush()
        return hung
