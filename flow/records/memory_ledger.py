"""Ledger and claims in memory: for tests, and for claims that need not outlive the process."""

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import count

from flow.claim import Hold, Standing, Unknown
from flow.ledger import Found, Row
from flow.outcome import Decision

KEPT = 10_000  # unsettled rows, more than two of the largest windows; and claims that are done


@dataclass(slots=True)
class Claimed:
    """One claim."""

    state: str
    holder: str
    until: float


class MemoryLedger:
    """A `Ledger` and the `Claims` of one process, both bounded: the oldest are forgotten first."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Take what tells the time in seconds."""
        self.rows: OrderedDict[int, Row] = OrderedDict()
        """The unsettled rows by id."""
        self._now = now
        self._ids = count(1)
        self._claims: dict[tuple[str, str], Claimed] = {}  # not done
        self._done: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def write(self, rows: Sequence[Row]) -> Sequence[int | None]:
        """Keep the unsettled ones of *rows*, and end their claims."""
        ids = []
        for row in rows:
            number = next(self._ids)
            ids.append(number)
            if row.unsettled:
                self.rows[number] = row
            if row.claim is not None:
                self._end(row.pipeline, row.claim)
        while len(self.rows) > KEPT:
            self.rows.popitem(last=False)
        return ids

    async def unsettled(self, pipeline: str, queue: str, identities: Sequence[bytes]) -> Sequence[Found]:
        """Return the unsettled rows of *pipeline* about *identities* from *queue*, the oldest first."""
        wanted = set(identities)
        return [
            Found(number, row.identity, Decision(row.outcome, row.reason, row.after))
            for number, row in self.rows.items()
            if (row.pipeline, row.queue) == (pipeline, queue) and row.identity in wanted
        ]

    async def settle(self, ids: Sequence[int]) -> None:
        """Forget the rows *ids*."""
        for number in ids:
            self.rows.pop(number, None)

    async def ready(self) -> None:
        """Be ready, as always, for rows and claims."""

    async def take(
        self, pipeline: str, keys: Collection[str], holder: str, seconds: float, unknown: Unknown
    ) -> Mapping[str, Standing]:
        """Claim *keys* for *holder*, as `Claims` says."""
        return {key: self._taken((pipeline, key), holder, seconds, unknown) for key in keys}

    async def begin(
        self, pipeline: str, key: str, holder: str, seconds: float, done: Sequence[str] = ()
    ) -> bool:
        """Note that the effect is under way, if *holder* has the claim, and that those of *done* happened."""
        for one in done:
            self._end(pipeline, one)
        claimed = self._claims.get((pipeline, key))
        if claimed is None or (claimed.state, claimed.holder) != ("claimed", holder):
            return False
        claimed.state, claimed.until = "sending", self._now() + seconds
        return True

    async def free(self, pipeline: str, keys: Sequence[str], holder: str) -> None:
        """Let go of *keys*."""
        for key in keys:
            claimed = self._claims.get((pipeline, key))
            if claimed is not None and claimed.holder == holder:
                del self._claims[pipeline, key]

    async def doubt(self, pipeline: str, keys: Sequence[str], holder: str) -> None:
        """Let go of *keys*, whose outcome is unknown."""
        for key in keys:
            claimed = self._claims.get((pipeline, key))
            if claimed is not None and claimed.holder == holder:
                claimed.state, claimed.holder, claimed.until = "sending", "", self._now()

    def _taken(self, name: tuple[str, str], holder: str, seconds: float, unknown: Unknown) -> Standing:
        now, claimed = self._now(), self._claims.get(name)
        if name in self._done:
            return Standing(Hold.DONE)
        if claimed is not None and (claimed.holder != holder or claimed.state == "sending"):
            if claimed.until > now:
                return Standing(Hold.ELSEWHERE, claimed.until - now)
            if claimed.state == "sending" and unknown == "park":
                return Standing(Hold.UNKNOWN)
        self._claims[name] = Claimed("claimed", holder, now + seconds)
        return Standing(Hold.OURS)

    def _end(self, pipeline: str, key: str) -> None:
        self._claims.pop((pipeline, key), None)
        self._done[pipeline, key] = None
        while len(self._done) > KEPT:
            self._done.popitem(last=False)
