"""Cases: an action with its supporter, page, campaign and organisation, as processing sees it."""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeAlias

from flow.transitions import UNSETTLED, ActionStatus, SupporterStatus

if TYPE_CHECKING:
    from sqlalchemy import Select
    from sqlalchemy.ext.asyncio import AsyncConnection

    Connection: TypeAlias = AsyncConnection
    """A transaction of `Database.begin`, for those who only hand it on."""


@dataclass(slots=True, kw_only=True)
class Case:
    """An action and everything that its message tells; printed by its ids only."""

    action_id: int
    action_status: ActionStatus
    action_type: str
    created_at: datetime
    testing: bool
    custom_fields: dict[str, Any]
    donation: dict[str, Any] | None
    tracking: dict[str, Any] | None
    supporter_id: int
    supporter_status: SupporterStatus
    contact_ref: str
    dupe_rank: int | None
    with_consent: bool
    opt_in: bool | None
    given_at: datetime | None
    email_status: str | None
    email_status_changed_at: datetime | None
    forgotten_at: datetime | None
    email: str | None
    first_name: str | None
    area: str | None
    payload: str | None
    nonce: str | None
    encrypt_key: str | None
    sign_key: str | None
    page_id: int
    page_name: str
    locale: str
    thank_you_template: str | None
    supporter_confirm_template: str | None
    campaign_id: int
    campaign_name: str
    campaign_title: str
    external_id: int | None
    contact_schema: str
    campaign_supporter_confirm: bool | None
    campaign_action_confirm: bool | None
    organisation_id: int
    organisation_name: str
    organisation_title: str
    supporter_confirm: bool
    action_confirm: bool
    custom_supporter_confirm: bool
    custom_delivery: bool

    def __repr__(self) -> str:
        return f"<Case: action {self.action_id}, supporter {self.supporter_id}>"


@dataclass(frozen=True, slots=True)
class Found:
    """Whose action it is, before anything is locked."""

    action_id: int
    action_status: ActionStatus
    supporter_id: int | None
    supporter_status: SupporterStatus | None
    campaign_id: int
    contact_ref: str | None

    @property
    def lock(self) -> str:
        """The name of the lock on everything of this contact in the campaign."""
        return contact_lock(self.campaign_id, self.contact_ref or "")


def contact_lock(campaign_id: int, contact_ref: str) -> str:
    """Return the name of the lock that whoever changes a status of this contact in the campaign holds."""
    return f"{campaign_id} {contact_ref}"


async def find(connection: "AsyncConnection", action_id: int) -> Found | None:
    """Return whose action it is; None: there is no such action."""
    row = (await connection.execute(_finding().where(_action_id() == action_id))).one_or_none()
    return None if row is None else Found(*row)


async def unsettled(connection: "AsyncConnection", after: int, limit: int) -> list[Found]:
    """Return up to *limit* actions beyond the id *after* whose pair of statuses does not stay as it is."""
    from sqlalchemy import and_, or_

    from flow.records.tables import actions, supporters

    open_pairs = or_(
        *(
            and_(actions.c.processing_status == action, supporters.c.processing_status == supporter)
            for action, supporter in sorted(UNSETTLED)
        )
    )
    finding = _finding().where(open_pairs, actions.c.id > after).order_by(actions.c.id).limit(limit)
    return [Found(*row) for row in await connection.execute(finding)]


async def of_supporters(connection: "AsyncConnection", ids: Collection[int]) -> list[Case]:
    """Return the cases of the supporters *ids* by supporter and action; their rows are locked.

    The locks of their contacts are held already: what is read is what the last holder left.
    """
    from sqlalchemy import select

    from flow.records.tables import actions, supporters

    locking = select(supporters.c.id).where(supporters.c.id.in_(ids)).order_by(supporters.c.id)
    await connection.execute(locking.with_for_update())
    selecting = (
        _selecting()
        .where(actions.c.supporter_id.in_(ids))
        .order_by(supporters.c.id, actions.c.id)
        .with_for_update(of=actions)
    )
    return [Case(**row._mapping) for row in await connection.execute(selecting)]


