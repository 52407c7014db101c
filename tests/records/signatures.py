"""Rows that tests begin with: an organisation with a campaign and a page, and people who signed."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import insert
from sqlalchemy.ext.asyncio import AsyncConnection

from flow.records.tables import (
    action_pages,
    actions,
    campaigns,
    contacts,
    ledger,
    organisations,
    outbox,
    published,
    supporters,
)

START = datetime(2026, 2, 19, 15, 17, 29, tzinfo=UTC)


def after(seconds: float) -> datetime:
    """Return a moment so many seconds after the first one."""
    return START + timedelta(seconds=seconds)


async def add(connection: AsyncConnection, table: Any, **values: Any) -> int:
    """Add a row and return its id."""
    made: int = (await connection.execute(insert(table).values(**values).returning(table.c.id))).scalar_one()
    return made


async def page(connection: AsyncConnection, name: str = "acme") -> dict[str, int]:
    """Add an organisation, a campaign and a page; return their ids as the columns that refer to them."""
    organisation = await add(connection, organisations, name=name)
    campaign = await add(connection, campaigns, name=f"{name}_rivers", organisation_id=organisation)
    where = {"organisation_id": organisation, "campaign_id": campaign}
    return where | {"action_page_id": await add(connection, action_pages, name=f"{name}/de", **where)}


async def supporter(
    connection: AsyncConnection, where: dict[str, int], name: str, status: str = "accepted"
) -> int:
    """Add a supporter whose data all hold *name*."""
    email = f"{name}@example.org"
    made = await add(
        connection,
        supporters,
        **where,
        contact_ref=f"ref-{name}",
        processing_status=status,
        email_status="double_opt_in",
        email_status_changed_at=after(3),
        created_at=START,
    )
    row = {"email": email, "first_name": name, "area": "DE", "payload": json.dumps({"email": email})}
    await connection.execute(insert(contacts).values(supporter_id=made, **row))
    return made


async def action(
    connection: AsyncConnection,
    where: dict[str, int],
    supporter_id: int | None,
    name: str,
    status: str = "delivered",
) -> int:
    """Add an action whose fields hold *name*, with a message that waits, one that went, and a ledger."""
    made = await add(
        connection,
        actions,
        **where,
        supporter_id=supporter_id,
        action_type="register",
        processing_status=status,
        custom_fields={"comment": f"I am {name}"},
        donation={"amount": 1250, "payload": {"holder": f"account of {name}"}},
        tracking={"source": name},
        created_at=START,
        processed_at=after(4),
    )
    about = {"exchange": "deliver", "routing_key": "acme.system.action", "action_id": made}
    body = json.dumps({"contact": {"email": f"{name}@example.org"}}).encode()
    await add(
        connection,
        outbox,
        message_id=f"w-{made}",
        body=body,
        created_at=after(5),
        supporter_id=supporter_id,
        **about,
    )
    await add(connection, published, message_id=f"p-{made}", published_at=after(6), **about)
    entry = {"pipeline": "Crm", "queue": "acme.crm", "identity": b"x" * 32, "record_id": str(made)}
    await add(
        connection,
        ledger,
        **entry,
        attempt=1,
        outcome="retrying",
        reason=f"who is {name}?",
        after=500,
        at=after(7),
    )
    await add(
        connection,
        ledger,
        **entry,
        attempt=2,
        outcome="delivered",
        target_id="crm-77",
        at=after(8),
        unsettled=False,
    )
    return made
