"""Faults of the database under the ledger, while messages come all the time."""

from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import anyio
import httpx2
import pytest

from tests.broker.queues import eventually
from tests.end_to_end.conftest import FlowProcess
from tests.faults.world import World
from tests.nodes.postgresql_node import PostgreSQLNode

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(240)]

MODULE = "tests.faults.recorded"
DOWN = "the ledger is down, nothing is started: "


@pytest.fixture(autouse=True)
def running_again(postgresql: PostgreSQLNode) -> Iterator[None]:
    """Leave the server running, which other tests use too."""
    yield
    if not postgresql.runs:
        postgresql.start()


@asynccontextmanager
async def coming(world: World) -> AsyncIterator[None]:
    """Publish messages all the time."""

    async def publish() -> None:
        while True:
            with anyio.CancelScope(shield=True):  # what is confirmed is to be counted
                await world.ledger.publish(5)
            await anyio.sleep(0.1)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(publish)
        yield
        tasks.cancel_scope.cancel()


async def told_more(world: World, count: int) -> None:
    """Wait until the sink was told of *count* more messages."""
    enough = len(world.ledger.effects) + count
    with anyio.fail_after(60):
        await world.sink.until(lambda: len(world.ledger.effects) >= enough)


def said(running: FlowProcess, words: str) -> list[str]:
    return [line for line in running.lines if words in line]


@pytest.mark.parametrize("pipeline", ["Recorded", "Mailed"])
async def test_a_database_that_goes_and_comes_back(
    postgresql: PostgreSQLNode, postgresql_url: str, world: World, pipeline: str
) -> None:
    """F44: all of it waits and goes on by itself; nothing is lost, and nothing happens twice."""
    running = await world.run(pipeline, module=MODULE, FLOW_DATABASE_URL=postgresql_url)
    address = (await running.says("metrics and health at")).rpartition(" ")[2]

    async with httpx2.AsyncClient() as client, coming(world):
        for outage in (1, 2):
            await told_more(world, 30)
            postgresql.stop()

            async def unready() -> bool:
                return (await client.get(f"{address}/readyz")).status_code == 503

            await eventually(unready)
            before = len(world.ledger.confirmed)
            while len(world.ledger.confirmed) < before + 50:  # noqa: ASYNC110  # it stays away for a while
                await anyio.sleep(0.1)
            reason = (await client.get(f"{address}/readyz")).text
            postgresql.start()
            await told_more(world, 30)
            assert len(said(running, DOWN)) == outage, running.lines
            assert len(said(running, "the ledger works again")) == outage, running.lines
            assert "the ledger is down" in reason

    await world.ends()
    await world.idle(running)
    await world.stop(running)

    assert world.ledger.effects == Counter(world.ledger.confirmed)
    for line in said(running, DOWN):
        assert f"127.0.0.1:{postgresql.port}, database " in line
    await world.check(again=0)
    assert not world.ledger.parked
    assert await unsettled(postgresql_url) == 0
    assert await rows(postgresql_url) == len(world.ledger.confirmed)


async def test_asked_to_stop_while_the_database_is_away(
    postgresql: PostgreSQLNode, postgresql_url: str, world: World
) -> None:
    """F44: it ends in time; what it could not write down goes back, and is not sent again by the next one."""
    database = {"module": MODULE, "FLOW_DATABASE_URL": postgresql_url}
    stopped = await world.run("Mailed", "--shutdown-timeout", "3", **database)
    async with coming(world):
        await told_more(world, 30)
        postgresql.stop()
        await stopped.says(DOWN)
    code = await stopped.stop()
    postgresql.start()

    second = await world.run("Mailed", **database)
    await second.says("consumes acme.crm")
    await world.idle(second)
    await world.stop(second)
    await world.ledger.drain()

    unknown = set(world.ledger.parked)
    assert code == 0, stopped.lines
    assert stopped.account["returned"] > 0
    assert set(world.ledger.effects.values()) == {1}
    assert set(world.ledger.effects) | unknown == world.ledger.confirmed
    assert len(unknown) <= 2, "one for each of the two batches that were being delivered"


async def rows(url: str, condition: str = "true") -> int:
    """Return how many rows the ledger has."""
    import psycopg

    async with await psycopg.AsyncConnection.connect(url) as connection:
        found = await connection.execute(f"SELECT count(*) FROM ledger WHERE {condition}")  # type: ignore[arg-type]
        one = await found.fetchone()
    assert one is not None
    return int(one[0])


async def unsettled(url: str) -> int:
    return await rows(url, "unsettled")
