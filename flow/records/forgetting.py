"""Forgetting a person: their data leave the records, ids and counts stay."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Select, delete, func, null, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncConnection

from flow.records.cases import contact_lock
from flow.records.locking import hold
from flow.records.tables import actions, contacts, ledger, outbox, supporters

WAITING = ("new", "confirming", "accepted")  # statuses of actions that may still be delivered
UNDECIDED = ("new", "confirming")  # statuses of supporters


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """Everything of one contact: an organisation knows a person by one reference, in all of its campaigns."""

    supporters: Sequence[int]
    actions: Sequence[int]
    locks: Collection[str]
    """The names of the locks on all that is done with this contact."""
    known: int
    """How many of the supporters were not forgotten before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgotten:
    """What was erased, in rows."""

    contacts: int
    actions: int
    """Actions that lost their custom fields, donation and tracking."""
    reasons: int
    """Entries of the ledger that lost their reason."""
    waiting: int
    """Messages that leave the outbox and are not published."""
    rejected: int
    """Actions that were still to be delivered, and are rejected now."""


async def by_id(connection: AsyncConnection, supporter_id: int) -> Person | None:
    """Return the person of a supporter; None: there is no such supporter."""
    return await _person(connection, _contacts().where(supporters.c.id == supporter_id))


async def by_reference(connection: AsyncConnection, contact_ref: str) -> Person | None:
    """Return the person whom messages call *contact_ref*; None: nobody is called so."""
    return await _person(connection, _contacts().where(supporters.c.contact_ref == contact_ref))


async def by_address(connection: AsyncConnection, email: str) -> Person | None:
    """Return whoever has this e-mail address, in every organisation; None: nobody has."""
    having = _contacts().join(contacts, contacts.c.supporter_id == supporters.c.id)
    return await _person(connection, having.where(func.lower(contacts.c.email) == email.strip().lower()))


async def forget(connection: AsyncConnection, person: Person, at: datetime) -> Forgotten:
    """Erase the personal data of *person* in the transaction of *connection*; *at* is noted as the moment.

    Ids, statuses, consents and what the targets call them stay. What was still to be confirmed or delivered
    is rejected, for it could only be delivered without a contact. Doing it again changes nothing.
    """
    owned = supporters.c.id.in_(person.supporters)
    # Whoever decides about a signature locks in the same order: contacts, supporters by id, their actions.
    await hold(connection, "contact", person.locks)
    await connection.execute(select(supporters.c.id).where(owned).order_by(supporters.c.id).with_for_update())
    theirs = actions.c.supporter_id.in_(person.supporters)
    rows = (await connection.execute(select(actions).where(theirs).order_by(actions.c.id))).all()
    ids = [row.id for row in rows]
    telling = [row.id for row in rows if row.custom_fields or row.donation or row.tracking]
    rejected = await connection.execute(
        update(actions)
        .where(theirs, actions.c.processing_status.in_(WAITING))
        .values(processing_status="rejected", processed_at=at)
    )
    await connection.execute(
        update(actions)
        .where(actions.c.id.in_(telling))
        .values(custom_fields={}, donation=null(), tracking=null())
    )
    gone = await connection.execute(delete(contacts).where(contacts.c.supporter_id.in_(person.supporters)))
    unsent = await connection.execute(
        delete(outbox).where(or_(outbox.c.action_id.in_(ids), outbox.c.supporter_id.in_(person.supporters)))
    )
    reasons = await connection.execute(
        update(ledger)
        .where(ledger.c.record_id.in_([str(one) for one in ids]), ledger.c.reason.is_not(None))
        .values(reason=None)
    )
    await connection.execute(
        update(supporters)
        .where(owned, supporters.c.processing_status.in_(UNDECIDED))
        .values(processing_status="rejected")
    )
    await connection.execute(
        update(supporters)
        .where(owned, supporters.c.forgotten_at.is_(None))
        .values(forgotten_at=at, email_status=None, email_status_changed_at=None)
    )
    return Forgotten(
        contacts=gone.rowcount,
        actions=len(telling),
        reasons=reasons.rowcount,
        waiting=unsent.rowcount,
        rejected=rejected.rowcount,
    )


def _contacts() -> Select[Any]:
    return select(supporters.c.organisation_id, supporters.c.contact_ref).distinct()


async def _person(connection: AsyncConnection, finding: Select[Any]) -> Person | None:
    found = [(row[0], row[1]) for row in await connection.execute(finding)]
    if not found:
        return None
    key = tuple_(supporters.c.organisation_id, supporters.c.contact_ref)
    rows = (
        await connection.execute(
            select(
                supporters.c.id, supporters.c.forgotten_at, supporters.c.campaign_id, supporters.c.contact_ref
            )
            .where(key.in_(found))
            .order_by(supporters.c.id)
        )
    ).all()
    ids = [row.id for row in rows]
    theirs = select(actions.c.id).where(actions.c.supporter_id.in_(ids)).order_by(actions.c.id)
    return Person(
        supporters=ids,
        actions=(await connection.scalars(theirs)).all(),
        locks={contact_lock(row.campaign_id, row.contact_ref) for row in rows},
        known=sum(row.forgotten_at is None for row in rows),
    )
