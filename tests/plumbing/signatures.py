"""Signatures for tests of processing: what defines their organisations, and what the records hold of them."""

from typing import Any

import msgspec
from sqlalchemy import select

from flow.plumbing.submission import Action, ActionPage, Campaign, Definition, Organisation
from flow.plumbing.submitting import Submitted, Submitting
from flow.records.database import Database
from flow.records.tables import actions, outbox, supporters
from tests.plumbing.signature_model import Org, Sent


def definitions(org: Org, public_key: str | None = None) -> list[Definition]:
    """What must be there before anybody can sign for *org*: a campaign and a page of its own."""
    said: dict[str, Any] = {"public_key": public_key} if org.encrypted else {}
    return [
        Organisation(
            name=org.name,
            supporter_confirm=org.supporter_confirm,
            action_confirm=org.action_confirm,
            custom_supporter_confirm=org.custom_supporter,
            custom_delivery=org.custom_delivery,
            **said,
        ),
        Campaign(
            name=f"rivers_{org.name}",
            organisation=org.name,
            supporter_confirm=org.campaign_supporter_confirm,
            action_confirm=org.campaign_action_confirm,
        ),
        ActionPage(name=f"rivers/{org.name}", campaign=f"rivers_{org.name}", organisation=org.name),
    ]


async def define(database: Database, org: Org, public_key: str | None = None) -> None:
    """Make an organisation, its campaign and its page."""
    for definition in definitions(org, public_key):
        await Submitting(database).define(definition)


def signature(org: Org, email: str, **more: Any) -> Action:
    """Somebody signs."""
    contact = {"email": email, "firstName": "Ada", "lastName": "Waters"}
    return Action(action_page=f"rivers/{org.name}", contact=contact, **more)


async def submit(database: Database, *several: Action) -> list[Submitted]:
    """Submit what is right."""
    results = await Submitting(database).submit(several)
    assert all(isinstance(one, Submitted) for one in results), results
    return [one for one in results if isinstance(one, Submitted)]


async def statuses(database: Database) -> dict[int, tuple[str, str | None, int | None]]:
    """Return the statuses of all actions, with their supporter's status and rank."""
    reading = select(
        actions.c.id, actions.c.processing_status, supporters.c.processing_status, supporters.c.dupe_rank
    ).outerjoin(supporters, supporters.c.id == actions.c.supporter_id)
    async with database.reading() as connection:
        return {row[0]: (row[1], row[2], row[3]) for row in await connection.execute(reading)}


async def outgoing(database: Database, org: str) -> list[tuple[str, str, bytes]]:
    """Return what waits to be published for an organisation: exchange, key, body."""
    reading = select(outbox.c.exchange, outbox.c.routing_key, outbox.c.body).order_by(outbox.c.id)
    async with database.reading() as connection:
        rows = await connection.execute(reading.where(outbox.c.routing_key.startswith(f"{org}.")))
        return [(row[0], row[1], row[2]) for row in rows]


def told(exchange: str, key: str, raw: bytes, numbers: dict[int, int]) -> Sent:
    """Return a message in the words of the model; *numbers* are those of the actions there, by id."""
    body = msgspec.json.decode(raw)
    if body["schema"] == "proca:event:2":
        supporter = body["supporter"]
        rank = supporter["contact"]["dupeRank"]
        about = str(supporter["privacy"]["emailStatus"])
        return Sent(exchange, key, body["schema"], about, numbers[body["actionId"]], rank)
    rank = body.get("contact", {}).get("dupeRank")
    return Sent(exchange, key, body["schema"], body["stage"], numbers[body["actionId"]], rank)
