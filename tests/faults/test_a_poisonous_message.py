"""A message that ends the process, with its starts noted in the database of the records."""

import os
import signal

import anyio
import pytest
from sqlalchemy import func, select

from flow.records.database import Database
from flow.records.tables import starts
from tests.broker.queues import eventually
from tests.end_to_end.conftest import FlowProcess
from tests.faults.test_process import parked
from tests.faults.world import World
from tests.nodes.postgresql_node import PostgreSQLNode

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

WINDOW = 20
DOWN = "the ledger is down, nothing is started: "


async def noted(url: str) -> int:
    """Return how many starts have no end."""
    async with Database.opened(url) as database, database.reading() as connection:
        return await connection.scalar(select(func.count()).select_from(starts)) or 0


async def test_a_message_that_ends_the_process_is_parked(
    database_url: str, world: World, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Fault F03 with the ledger: no folder is needed, and its neighbours are not told again and again."""
    folder = tmp_path_factory.mktemp("unused")
    told = {"FLOW_DATABASE_URL": database_url, "FLOW_STATE_DIR": str(folder), "SINK_EXITS_AT": "30"}
    await noted(database_url)  # which makes the tables
    world.sink.faults.delay = 0.1
    ids = await world.ledger.publish(60)
    crashes = 0
    running = await world.run("Singles", "--prefetch", str(WINDOW), **told)
    with anyio.fail_after(120):
        while not await parked(world, running):
            assert running.code == 9, running.lines
            crashes += 1
            running = await world.run("Singles", "--prefetch", str(WINDOW), **told)
    await world.told(set(ids) - {ids[29]})
    await world.idle(running)
    await world.stop(running)

    assert 2 <= crashes <= 8
    assert "crashed the worker: it was started 2 times" in await running.says("parked")
    assert await noted(database_url) == 0
    assert not os.listdir(folder)
    await world.check(again=WINDOW * crashes)
    assert set(world.ledger.parked) == {ids[29]}


async def test_it_is_not_started_while_its_start_cannot_be_noted(
    postgresql: PostgreSQLNode, postgresql_url: str, world: World
) -> None:
    """The database goes away after the redelivery was looked up, and before its start."""
    told = {"FLOW_DATABASE_URL": postgresql_url}
    ids = await world.ledger.publish(2)
    held = {"SINK_HANGS_AT": "1", "SINK_SLOW_AT": "2", "SINK_SLOW": "600"}  # neither reaches a batch
    for _ in range(3):  # so that both are suspects
        killed = await world.run("Batches", **held, **told)
        await killed.says("consumes acme.crm")
        await shows(world, killed, 'flow_unsettled{pipeline="batches",queue="acme.crm"} 2.0')
        killed.signal(signal.SIGKILL)
        await killed.end()

    poisoned = await world.run("Batches", SINK_SLOW_AT="1", SINK_SLOW="3", SINK_EXITS_AT="2", **told)
    await poisoned.says("consumes acme.crm")

    async def begun() -> bool:  # the first is being worked, and the second waits for it
        return await noted(postgresql_url) == 1

    await eventually(begun)
    postgresql.stop()
    try:
        await poisoned.says(DOWN)
        await world.told({ids[0]})
        await shows(world, poisoned, 'flow_in_progress{pipeline="batches"} 1.0')
    finally:
        postgresql.start()
    assert await poisoned.end() == 9
    assert await noted(postgresql_url) == 1

    second = await world.run("Batches", SINK_EXITS_AT="2", **told)
    assert await second.end() == 9
    third = await world.run("Batches", SINK_EXITS_AT="2", **told)
    await third.says("crashed the worker: it was started 2 times")
    await world.told({ids[0]})
    await world.idle(third)
    await world.stop(third)
    await world.check(again=0)
    assert set(world.ledger.parked) == {ids[1]}


async def shows(world: World, running: FlowProcess, line: str) -> None:
    """Wait until the metrics of a process have a *line*."""

    async def shown() -> bool:
        return line in await world.metrics(running)

    await eventually(shown)
