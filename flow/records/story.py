"""The story of one action: everything that the records and the ledger tell of it, in the order of time."""

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from flow.records.tables import (
    action_pages,
    actions,
    campaigns,
    claims,
    ledger,
    organisations,
    outbox,
    placed_actions,
    published,
    supporters,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to an action; no personal data."""

    at: datetime | None
    """UTC; None: it has no moment of its own, such as a claim."""
    what: str
    where: str = ""
    """The page, the exchange with its routing key, or the pipeline with its queue."""
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """An action and what happened to it."""

    action_id: int
    action_status: str
    supporter_id: int | None
    supporter_status: str | None
    page: str
    campaign: str
    organisation: str
    events: list[Event] = field(default_factory=list)
    """The oldest first; those without a moment come last."""


async def story(connection: AsyncConnection, action_id: int) -> Story | None:
    """Return the story of an action; None: it is not in the records."""
    columns = (
        actions.c.action_type,
        actions.c.testing,
        actions.c.processing_status.label("action_status"),
        actions.c.created_at,
        actions.c.processed_at,
        supporters.c.id.label("supporter_id"),
        supporters.c.processing_status.label("supporter_status"),
        supporters.c.dupe_rank,
        supporters.c.created_at.label("stored_at"),
        supporters.c.email_status,
        supporters.c.email_status_changed_at,
        supporters.c.forgotten_at,
        action_pages.c.name.label("page"),
        campaigns.c.name.label("campaign"),
        organisations.c.name.label("organisation"),
    )
    finding = select(*columns).select_from(placed_actions).where(actions.c.id == action_id)
    row = (await connection.execute(finding)).one_or_none()
    if row is None:
        return None
    events = [
        *of_records(row),
        *await of_messages(connection, action_id, row.supporter_id),
        *await of_ledger(connection, action_id),
    ]
    # Sorting is stable: what happened in the same moment stays in the order of the lists above.
    events.sort(key=lambda event: event.at.timestamp() if event.at else float("inf"))
    return Story(
        action_id=action_id,
        action_status=row.action_status,
        supporter_id=row.supporter_id,
        supporter_status=row.supporter_status,
        page=row.page,
        campaign=row.campaign,
        organisation=row.organisation,
        events=[*events, *await of_claims(connection, action_id)],
    )


def of_records(row: Any) -> list[Event]:
    """Return what the rows of the action and of its supporter tell."""
    kind = f"{row.action_type}, a test of the form" if row.testing else row.action_type
    events = [Event(at=row.created_at, what="submitted", where=row.page, detail=kind)]
    if row.supporter_id is not None:
        events.append(
            Event(at=row.stored_at, what="supporter stored", detail=f"supporter {row.supporter_id}")
        )
    if row.processed_at is not None:
        rank = (
            "" if row.dupe_rank is None else f", number {row.dupe_rank + 1} of this contact in the campaign"
        )
        detail = f"action {row.action_status}, supporter {row.supporter_status or 'none'}{rank}"
        events.append(Event(at=row.processed_at, what="processed", detail=detail))
    if row.email_status_changed_at is not None:
        detail = row.email_status or "unknown"
        events.append(Event(at=row.email_status_changed_at, what="address status", detail=detail))
    if row.forgotten_at is not None:
        events.append(Event(at=row.forgotten_at, what="forgotten", detail="personal data erased"))
    return events


async def of_messages(connection: AsyncConnection, action_id: int, supporter_id: int | None) -> list[Event]:
    """Return what was published about the action or its supporter, and what is to be."""
    sent = await connection.execute(select(published).where(about(published.c, action_id, supporter_id)))
    waiting = await connection.execute(
        select(
            outbox.c.message_id,
            outbox.c.exchange,
            outbox.c.routing_key,
            outbox.c.created_at,
            outbox.c.refused,
        ).where(about(outbox.c, action_id, supporter_id))
    )
    return [
        *(
            Event(
                at=end_of_second(row.created_at),
                what="refused by the broker" if row.refused else "waits in the outbox",
                where=f"{row.exchange} {row.routing_key}",
                detail=row.refused or f"message {row.message_id}",
            )
            for row in waiting
        ),
        *(
            Event(
                at=row.published_at,
                what="published",
                where=f"{row.exchange} {row.routing_key}",
                detail=f"message {row.message_id}",
            )
            for row in sent
        ),
    ]


def end_of_second(at: datetime) -> datetime:
    """Return a moment in whole seconds, as SQLite makes them, as the end of its second: after its cause."""
    return at if at.microsecond else at.replace(microsecond=999_999)


def about(columns: Any, action_id: int, supporter_id: int | None) -> ColumnElement[bool]:
    """Return the condition for messages about the action, or about its supporter and no other action."""
    of_supporter = and_(columns.supporter_id == supporter_id, columns.action_id.is_(None))
    return or_(columns.action_id == action_id, of_supporter)


async def of_ledger(connection: AsyncConnection, action_id: int) -> list[Event]:
    """Return what pipelines did with the action."""
    found = await connection.execute(
        select(ledger).where(ledger.c.record_id == str(action_id)).order_by(ledger.c.at, ledger.c.id)
    )
    return [
        Event(at=row.at, what=row.outcome, where=f"{row.pipeline} {row.queue}", detail=tried(row))
        for row in found
    ]


def tried(row: Any) -> str:
    """Return the attempt, why it ended so, what the target calls it, and whether the broker knows."""
    parts = [
        f"attempt {row.attempt}",
        row.reason,
        row.target_id and f"target id {row.target_id}",
        row.after and f"again after {row.after / 1000:g} s",
        row.unsettled and "the broker is not known to know",
    ]
    return "; ".join(part for part in parts if part)


async def of_claims(connection: AsyncConnection, action_id: int) -> list[Event]:
    """Return the claims whose key has the number of the action as a word."""
    word = re.compile(rf"(?<![0-9A-Za-z]){action_id}(?![0-9A-Za-z])")
    found = await connection.execute(
        select(claims).where(claims.c.key.contains(str(action_id))).order_by(claims.c.id)
    )
    return [
        Event(
            at=None,
            what=f"claim {row.state}",
            where=row.pipeline,
            detail="; ".join(
                [
                    f"key {row.key}",
                    *([f"target id {row.target_id}"] if row.target_id else []),
                    *([] if row.state == "done" else [f"until {row.until:%Y-%m-%d %H:%M:%S}"]),
                ]
            ),
        )
        for row in found
        if word.search(row.key)
    ]
