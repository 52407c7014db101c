"""The ledger in a database, which every worker shares."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import Table, and_, bindparam, delete, false, func, insert, select, text, update

from flow.errors import DatabaseError, LedgerError, RowRefused
from flow.ledger import KEPT, Found, Row, digest
from flow.outcome import Decision, Outcome
from flow.records.database import Database
from flow.records.tables import claims, ledger, starts

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection

PATIENCE = 10.0  # seconds for one call
MANY = 500  # values in one condition
LONGEST_AFTER = 2**31 - 1  # milliseconds
COLUMNS = {
    "pipeline": "text",
    "queue": "text",
    "identity": "bytea",
    "record_id": "text",
    "attempt": "int",
    "outcome": "text",
    "reason": "text",
    "after": "int",
    "target_id": "text",
    "at": "timestamptz",
    "unsettled": "bool",
}
"""The columns that a row has values for, with their types in PostgreSQL."""
BY_COLUMNS = text(
    f"INSERT INTO ledger ({', '.join(COLUMNS)}) SELECT {', '.join(COLUMNS)} FROM unnest("
    f"{', '.join(f'CAST(:{name} AS {kind}[])' for name, kind in COLUMNS.items())}"
    f") WITH ORDINALITY AS rows ({', '.join(COLUMNS)}, place) ORDER BY place RETURNING id"
)


class SqlLedger:
    """The `Ledger` in the tables of the records."""

    def __init__(self, database: Database) -> None:
        """Write to *database*, which is open."""
        self._database = database
        self._doubtful = False  # the last write failed, and parts of it may have been committed

    async def write(self, rows: Sequence[Row]) -> Sequence[int | None]:
        """Write *rows* in one transaction; when it is refused, its halves, so that a row holds up no other.

        Raises:
            LedgerError: the database cannot be had now.
        """
        doubtful, self._doubtful = self._doubtful, True
        ids = await self._halved(rows, doubtful)
        self._doubtful = False
        return ids

    async def unsettled(self, pipeline: str, queue: str, identities: Sequence[bytes]) -> Sequence[Found]:
        """Return the unsettled rows of *pipeline* about *identities* from *queue*, the oldest first.

        Raises:
            LedgerError: the database cannot be had now.
        """
        found: list[Found] = []
        columns = ledger.c.id, ledger.c.identity, ledger.c.outcome, ledger.c.reason, ledger.c.after
        with refused(rows=False):
            async with self._database.reading(patience=PATIENCE) as connection:
                for wanted in parts(identities):
                    query = select(*columns).where(
                        ledger.c.queue == queue,
                        ledger.c.identity.in_(wanted),
                        ledger.c.pipeline == pipeline,
                        ledger.c.unsettled,
                        ledger.c.at > datetime.now(UTC) - KEPT,
                    )
                    found += [
                        Found(number, identity, Decision(Outcome(outcome), reason or "", seconds(after)))
                        for number, identity, outcome, reason, after in await connection.execute(query)
                    ]
        return sorted(found, key=lambda one: one.id)

    async def settle(self, ids: Sequence[int]) -> None:
        """Note that the broker knows of the rows *ids*.

        Raises:
            LedgerError: the database cannot be had now.
        """
        with refused(rows=False):
            async with self._database.begin(patience=PATIENCE) as connection:
                for some in parts(ids):
                    await connection.execute(
                        update(ledger).where(ledger.c.id.in_(some)).values(unsettled=False)
                    )

    async def ready(self) -> None:
        """See that the database can be written.

        Raises:
            LedgerError: not now.
        """
        with refused(rows=False):
            async with self._database.begin(patience=PATIENCE) as connection:
                await touch(connection, ledger, *COLUMNS)

    async def _halved(self, rows: Sequence[Row], doubtful: bool) -> Sequence[int | None]:
        try:
            return await self._write(rows, doubtful)
        except RowRefused:
            if len(rows) == 1:
                return [None]
            half = len(rows) // 2
            return [*await self._halved(rows[:half], doubtful), *await self._halved(rows[half:], doubtful)]

    async def _write(self, rows: Sequence[Row], doubtful: bool) -> Sequence[int]:
        with refused():
            async with self._database.begin(patience=PATIENCE) as connection:
                written = await there(connection, rows) if doubtful else {}
                new = [row for row in rows if (row.identity, row.at) not in written]
                insertion = by_number if self._database.is_sqlite else by_columns
                added = iter(await insertion(connection, new) if new else ())
                await done(connection, rows)
        return [written.get((row.identity, row.at)) or next(added) for row in rows]


class SqlStarts:
    """Which suspect messages were started and have no outcome yet, for all workers of all machines."""

    def __init__(self, database: Database) -> None:
        """Write to *database*, which is open."""
        self._database = database

    async def started(self, identity: object) -> int:
        """Note that the message called *identity* is started; return how often it was, without an outcome.

        Raises:
            LedgerError: it cannot be noted now.
        """
        name, now = digest(identity), datetime.now(UTC)
        with refused(rows=False):
            async with self._database.begin(patience=PATIENCE) as connection:
                earlier = await connection.scalar(
                    select(func.count()).where(starts.c.identity == name, starts.c.at > now - KEPT)
                )
                await connection.execute(insert(starts).values(identity=name, at=now))
        return earlier or 0

    async def ended(self, identities: Collection[object]) -> None:
        """Note that the messages called *identities* have an outcome, whatever it is.

        Raises:
            LedgerError: it cannot be noted now.
        """
        with refused(rows=False):
            async with self._database.begin(patience=PATIENCE) as connection:
                for names in parts([digest(identity) for identity in identities]):
                    await connection.execute(delete(starts).where(starts.c.identity.in_(names)))


def values(row: Row) -> dict[str, Any]:
    """Return the columns of *row*."""
    return {
        "pipeline": row.pipeline,
        "queue": row.queue,
        "identity": row.identity,
        "record_id": row.record_id,
        "attempt": row.attempt,
        "outcome": row.outcome.value,
        "reason": row.reason or None,
        "after": None if row.after is None else round(min(row.after * 1000, LONGEST_AFTER)),
        "target_id": row.target_id,
        "at": row.at,
        "unsettled": row.unsettled,
    }


async def by_number(connection: "AsyncConnection", rows: Sequence[Row]) -> Sequence[int]:
    """Insert *rows* under numbers of ours, as nobody else writes meanwhile; return the numbers."""
    last = await connection.scalar(select(func.max(ledger.c.id))) or 0
    numbers = range(last + 1, last + 1 + len(rows))
    numbered = [{**values(row), "id": number} for number, row in zip(numbers, rows, strict=True)]
    await connection.execute(insert(ledger), numbered)
    return numbers


async def by_columns(connection: "AsyncConnection", rows: Sequence[Row]) -> Sequence[int]:
    """Insert *rows* as one array for each column, which is many times faster than a value for each field.

    Returns their ids, which come in the order of the rows.
    """
    columns = {name: [one[name] for one in map(values, rows)] for name in COLUMNS}
    return (await connection.scalars(BY_COLUMNS, columns)).all()


async def there(connection: "AsyncConnection", rows: Sequence[Row]) -> dict[tuple[bytes, datetime], int]:
    """Return the ids of those *rows* that are there already, by identity and moment."""
    found: dict[tuple[bytes, datetime], int] = {}
    for some in parts(rows):
        query = select(ledger.c.id, ledger.c.identity, ledger.c.at).where(
            ledger.c.queue.in_({row.queue for row in some}),
            ledger.c.identity.in_([row.identity for row in some]),
            ledger.c.at.in_([row.at for row in some]),
        )
        found |= {(identity, at): number for number, identity, at in await connection.execute(query)}
    return found


async def done(connection: "AsyncConnection", rows: Sequence[Row]) -> None:
    """Note that the claims of *rows* are done: their effects have happened, whoever holds them now.

    All go in one call, in the order of `SqlClaims.take`: two workers must not wait for each other.
    """
    ended = [
        {"of": row.pipeline, "called": row.claim, "id_there": row.target_id}
        for row in sorted(rows, key=lambda row: row.claim or "")
        if row.claim is not None
    ]
    if ended:
        one = and_(claims.c.pipeline == bindparam("of"), claims.c.key == bindparam("called"))
        note = update(claims).where(one).values(state="done", target_id=bindparam("id_there"))
        await connection.execute(note, ended)


async def touch(connection: "AsyncConnection", table: Table, *columns: str) -> None:
    """Insert and update no rows of *table*: only for its rights and its lock is asked."""
    nothing = select(*(table.c[name] for name in columns)).where(false())
    await connection.execute(insert(table).from_select(columns, nothing))
    await connection.execute(update(table).where(false()).values({columns[0]: table.c[columns[0]]}))


def seconds(milliseconds: int | None) -> float | None:
    """Return *milliseconds* in seconds."""
    return None if milliseconds is None else milliseconds / 1000


def parts(many: Sequence[Any]) -> Iterator[Sequence[Any]]:
    """Yield *many* in parts that fit into one condition."""
    for first in range(0, len(many), MANY):
        yield many[first : first + MANY]


@contextmanager
def refused(*, rows: bool = True) -> Iterator[None]:
    """Let what the database raises be an error of the ledger; what is wrong with one of *rows* passes.

    Raises:
        LedgerError: the database refused or failed.
    """
    try:
        yield
    except DatabaseError as error:
        if rows and isinstance(error, RowRefused):
            raise
        raise LedgerError(str(error)) from error
