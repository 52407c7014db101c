"""Organisations as the records know them: found by name, or all of them, with their settings."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from flow.records.tables import organisations


@dataclass(frozen=True, slots=True, kw_only=True)
class Organisation:
    """An organisation, and how its signatures are processed."""

    id: int
    name: str
    """Its short name, which is in the names of its queues."""
    title: str
    """For people."""
    supporter_confirm: bool
    """Supporters must be confirmed, unless a campaign says otherwise."""
    action_confirm: bool
    """Actions must be confirmed by a moderator, unless a campaign says otherwise."""
    custom_supporter_confirm: bool
    """It confirms supporters itself, from its queue `NAME.confirm`."""
    custom_delivery: bool
    """It takes delivery only through its own consumer: no thank-you mail, no SQS."""
    public_key: str | None
    """For which the personal data of new supporters is closed; base64url."""
    mail_from: str | None
    """The sender of its mails; None: the one of the mailer's settings."""


COLUMNS = [organisations.c[name] for name in Organisation.__dataclass_fields__]


async def find(connection: AsyncConnection, name: str) -> Organisation | None:
    """Return the organisation called *name*; None: there is none."""
    row = (await connection.execute(select(*COLUMNS).where(organisations.c.name == name))).one_or_none()
    return None if row is None else _made(row)


async def listed(connection: AsyncConnection) -> list[Organisation]:
    """Return all organisations by name."""
    return [_made(row) for row in await connection.execute(select(*COLUMNS).order_by(organisations.c.name))]


def _made(row: Any) -> Organisation:
    return Organisation(**row._mapping)
