"""Records of a run's own: those whom a message names by ids are found in them."""

import anyio
import pytest

from flow.records.mailing import Recipients
from flow.schema import IdsMessage
from flow.verify.bodies import BROKEN, Sample
from flow.verify.records import needed, opened
from tests.verify.planted import Mailing, Right

FIRST = b'{"schema": "proca:ids:1", "actionId": 7, "actionPageId": 3, "orgId": 5}'
OTHER = b'{"schema": "proca:ids:1", "actionId": 8, "actionPageId": 3, "orgId": 6}'


@pytest.mark.anyio
async def test_everybody_is_found_and_nothing_stays() -> None:
    samples = [Sample(name="x", body=body) for body in (FIRST, OTHER, FIRST, BROKEN)]
    bodies = [IdsMessage(action_id=number, action_page_id=3, org_id=5) for number in (7, 8, 9)]
    async with opened(samples) as (database, url):
        found = await Recipients(database).find(bodies)
        folder = anyio.Path(url.removeprefix("sqlite:///")).parent
        assert await folder.exists()

    assert {number: one.email for number, one in found.items()} == {
        7: "verify+7@example.org",
        8: "verify+8@example.org",
    }
    assert (found[7].with_consent, found[7].status) == (True, "confirming")
    assert not await folder.exists()


def test_a_claim_needs_them_and_so_does_who_has_some() -> None:
    assert needed(Mailing, {})
    assert not needed(Right, {})
    assert needed(Right, {"FLOW_DATABASE_URL": "postgresql://real"})
    assert needed(Right, {"FLOW_DATABASE_URL_FILE": "/run/secrets/database"})
