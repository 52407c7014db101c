"""The broker stands still for a while and goes on. On a node of its own."""

from collections.abc import Iterator

import anyio
import pytest

from tests.broker.queues import PATIENCE
from tests.faults.conftest import private_node
from tests.faults.world import World
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = pytest.mark.anyio

WINDOW = 100
HEARTBEAT = 10.0  # seconds; a broker that is silent for two of them is given up


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQNode]:
    yield from private_node()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("seconds", [60.0, 5.0])
async def test_the_broker_stands_still(world: World, rabbitmq: RabbitMQNode, seconds: float) -> None:
    """F14: for a short time nobody minds; else it is given up, tried again, and consumed when it goes on."""
    noticed = seconds > 2 * HEARTBEAT
    ids = await world.ledger.publish(300)
    world.sink.faults.delay = 0.1
    running = await world.run("Batches", "--prefetch", str(WINDOW))
    with anyio.fail_after(PATIENCE):
        await world.sink.until(lambda: len(world.ledger.effects) >= 50)
    rabbitmq.freeze()
    try:
        thaws = anyio.current_time() + seconds
        if noticed:
            await running.says("has been silent", seconds)
            await running.says("the next try is in", seconds)
        await anyio.sleep_until(thaws)
    finally:
        rabbitmq.thaw()
    await world.told(set(ids), 120)
    await world.idle(running)  # what was acknowledged in vain comes again
    await world.stop(running)

    await world.check(again=WINDOW if noticed else 0)
    assert any("lost its session" in line for line in running.lines) == noticed
