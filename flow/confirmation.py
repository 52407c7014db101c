"""Learns that the broker knows what it was told: from then on the ledger answers no redelivery with it."""

from contextlib import suppress

import anyio
import anyio.lowlevel

from flow.broker.session import Session
from flow.errors import ConfigError, ConnectionLost
from flow.stages.commit import GroupCommit

INTERVAL = 1.0  # seconds between two questions
LAST = 1.0  # seconds for the last one, and as many to write the answer down


class Confirmation:
    """Asks the broker something on each channel that was told something.

    The answer tells that it has processed all that was written before; acknowledgements have none.
    """

    def __init__(self, commit: GroupCommit, session: Session) -> None:
        """Confirm what *commit* has written and *session* has told."""
        self._commit = commit
        self._session = session

    async def run(self) -> None:
        """Ask again and again until cancelled, while the session lasts."""
        while True:
            await anyio.sleep(INTERVAL)
            await self._ask()

    async def finish(self) -> None:
        """Ask once more, close what is consumed no more, and write the answers down, in bounded time."""
        if self._commit.fault is None:
            with anyio.move_on_after(LAST):
                await self._ask()
            for origin in await self._session.close_retired():
                self._commit.arrived(origin)
            with anyio.move_on_after(LAST):
                await self._commit.flush()

    async def _ask(self) -> None:
        """Ask about what is consumed; of the rest the broker tells when it has closed it."""
        consumed = {line.consumer for line in self._session.lines.values()}
        for origin, told in self._commit.unconfirmed().items():
            if origin not in consumed:
                continue
            # What is told in this turn of the loop is written at its end.
            await anyio.lowlevel.checkpoint()
            with suppress(ConfigError, ConnectionLost):
                await self._session.ready(origin.queue)
                self._commit.arrived(origin, told)
