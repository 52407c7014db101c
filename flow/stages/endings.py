"""Claims that end before their time, noted in bulk; what could not be noted is noted the next time."""

from collections.abc import Awaitable, Callable

import anyio

from flow.claim import Claims
from flow.stages.commit import GroupCommit


class Endings:
    """What one worker lets go of."""

    def __init__(self, pipeline: str, holder: str, claims: Claims, commit: GroupCommit) -> None:
        self.free: list[str] = []
        """Keys whose effects have not happened."""
        self.doubtful: list[str] = []
        """Keys of which that is not known."""
        self._pipeline = pipeline
        self._holder = holder
        self._claims = claims
        self._commit = commit
        self._flushing = anyio.Lock()

    async def flush(self) -> None:
        """Note them all.

        Raises:
            LedgerError: they cannot be noted now.
        """
        async with self._flushing:  # else what is under way could let go of what is claimed after it
            await self._end(self.doubtful, self._claims.doubt)
            await self._end(self.free, self._claims.free)

    async def _end(self, keys: list[str], end: Callable[[str, list[str], str], Awaitable[None]]) -> None:
        some = list(keys)
        if some:
            await self._commit.once(lambda: end(self._pipeline, some, self._holder))
            del keys[: len(some)]  # more may have come
