"""Pruning: what pipelines did long ago leaves the records, a bounded portion at a time."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Column, ColumnElement, Table, and_, delete, func, select, type_coerce

from flow.ledger import KEPT
from flow.records.database import Database
from flow.records.tables import Moment, claims, ledger, published, starts

PORTION = 1000  # rows that one transaction looks at, and deletes at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was deleted, in rows."""

    ledger: int
    claims: int
    published: int
    starts: int


async def prune(database: Database, age: timedelta, *, dry_run: bool = False) -> Pruned:
    """Delete what is older than *age*, by the clock of the database; with *dry_run* only count it.

    Rows of the ledger that are unsettled, claims with an unknown outcome, and claims that somebody may hold
    stay, however old. Each portion is a transaction of its own: what an interruption leaves is pruned the
    next time.

    Raises:
        ValueError: *age* is less than `flow.ledger.KEPT`: a younger row may answer, or count as a start.
        DatabaseDown: the database cannot be had now.
    """
    if age < KEPT:
        raise ValueError(f"age must be {KEPT.days} days or more, got {age.days}")
    async with database.reading() as connection:
        now: datetime = await connection.scalar(select(type_coerce(func.now(), Moment())))  # type: ignore[assignment]
    limit = now - age

    async def old(table: Table, at: Column[Any], over: ColumnElement[bool] | None = None) -> int:
        return await _old(database, table, at, limit, over, dry_run=dry_run)

    return Pruned(
        ledger=await old(ledger, ledger.c.at, ~ledger.c.unsettled),
        claims=await old(claims, claims.c.until, claims.c.state != "sending"),
        published=await old(published, published.c.published_at),
        starts=await old(starts, starts.c.at),
    )


async def _old(
    database: Database,
    table: Table,
    at: Column[Any],
    limit: datetime,
    over: ColumnElement[bool] | None,
    *,
    dry_run: bool,
) -> int:
    """Delete the rows of *table* that are *over* and older than *limit*; return how many.

    Ids come in the order of time, as nearly as matters here, so the first portion that holds nothing old is
    the last: no index on the moment is needed, and what is young is not read.
    """
    total, last = 0, 0
    while True:
        following = select(table.c.id, at.label("at")).where(table.c.id > last)
        portion = following.order_by(table.c.id).limit(PORTION).subquery()
        bounds = select(func.max(portion.c.id), func.min(portion.c.at))
        async with database.reading() if dry_run else database.begin() as connection:
            end, oldest = (await connection.execute(bounds)).one()
            if end is None or oldest >= limit:
                return total
            condition = and_(
                table.c.id > last, table.c.id <= end, at < limit, *([] if over is None else [over])
            )
            if dry_run:
                count = await connection.scalar(select(func.count()).select_from(table).where(condition)) or 0
            else:
                count = (await connection.execute(delete(table).where(condition))).rowcount
        total, last = total + count, end
