"""Storing what is submitted: who and what it is about is looked up for many at once, and rows are added."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


@dataclass(frozen=True, slots=True)
class Page:
    """An action page by its ids."""

    id: int
    campaign_id: int
    organisation_id: int
    public_key: str | None
    """The organisation's, for which new personal data is closed."""


@dataclass(frozen=True, slots=True)
class Stored:
    """An action that is stored."""

    id: int
    supporter_id: int | None
    contact_ref: str | None
    page_id: int


async def pages(connection: "AsyncConnection", names: Collection[str]) -> dict[str, Page]:
    """Return the action pages by name; those that do not exist are missing."""
    from sqlalchemy import select

    from flow.records.tables import action_pages, organisations

    columns = (action_pages.c.id, action_pages.c.campaign_id, action_pages.c.organisation_id)
    finding = (
        select(action_pages.c.name, *columns, organisations.c.public_key)
        .join(organisations, organisations.c.id == action_pages.c.organisation_id)
        .where(action_pages.c.name.in_(names))
    )
    return {row[0]: Page(*row[1:]) for row in await connection.execute(finding)}


async def submitted(connection: "AsyncConnection", names: Collection[str]) -> dict[str, Stored]:
    """Return the actions that were submitted as one of *names*."""
    from sqlalchemy import select

    from flow.records.tables import actions, supporters

    columns = (actions.c.id, actions.c.supporter_id, supporters.c.contact_ref, actions.c.action_page_id)
    finding = (
        select(actions.c.submission, *columns)
        .outerjoin(supporters, supporters.c.id == actions.c.supporter_id)
        .where(actions.c.submission.in_(names))
    )
    return {row[0]: Stored(*row[1:]) for row in await connection.execute(finding)}


async def references(
    connection: "AsyncConnection", addresses: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], str]:
    """Return the contact references of *addresses* (organisation, e-mail) that have one."""
    from sqlalchemy import select, tuple_

    from flow.records.tables import contacts, supporters

    key = (supporters.c.organisation_id, contacts.c.email)
    finding = (
        select(*key, supporters.c.contact_ref)
        .join(supporters, supporters.c.id == contacts.c.supporter_id)
        .where(
            contacts.c.email.in_({email for _, email in addresses}), tuple_(*key).in_(sorted(set(addresses)))
        )
        .order_by(supporters.c.id.desc())  # of several the first one counts: it is written last
    )
    return {(row[0], row[1]): row[2] for row in await connection.execute(finding)}


async def latest(
    connection: "AsyncConnection", contacts: Iterable[tuple[int, int, str]]
) -> dict[tuple[int, int, str], int]:
    """Return the last supporter, not forgotten, of each of the *contacts* (organisation, campaign, contact
    reference)."""
    from sqlalchemy import func, select, tuple_

    from flow.records.tables import supporters

    key = (supporters.c.organisation_id, supporters.c.campaign_id, supporters.c.contact_ref)
    finding = (
        select(*key, func.max(supporters.c.id))
        .where(tuple_(*key).in_(sorted(set(contacts))), supporters.c.forgotten_at.is_(None))
        .group_by(*key)
    )
    return {(row[0], row[1], row[2]): row[3] for row in await connection.execute(finding)}


async def add_supporters(
    connection: "AsyncConnection", rows: Sequence[dict[str, Any]], contacts: Sequence[dict[str, Any]]
) -> list[int]:
    """Add supporters, each with its contact; return their ids in order."""
    from flow.records import tables

    if not rows:
        return []
    adding = tables.supporters.insert().returning(tables.supporters.c.id, sort_by_parameter_order=True)
    ids = [row[0] for row in await connection.execute(adding, rows)]
    owned = [{"supporter_id": id_} | contact for id_, contact in zip(ids, contacts, strict=True)]
    await connection.execute(tables.contacts.insert(), owned)
    return ids


async def add_actions(connection: "AsyncConnection", rows: Sequence[dict[str, Any]]) -> list[int]:
    """Add actions; return their ids in order."""
    from flow.records.tables import actions

    if not rows:
        return []
    adding = actions.insert().returning(actions.c.id, sort_by_parameter_order=True)
    return [row[0] for row in await connection.execute(adding, rows)]


async def link(
    connection: "AsyncConnection", supporter_id: int, page: Page, submissions: Collection[str]
) -> None:
    """Give actions that have no supporter, of the organisation and the campaign of *page*, to one."""
    from sqlalchemy import update

    from flow.records.tables import actions

    linking = (
        update(actions)
        .where(
            actions.c.submission.in_(submissions),
            actions.c.organisation_id == page.organisation_id,
            actions.c.campaign_id == page.campaign_id,
            actions.c.supporter_id.is_(None),
        )
        .values(supporter_id=supporter_id)
    )
    await connection.execute(linking)
