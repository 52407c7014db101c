"""Records of a run's own, which pass with it: those who mail find in them whose ids a message holds."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec

from flow.codec import tried
from flow.pipeline import Pipeline
from flow.records.database import Database
from flow.records.url import VARIABLE
from flow.schema import IdsMessage
from flow.testing.bodies import signature
from flow.verify.bodies import Sample

FILE = f"{VARIABLE}_FILE"
CAMPAIGN = 1
BODY = msgspec.json.Decoder(IdsMessage)


def needed(cls: type[Pipeline[Any, Any]], environment: Mapping[str, str]) -> bool:
    """Tell whether *cls* has a claim, or *environment* names a database, which it must not touch."""
    return cls.claim is not None or any(environment.get(name) for name in (VARIABLE, FILE))


@asynccontextmanager
async def opened(samples: Sequence[Sample]) -> "AsyncIterator[tuple[Database, str]]":
    """Open new records that know the actions of *samples*; return them with their URL.

    Raises:
        ConfigError: a library is missing, or there is no place for a file.
    """
    with TemporaryDirectory(prefix="flow-verify-") as folder:
        url = f"sqlite:///{Path(folder) / 'records.db'}"
        async with Database.opened(url) as database:
            await fill(database, [sample.body for sample in samples])
            yield database, url


async def fill(database: Database, bodies: Sequence[bytes]) -> None:
    """Write down the action of each body that holds only ids: a signature of somebody to be confirmed."""
    read = [tried(BODY.decode, body)[0] for body in bodies]
    known = {body.action_id: body for body in read if body is not None}
    if not known:
        return
    found: dict[Any, dict[int, dict[str, Any]]] = {}
    for body in known.values():
        for table, row in rows(body):
            found.setdefault(table, {})[row.get("id", body.action_id)] = row
    async with database.begin() as connection:
        for table, wanted in found.items():
            await connection.execute(table.insert(), list(wanted.values()))


def rows(body: IdsMessage) -> list[tuple[Any, dict[str, Any]]]:
    """Return what is to be written about *body*, in an order in which each row finds those it names.

    Each comes with its table.
    """
    from flow.records.tables import action_pages, actions, campaigns, contacts, organisations, supporters

    number, org, page = body.action_id, body.org_id, body.action_page_id
    made = signature(number)
    place = {"organisation_id": org, "campaign_id": CAMPAIGN}
    where = {**place, "action_page_id": page, "processing_status": "confirming"}
    return [
        (organisations, {"id": org, "name": f"verify_{org}", "title": "River Club"}),
        (campaigns, {"id": CAMPAIGN, "organisation_id": org, "name": made.campaign.name}),
        (action_pages, {"id": page, **place, "name": f"verify/{page}", "thank_you_template": "thank_you"}),
        (
            supporters,
            {
                "id": number,
                **where,
                "contact_ref": made.contact.contact_ref,
                "dupe_rank": 0,
                "with_consent": True,
                "opt_in": True,
            },
        ),
        (
            contacts,
            {
                "supporter_id": number,
                "email": f"verify+{number}@example.org",
                "first_name": made.contact.first_name,
                "payload": "{}",
            },
        ),
        (
            actions,
            {
                "id": number,
                **where,
                "supporter_id": number,
                "action_type": made.action.action_type,
                "custom_fields": {},
            },
        ),
    ]
