"""How effects ended is noted with the beginning of the next one, in the database and in memory."""

import pytest

from flow.claim import Claims, Hold
from flow.records.claims import SqlClaims
from flow.records.database import Database
from flow.records.memory_ledger import MemoryLedger

pytestmark = pytest.mark.anyio


async def held(claims: Claims) -> dict[str, Hold]:
    """Return how the claims stand for another worker, when their time has passed."""
    found = await claims.take("mailer", ["a", "b", "c"], "other", 60.0, "park")
    return {key: standing.hold for key, standing in found.items()}


@pytest.mark.parametrize("kind", ["database", "memory"])
async def test_a_kill_leaves_in_doubt_only_the_effect_that_was_under_way(
    database: Database, kind: str
) -> None:
    claims: Claims = SqlClaims(database) if kind == "database" else MemoryLedger()
    await claims.take("mailer", ["a", "b", "c"], "killed", 0.0, "park")
    for key, ended in (("a", {}), ("b", {"done": ["a"]}), ("c", {"undone": ["b"]})):
        assert await claims.begin("mailer", key, "killed", 0.0, **ended)

    assert await held(claims) == {"a": Hold.DONE, "b": Hold.OURS, "c": Hold.UNKNOWN}


async def test_another_holder_cannot_end_what_is_not_its_own(database: Database) -> None:
    claims = SqlClaims(database)
    await claims.take("mailer", ["a"], "first", 60.0, "park")
    await claims.begin("mailer", "a", "first", 60.0)
    await claims.take("mailer", ["b"], "second", 60.0, "park")
    await claims.begin("mailer", "b", "second", 60.0, done=["a"])

    assert (await held(claims))["a"] is Hold.ELSEWHERE
