"""Faults of the broker: killed, restarted, frozen. On a node of its own."""

from collections.abc import Iterator

import anyio
import pytest

from tests.faults.conftest import private_node
from tests.faults.world import World
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = pytest.mark.anyio

WINDOW = 100


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQNode]:
    yield from private_node()


async def reached(world: World, count: int) -> None:
    """Wait until the sink was told of so many messages."""
    with anyio.fail_after(120):
        await world.sink.until(lambda: len(world.ledger.effects) >= count)


@pytest.mark.timeout(300)
async def test_the_broker_is_killed(world: World, rabbitmq: RabbitMQNode) -> None:
    """F11: while it is consumed, while messages are parked, and in a storm of rejections."""
    await rabbitmq.restart()  # a quorum queue that was never on the disk may not survive a kill
    ids = await world.ledger.publish(600)
    hopeless = set(ids[5::10])
    world.sink.faults.delay = 0.1
    world.sink.faults.invalid = dict.fromkeys(hopeless, "no_such_country")
    world.sink.faults.busy = dict.fromkeys(ids[::3], 2)
    running = await world.run("Batches", "--prefetch", str(WINDOW))
    for part in (100, 300):
        await reached(world, part)
        rabbitmq.kill()
        await rabbitmq.start()
    await world.told(set(ids) - hopeless, 120)
    with anyio.fail_after(60):
        while sum(" parked " in line for line in running.lines) < len(hopeless):  # noqa: ASYNC110
            await anyio.sleep(0.1)
    await world.idle(running)
    await world.stop(running)

    await world.check(again=2 * WINDOW, parked_again=2 * WINDOW, complaints=".")
    assert set(world.ledger.parked) == hopeless


@pytest.mark.timeout(300)
async def test_the_broker_is_restarted(world: World, rabbitmq: RabbitMQNode) -> None:
    """F12: stopped and started in order, once as an application and once as a whole."""
    ids = await world.ledger.publish(400)
    world.sink.faults.delay = 0.1
    running = await world.run("Batches", "--prefetch", str(WINDOW))
    await reached(world, 50)
    await rabbitmq.ctl("stop_app")
    await rabbitmq.ctl("start_app")
    await reached(world, 200)
    await rabbitmq.restart()
    await world.told(set(ids), 120)
    await world.idle(running)  # what was acknowledged in vain comes again
    await world.stop(running)

    await world.check(again=2 * WINDOW)
    assert any("CONNECTION_FORCED" in line for line in running.lines), running.lines
