"""Faults of a process whose ledger is in a database: what was written down is not done again."""

import signal
from collections import Counter

import anyio
import anyio.lowlevel
import pytest

from tests.faults.world import World

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]

MODULE = "tests.faults.recorded"


async def test_killed_between_the_row_and_the_acknowledgement(database_url: str, world: World) -> None:
    """Fault F02 with the ledger: the broker delivers all of it again, and none of it is worked again."""
    await prepare(database_url)
    ids = await world.ledger.publish(10)
    database = {"module": MODULE, "FLOW_DATABASE_URL": database_url}
    killed = await world.run("Recorded", **database, SINK_KILLED_WRITTEN="10")
    assert await killed.end() == -signal.SIGKILL

    second = await world.run("Recorded", **database)
    await world.idle(second)
    metrics = await world.metrics(second)
    await world.stop(second)

    assert world.ledger.effects == Counter(ids)
    assert 'flow_duplicates_skipped_total{pipeline="recorded"} 10.0' in metrics
    await world.check(again=0)


async def test_two_workers_share_what_was_done(database_url: str, world: World) -> None:
    """Fault F36, between workers: what one has written down and not told, the other one settles."""
    await prepare(database_url)
    ids = await world.ledger.publish(10)
    database = {"module": MODULE, "FLOW_DATABASE_URL": database_url}
    first = await world.run("Recorded", **database, SINK_STUCK_WRITTEN="10")
    await world.ends()
    second = await world.run("Recorded", **database)
    await second.says("consumes acme.crm")
    more = await world.ledger.publish(10)
    await world.told(set(more[:1]))
    first.signal(signal.SIGKILL)
    await first.end()

    await world.ends()
    await world.idle(second)
    await world.stop(second)

    assert world.ledger.effects == Counter([*ids, *more])
    await world.check(again=0)


async def test_killed_in_the_middle_of_effects_that_must_not_repeat(database_url: str, world: World) -> None:
    """Fault F01 with claims: at most one unknown outcome, which is parked; nothing happens twice."""
    await prepare(database_url)
    ids = await world.ledger.publish(40)
    database = {"module": MODULE, "FLOW_DATABASE_URL": database_url}
    killed = await world.run("Mailed", **database, SINK_KILLED_AT="15")
    assert await killed.end() == -signal.SIGKILL

    second = await world.run("Mailed", **database)
    await second.says("consumes acme.crm")
    await world.idle(second)
    await world.stop(second)
    await world.ledger.drain()

    unknown = set(world.ledger.parked)
    assert set(world.ledger.effects.values()) == {1}
    assert set(world.ledger.effects) | unknown == set(ids)
    assert ids[14] in unknown
    assert len(unknown) <= 2, "one for each of the two batches that were being delivered"


async def test_without_a_database_nothing_is_parked_as_unknown(world: World) -> None:
    refused = await world.run("Mailed", module=MODULE)

    assert await refused.end() == 78
    assert any("set FLOW_DATABASE_URL" in line for line in refused.lines), refused.lines


async def prepare(url: str) -> None:
    """Give a SQLite file its tables before two processes want to."""
    from flow.records.database import Database

    async with Database.opened(url):
        await anyio.lowlevel.checkpoint()
