"""What old senders write differently is accepted."""

import json
from datetime import UTC, datetime

import msgspec
import pytest

from tests.bodies import NAMES, changed, decoded, sample


@pytest.mark.parametrize("path", ["actionId", "orgId", "campaign.id"])
def test_an_id_may_be_text(path: str) -> None:
    body = decoded(changed("action", path, "614")).body

    assert {"actionId": body.action_id, "orgId": body.org_id, "campaign.id": body.campaign.id}[path] == 614


def test_a_time_without_an_offset_is_utc() -> None:
    message = decoded(changed("action", "action.createdAt", "2026-02-19 15:17:29.5"))

    assert message.occurred_at == datetime(2026, 2, 19, 15, 17, 29, 500_000, tzinfo=UTC)
    assert decoded(sample("campaign_updated")).occurred_at == datetime(2026, 2, 21, 10, tzinfo=UTC)


@pytest.mark.parametrize("path", ["action.testing", "action.customFields", "campaign.title", "org.title"])
def test_null_is_the_same_as_absence(path: str) -> None:
    body = decoded(changed("action", path, None)).body
    parent, _, name = path.partition(".")
    absent = json.loads(sample("action"))
    del absent[parent][name]

    assert body == decoded(absent).body


@pytest.mark.parametrize("name", [name for name in NAMES if "old" not in name and name != "campaign_updated"])
def test_the_tolerant_way_reads_the_same_as_the_fast_one(name: str) -> None:
    fast = decoded(sample(name)).body
    text = json.loads(sample(name))
    known = "campaignId" if "actionId" not in text else "actionId"

    slow = decoded({**text, known: str(text.get(known, 0))}).body

    assert slow == (fast if known in text else msgspec.structs.replace(fast, campaign_id=0))
