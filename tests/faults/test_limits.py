"""What the broker does with unacknowledged and rejected messages, on a node that is soon impatient."""

from collections.abc import Iterator

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.plumbing.setup import set_up, topology_for
from flow.topology import FAIL_EXCHANGE, RETRY_EXCHANGE, RETRY_QUEUE
from tests.broker.queues import eventually
from tests.faults.conftest import private_node
from tests.faults.ledger import QUEUE, channel
from tests.faults.world import World
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = pytest.mark.anyio

# Acknowledgements must come within 6 seconds, and it is looked every second whether they did.
IMPATIENT = ("{consumer_timeout, 6000}", "{channel_tick_interval, 1000}")


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[RabbitMQNode]:
    yield from private_node(*IMPATIENT)


@pytest.mark.timeout(180)
async def test_the_broker_waits_no_longer_for_an_acknowledgement(world: World) -> None:
    """F17: a slow message goes on and is told once; one that hangs is parked after its attempts."""
    ids = await world.ledger.publish(20)
    hanging = ids[9]
    running = await world.run("Impatient", SINK_SLOW_AT="5", SINK_HANGS_AT="10")
    await world.told(set(ids) - {hanging})
    await running.says(" parked ", 90)
    await world.stop(running)

    await world.check(complaints="PRECONDITION_FAILED|timed out|406")
    assert any("delivery acknowledgement on channel" in line for line in running.lines)
    assert set(world.ledger.parked) == {hanging}
    assert sum("lost its session" in line for line in running.lines) <= 6


async def reject_one(world: World) -> str:
    """Publish a message that the sink does not take now; return its id once it was rejected."""
    [one] = await world.ledger.publish(1)
    world.sink.faults.busy = {one: 1_000_000}
    before = world.sink.requests
    with anyio.fail_after(30):
        await world.sink.until(lambda: world.sink.requests > before)
    return one


@pytest.mark.timeout(180)
async def test_parts_of_the_retry_loop_are_missing(world: World) -> None:
    """F38: AMQP does not tell a consumer; the broker parks what finds no way, or keeps it."""
    url = BrokerUrl.parse(world.url)
    whole = topology_for(["acme"], retry_delay=1.0)
    running = await world.run("Batches")
    await world.ledger.publish(20)
    await world.ends()
    async with channel(world.url) as open_channel:

        async def parked(count: int) -> bool:
            declared = await open_channel.queue_declare("system.dead", passive=True)
            return declared.message_count == count

        await open_channel.queue_unbind(RETRY_QUEUE, FAIL_EXCHANGE, "#")
        first = await reject_one(world)
        await eventually(lambda: parked(1))
        await set_up(url, whole)

        await open_channel.queue_unbind(QUEUE, RETRY_EXCHANGE, QUEUE)
        second = await reject_one(world)
        await eventually(lambda: parked(2))
        await set_up(url, whole)

        await open_channel.exchange_delete(FAIL_EXCHANGE)
        third = await reject_one(world)
        await set_up(url, whole)
        world.sink.faults.busy = {}
        await world.told({third})
    await world.stop(running)

    await world.check(complaints="Cannot forward")
    assert set(world.ledger.parked) == {first, second}


@pytest.mark.timeout(180)
async def test_the_retry_queue_is_full(world: World) -> None:
    """F38: the broker keeps what it cannot pass on, and goes on with it as the queue empties."""
    limit = [f"^{RETRY_QUEUE}$", '{"max-length": 1}', "--apply-to", "queues"]
    await world.rabbitmq.ctl("set_policy", "-p", world.vhost, "limit", *limit)
    ids = await world.ledger.publish(40)
    world.sink.faults.busy = dict.fromkeys(ids[::2], 1_000_000)
    counts = ["name", "messages", "messages_ready", "messages_unacknowledged"]

    async def kept() -> bool:
        rows = await world.rabbitmq.ctl("list_queues", "-p", world.vhost, "--no-table-headers", *counts)
        [row] = [row.split() for row in rows.splitlines() if row.startswith(QUEUE)]
        every, ready, unacknowledged = map(int, row[1:])
        return every - ready - unacknowledged > 0  # rejected, and not in the retry queue

    running = await world.run("Persistent")
    await world.told(set(ids[1::2]))
    await eventually(kept)
    world.sink.faults.busy = {}
    await world.ends()
    await world.stop(running)

    await world.check(again=0)
    assert not world.ledger.parked
