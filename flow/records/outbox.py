"""Messages that wait to be published; each was written in the transaction whose status it tells of."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from flow.records.database import Database

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message for an exchange, and whom it is about."""

    exchange: str
    routing_key: str
    body: bytes
    action_id: int | None = None
    supporter_id: int | None = None


@dataclass(frozen=True, slots=True)
class Claimed:
    """A message of the outbox that somebody holds to publish it; its *message_id* never changes."""

    id: int
    message_id: str
    exchange: str
    routing_key: str
    body: bytes


async def put(connection: "AsyncConnection", messages: Sequence[Outgoing]) -> None:
    """Add *messages* to the outbox, in their order, as a part of the transaction of *connection*."""
    from flow.records.tables import outbox

    if messages:
        rows = [
            {
                "message_id": uuid4().hex,
                "exchange": message.exchange,
                "routing_key": message.routing_key,
                "body": message.body,
                "action_id": message.action_id,
                "supporter_id": message.supporter_id,
            }
            for message in messages
        ]
        await connection.execute(outbox.insert(), rows)


async def claim(
    database: Database, now: datetime, until: datetime, limit: int, *, refused_after: int | None = None
) -> list[Claimed]:
    """Claim up to *limit* messages that nobody holds at *now*, the oldest first, *until* then.

    With *refused_after* also those that the broker would not take, beyond this id, whose time has not come.
    """
    from sqlalchemy import and_, or_, select, update

    from flow.records.tables import outbox

    columns = (outbox.c[name] for name in Claimed.__dataclass_fields__)
    early = (
        [] if refused_after is None else [and_(outbox.c.refused.is_not(None), outbox.c.id > refused_after)]
    )
    due = (
        select(*columns)
        .where(or_(outbox.c.claimed_until.is_(None), outbox.c.claimed_until <= now, *early))
        .order_by(outbox.c.id)
    )
    async with database.reading() as connection:  # mostly there are none: keep no writer waiting
        if (await connection.execute(due.limit(1))).first() is None:
            return []
    due = due.limit(limit).with_for_update(skip_locked=True)
    async with database.begin() as connection:
        found = [Claimed(*row) for row in await connection.execute(due)]
        if found:
            ids = [message.id for message in found]
            holding = update(outbox).where(outbox.c.id.in_(ids))
            await connection.execute(holding.values(claimed_until=until, refused=None))
    return found


async def confirm(database: Database, ids: Collection[int], at: datetime) -> int:
    """Take messages that the broker has confirmed out of the outbox and note that they are published.

    Returns how many were still there: whoever comes second for a message notes nothing.
    """
    from sqlalchemy import delete

    from flow.records.tables import outbox, published

    noted = ("message_id", "exchange", "routing_key", "action_id", "supporter_id")
    gone = delete(outbox).where(outbox.c.id.in_(ids)).returning(*(outbox.c[name] for name in noted))
    async with database.begin() as connection:
        rows = [dict(row._mapping) | {"published_at": at} for row in await connection.execute(gone)]
        if rows:
            await connection.execute(published.insert(), rows)
    return len(rows)


async def refuse(database: Database, reasons: Mapping[int, str], again: datetime) -> None:
    """Keep messages that the broker would not take, with the reason, to be tried *again* then."""
    from sqlalchemy import bindparam, update

    from flow.records.tables import outbox

    keeping = (
        update(outbox)
        .where(outbox.c.id == bindparam("row"))
        .values(refused=bindparam("reason"), claimed_until=bindparam("again"))
    )
    if reasons:
        rows = [{"row": id_, "reason": reason, "again": again} for id_, reason in sorted(reasons.items())]
        async with database.begin() as connection:
            await connection.execute(keeping, rows)


async def release(database: Database, ids: Collection[int]) -> None:
    """Give up the claim on messages that were not published, so that they can be claimed at once."""
    from sqlalchemy import update

    from flow.records.tables import outbox

    if ids:
        async with database.begin() as connection:
            await connection.execute(update(outbox).where(outbox.c.id.in_(ids)).values(claimed_until=None))


async def waiting(database: Database) -> tuple[int, int]:
    """Return how many messages are in the outbox, and how many of these the broker would not take."""
    from sqlalchemy import func, select

    from flow.records.tables import outbox

    async with database.reading() as connection:
        row = (await connection.execute(select(func.count(), func.count(outbox.c.refused)))).one()
    return row[0], row[1]


async def refusals(database: Database) -> dict[str, int]:
    """Return the reasons for which messages of the outbox were not taken, each with their number."""
    from sqlalchemy import func, select

    from flow.records.tables import outbox

    counting = (
        select(outbox.c.refused, func.count()).where(outbox.c.refused.is_not(None)).group_by(outbox.c.refused)
    )
    async with database.reading() as connection:
        return {row[0]: row[1] for row in await connection.execute(counting.order_by(outbox.c.refused))}
