"""The claims in a database, which every worker shares; their time is the database's."""

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import ColumnElement, and_, delete, false, func, literal, or_, select, update
from sqlalchemy.dialects import postgresql, sqlite

from flow.claim import Hold, Standing, Unknown
from flow.records.database import Database
from flow.records.ledger import PATIENCE, parts, refused, touch
from flow.records.tables import Moment, claims

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

CLAIMED, SENDING, DONE = "claimed", "sending", "done"


class SqlClaims:
    """The `Claims` in the tables of the records."""

    def __init__(self, database: Database) -> None:
        """Write to *database*, which is open."""
        self._database = database
        self._insert = sqlite.insert if database.is_sqlite else postgresql.insert

    async def take(
        self, pipeline: str, keys: Collection[str], holder: str, seconds: float, unknown: Unknown
    ) -> Mapping[str, Standing]:
        """Claim *keys* for *holder*, as `Claims` says.

        Raises:
            LedgerError: the database cannot be had now.
        """
        standings: dict[str, Standing] = {}
        with refused():
            async with self._database.begin(patience=PATIENCE) as connection:
                for some in parts(sorted(keys)):  # in one order: two workers must not wait for each other
                    standings |= await self._take(connection, pipeline, some, holder, seconds, unknown)
        return standings

    async def begin(
        self, pipeline: str, key: str, holder: str, seconds: float, done: Sequence[str] = ()
    ) -> bool:
        """Note that the effect is under way, and that those of *done* happened; False: *holder* has lost it.

        Raises:
            LedgerError: the database cannot be had now.
        """
        ours = and_(of(pipeline, [key]), claims.c.holder == holder, claims.c.state == CLAIMED)
        statement = update(claims).where(ours).values(state=SENDING, until=self._moment(seconds))
        with refused():
            async with self._database.begin(patience=PATIENCE) as connection:
                for some in parts(sorted(done)):
                    await connection.execute(update(claims).where(of(pipeline, some)).values(state=DONE))
                result = await connection.execute(statement)
        return bool(result.rowcount == 1)

    async def free(self, pipeline: str, keys: Sequence[str], holder: str) -> None:
        """Let go of *keys*: their effects have not happened.

        Raises:
            LedgerError: the database cannot be had now.
        """
        with refused():
            async with self._database.begin(patience=PATIENCE) as connection:
                for some in parts(sorted(keys)):
                    ours = and_(of(pipeline, some), claims.c.holder == holder, claims.c.state != DONE)
                    await connection.execute(delete(claims).where(ours))

    async def doubt(self, pipeline: str, keys: Sequence[str], holder: str) -> None:
        """Let go of *keys*: whether their effects happened is not known.

        Raises:
            LedgerError: the database cannot be had now.
        """
        ended = {"state": SENDING, "holder": "", "until": self._moment(0.0)}
        with refused():
            async with self._database.begin(patience=PATIENCE) as connection:
                for some in parts(sorted(keys)):
                    ours = and_(of(pipeline, some), claims.c.holder == holder, claims.c.state != DONE)
                    await connection.execute(update(claims).where(ours).values(**ended))

    async def ready(self) -> None:
        """See that claims can be written.

        Raises:
            LedgerError: not now.
        """
        with refused():
            async with self._database.begin(patience=PATIENCE) as connection:
                await touch(connection, claims, *claims.c.keys())
                await connection.execute(delete(claims).where(false()))

    async def _take(
        self,
        connection: "AsyncConnection",
        pipeline: str,
        keys: Sequence[str],
        holder: str,
        seconds: float,
        unknown: Unknown,
    ) -> dict[str, Standing]:
        taking = {"state": CLAIMED, "holder": holder, "until": self._moment(seconds)}
        rows = [{"pipeline": pipeline, "key": key, **taking} for key in keys]
        new = self._insert(claims).values(rows).on_conflict_do_nothing().returning(claims.c.key)
        ours = set((await connection.scalars(new)).all())
        rest = [key for key in keys if key not in ours]
        if not rest:
            return dict.fromkeys(keys, Standing(Hold.OURS))
        ended = claims.c.until <= self._moment(0.0)
        free = [and_(claims.c.state == CLAIMED, or_(claims.c.holder == holder, ended))]
        if unknown == "again":
            free.append(and_(claims.c.state == SENDING, ended))
        again = update(claims).where(of(pipeline, rest), or_(*free))
        ours |= set((await connection.scalars(again.values(**taking).returning(claims.c.key))).all())
        standings = dict.fromkeys(ours, Standing(Hold.OURS))
        others = select(claims.c.key, claims.c.state, claims.c.until, self._moment(0.0)).where(
            of(pipeline, [key for key in rest if key not in ours])
        )
        for key, state, until, now in await connection.execute(others):
            standings[key] = standing(state, (until - now).total_seconds(), unknown)
        # One that was let go of meanwhile is looked at again.
        return {key: standings.get(key, Standing(Hold.ELSEWHERE)) for key in keys}

    def _moment(self, seconds: float) -> ColumnElement[Any]:
        """Return the moment in *seconds*, by the clock that all workers share."""
        if self._database.is_sqlite:  # they share the machine
            return literal(datetime.now(UTC) + timedelta(seconds=seconds), Moment())
        return func.clock_timestamp() + literal(timedelta(seconds=seconds))


def of(pipeline: str, keys: Sequence[str]) -> ColumnElement[bool]:
    """Return the condition for the claims *keys* of *pipeline*."""
    return and_(claims.c.pipeline == pipeline, claims.c.key.in_(keys))


def standing(state: str, left: float, unknown: Unknown) -> Standing:
    """Say how a claim stands that is not ours, with *left* seconds to go.

    One that ended just now could not be taken yet: it is looked at again.
    """
    if state == DONE:
        return Standing(Hold.DONE)
    if left > 0:
        return Standing(Hold.ELSEWHERE, left)
    return Standing(Hold.UNKNOWN if state == SENDING and unknown == "park" else Hold.ELSEWHERE)
