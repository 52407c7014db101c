"""Whom the mails of a batch go to: one query for all of them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec

from flow.codec import tried
from flow.errors import DatabaseDown
from flow.outcome import Skip, Unavailable
from flow.records.database import Database
from flow.records.url import DatabaseUrl
from flow.schema import ActionMessage, CustomFields, Donation, Id, IdsMessage, Time, Wire

if TYPE_CHECKING:
    from sqlalchemy import Select


class Recipient(Wire, frozen=True, kw_only=True):
    """A supporter with the action that a mail is about; printed without its personal data."""

    action_id: Id
    supporter_id: Id | None = None
    """None: known from a message only."""
    org_id: Id | None = None
    contact_ref: str
    email: str | None = None
    first_name: str | None = None
    status: str | None = None
    """The supporter's processing status; None: known from a message only."""
    dupe_rank: int | None = None
    with_consent: bool = False
    opt_in: bool | None = None
    email_status: str | None = None
    forgotten: bool = False
    testing: bool = False
    action_type: str
    created_at: Time
    custom_fields: CustomFields
    donation: Donation | None = None
    page: str
    locale: str
    thank_you_template: str | None = None
    duplicate_template: str | None = None
    confirm_template: str | None = None
    campaign: str
    campaign_title: str
    org: str = ""
    org_title: str = ""
    mail_from: str | None = None
    """The organisation's own sender; None: the one of the settings."""


class Recipients:
    """Finds recipients: in the records when there are any, else in the messages themselves."""

    def __init__(self, database: Database | None = None) -> None:
        """Take the *database* of the records; None: only messages with full data can be served."""
        self.database = database

    @classmethod
    @asynccontextmanager
    async def opened(cls, environment: Mapping[str, str]) -> "AsyncIterator[Recipients]":
        """Open the records that FLOW_DATABASE_URL of *environment* names, if it is set.

        Raises:
            ConfigError: the database is wrong, or cannot be reached.
        """
        url = DatabaseUrl.from_environment(environment)
        if url is None:
            yield cls()
            return
        async with Database.opened(url) as database:
            yield cls(database)

    async def find(self, bodies: "Sequence[IdsMessage | ActionMessage]") -> "dict[int, Recipient]":
        """Return the recipients of *bodies* by the id of the action, by one query for all of them.

        What the records say wins over what stands in a message: it is newer. A recipient that is in neither
        is missing.

        Raises:
            Unavailable: the database does not answer.
        """
        found = {body.action_id: of_message(body) for body in bodies if isinstance(body, ActionMessage)}
        if self.database is not None and bodies:
            query = recipients({body.action_id for body in bodies})
            try:
                async with self.database.reading() as connection:
                    rows = (await connection.execute(query)).mappings().all()
            except DatabaseDown as error:
                raise Unavailable(str(error)) from None
            found |= {row["action_id"]: of_row(row) for row in rows}
        return found


async def own_senders(database: Database, org_ids: "set[int]") -> "dict[int, str]":
    """Return the senders of the organisations with *org_ids* that have one of their own, by one query.

    Raises:
        DatabaseDown: the database does not answer.
    """
    from sqlalchemy import select

    from flow.records.tables import organisations

    query = select(organisations.c.id, organisations.c.mail_from).where(organisations.c.id.in_(org_ids))
    async with database.reading() as connection:
        rows = (await connection.execute(query)).all()
    return {row[0]: row[1] for row in rows if row[1]}


def reachable(recipient: Recipient) -> Recipient:
    """Return *recipient* if mail may be sent to them.

    Raises:
        Skip: their data was removed, or mail to them failed before or was called spam.
    """
    if recipient.forgotten:
        raise Skip("the personal data was removed")
    if recipient.email_status in ("bounce", "blocked", "spam"):
        raise Skip(f"no mail goes to an address with the status {recipient.email_status}")
    return recipient


def of_message(body: ActionMessage) -> Recipient:
    """Return the recipient that a message with full data names."""
    page, privacy, org = body.action_page, body.privacy, body.org
    return Recipient(
        action_id=body.action_id,
        org_id=body.org_id,
        contact_ref=body.contact.contact_ref,
        email=body.contact.email,
        first_name=body.contact.first_name,
        dupe_rank=body.contact.dupe_rank,
        with_consent=privacy is not None and privacy.with_consent,
        opt_in=privacy.opt_in if privacy else None,
        email_status=privacy.email_status if privacy else None,
        testing=body.action.testing,
        action_type=body.action.action_type,
        created_at=body.action.created_at,
        custom_fields=body.action.custom_fields,
        donation=body.action.donation,
        page=page.name,
        locale=page.locale,
        thank_you_template=page.thank_you_template or None,
        confirm_template=page.supporter_confirm_template or None,
        campaign=body.campaign.name,
        campaign_title=body.campaign.title or body.campaign.name,
        org=org.name if org else "",
        org_title=(org.title or org.name) if org else "",
    )


def of_row(row: Mapping[Any, Any]) -> Recipient:
    """Return the recipient in a *row* of the query."""
    values = dict(row)
    values["forgotten"] = values.pop("forgotten_at") is not None
    values["contact_ref"] = values["contact_ref"] or ""
    values["campaign_title"] = values["campaign_title"] or values["campaign"]
    values["org_title"] = values["org_title"] or values["org"]
    for name in ("thank_you_template", "duplicate_template", "confirm_template", "mail_from"):
        values[name] = values[name] or None
    values["with_consent"] = bool(values["with_consent"])
    if values["donation"] is not None:
        values["donation"], _ = tried(msgspec.convert, values["donation"], Donation)  # None if it is none
    return Recipient(**values)


def recipients(ids: "set[int]") -> "Select[Any]":
    """Return the query for the recipients of the actions with these *ids*."""
    from sqlalchemy import select

    from flow.records.tables import (
        action_pages,
        actions,
        campaigns,
        contacts,
        organisations,
        placed_actions,
        supporters,
    )

    joined = placed_actions.outerjoin(contacts, contacts.c.supporter_id == supporters.c.id)
    columns = (
        actions.c.id.label("action_id"),
        actions.c.supporter_id,
        actions.c.organisation_id.label("org_id"),
        supporters.c.contact_ref,
        contacts.c.email,
        contacts.c.first_name,
        supporters.c.processing_status.label("status"),
        supporters.c.dupe_rank,
        supporters.c.with_consent,
        supporters.c.opt_in,
        supporters.c.email_status,
        supporters.c.forgotten_at,
        actions.c.testing,
        actions.c.action_type,
        actions.c.created_at,
        actions.c.custom_fields,
        actions.c.donation,
        action_pages.c.name.label("page"),
        action_pages.c.locale,
        action_pages.c.thank_you_template,
        action_pages.c.duplicate_template,
        action_pages.c.supporter_confirm_template.label("confirm_template"),
        campaigns.c.name.label("campaign"),
        campaigns.c.title.label("campaign_title"),
        organisations.c.name.label("org"),
        organisations.c.title.label("org_title"),
        organisations.c.mail_from,
    )
    return select(*columns).select_from(joined).where(actions.c.id.in_(sorted(ids)))