async def ranked(
    connection: "AsyncConnection", contacts: Iterable[tuple[int, str]]
) -> dict[tuple[int, str], int]:
    """Return how many supporters have a rank, for each of the *contacts* (campaign, contact reference)."""
    from sqlalchemy import func, select, tuple_

    from flow.records.tables import supporters

    key = (supporters.c.campaign_id, supporters.c.contact_ref)
    counting = (
        select(*key, func.count())
        .where(tuple_(*key).in_(sorted(set(contacts))), supporters.c.dupe_rank.is_not(None))
        .group_by(*key)
    )
    return {(row[0], row[1]): row[2] for row in await connection.execute(counting)}


async def update_actions(connection: "AsyncConnection", statuses: Mapping[int, str], at: datetime) -> None:
    """Set the statuses of actions by id; they were processed *at* that moment."""
    from sqlalchemy import bindparam, update

    from flow.records.tables import actions

    if statuses:
        changing = (
            update(actions)
            .where(actions.c.id == bindparam("row"))
            .values(processing_status=bindparam("status"), processed_at=bindparam("at"))
        )
        rows = [{"row": id_, "status": status, "at": at} for id_, status in sorted(statuses.items())]
        await connection.execute(changing, rows)


async def update_supporters(
    connection: "AsyncConnection", changes: Mapping[int, tuple[str, int | None]]
) -> None:
    """Set the statuses and ranks of supporters by id."""
    from sqlalchemy import bindparam, update

    from flow.records.tables import supporters

    if changes:
        changing = (
            update(supporters)
            .where(supporters.c.id == bindparam("row"))
            .values(processing_status=bindparam("status"), dupe_rank=bindparam("rank"))
        )
        rows = [
            {"row": id_, "status": status, "rank": rank} for id_, (status, rank) in sorted(changes.items())
        ]
        await connection.execute(changing, rows)


async def update_email_status(
    connection: "AsyncConnection", supporter_id: int, email_status: str | None, at: datetime
) -> None:
    """Note what is known of a supporter's address since *at*."""
    from sqlalchemy import update

    from flow.records.tables import supporters

    await connection.execute(
        update(supporters)
        .where(supporters.c.id == supporter_id)
        .values(email_status=email_status, email_status_changed_at=at)
    )


def _action_id() -> Any:
    from flow.records.tables import actions

    return actions.c.id


def _finding() -> "Select[Any]":
    from sqlalchemy import select

    from flow.records.tables import actions, supporters

    return select(
        actions.c.id,
        actions.c.processing_status,
        supporters.c.id,
        supporters.c.processing_status,
        actions.c.campaign_id,
        supporters.c.contact_ref,
    ).select_from(actions.outerjoin(supporters, supporters.c.id == actions.c.supporter_id))


def _selecting() -> "Select[Any]":
    """All columns of a `Case`, under its names; a supporter whose data was erased has no contact."""
    from sqlalchemy import select

    from flow.records.tables import action_pages, actions, campaigns, contacts, organisations, supporters

    named = {
        "action_id": actions.c.id,
        "action_status": actions.c.processing_status,
        "supporter_id": supporters.c.id,
        "supporter_status": supporters.c.processing_status,
        "page_id": action_pages.c.id,
        "page_name": action_pages.c.name,
        "campaign_id": campaigns.c.id,
        "campaign_name": campaigns.c.name,
        "campaign_title": campaigns.c.title,
        "supporter_confirm": organisations.c.supporter_confirm,
        "action_confirm": organisations.c.action_confirm,
        "campaign_supporter_confirm": campaigns.c.supporter_confirm,
        "campaign_action_confirm": campaigns.c.action_confirm,
        "organisation_id": organisations.c.id,
        "organisation_name": organisations.c.name,
        "organisation_title": organisations.c.title,
    }
    tables = (actions, supporters, contacts, action_pages, campaigns, organisations)
    for name in Case.__dataclass_fields__:
        if name not in named:
            named[name] = next(table.c[name] for table in tables if name in table.c)
    joined = (
        actions.join(supporters, supporters.c.id == actions.c.supporter_id)
        .join(action_pages, action_pages.c.id == actions.c.action_page_id)
        .join(campaigns, campaigns.c.id == actions.c.campaign_id)
        .join(organisations, organisations.c.id == actions.c.organisation_id)
        .outerjoin(contacts, contacts.c.supporter_id == supporters.c.id)
    )
    return select(*(column.label(name) for name, column in named.items())).select_from(joined)
