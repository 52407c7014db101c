"""The queue is deleted under its consumer."""

import logging
from collections.abc import AsyncIterator

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.plumbing.setup import set_up, topology_for
from flow.runner import Runner, RunOptions
from tests.broker.queues import until
from tests.faults.ledger import QUEUE, channel
from tests.faults.worker import Batches, settings
from tests.faults.world import World

pytestmark = pytest.mark.anyio


@pytest.fixture
async def runner(world: World, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Runner]:
    caplog.set_level(logging.CRITICAL, "flow")
    pipeline = Batches.configured(settings(world.sink.url, world.sink.token))
    made = Runner(pipeline, BrokerUrl.parse(world.url), RunOptions(slow_retry=0.5))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(made.run)
        yield made
        made.stop()


@pytest.mark.timeout(120)
async def test_a_queue_that_is_deleted_and_made_again(world: World, runner: Runner) -> None:
    """F15: noticed at once, not ready meanwhile, and consumed again as soon as it is there."""
    await world.ledger.publish(30)
    await world.ends()
    world.sink.faults.silent = True
    unlucky = await world.ledger.publish(30)
    await until(lambda: runner.account.received == 60)

    async with channel(world.url) as open_channel:
        await open_channel.queue_delete(QUEUE)
    world.ledger.forgiven = set(unlucky)
    await until(lambda: runner.unready() is not None)
    told = str(runner.unready())
    world.sink.faults.silent = False
    await until(lambda: "does not exist" in str(runner.unready()))
    await set_up(BrokerUrl.parse(world.url), topology_for(["acme"], retry_delay=1.0))
    await until(lambda: runner.unready() is None)
    await world.ledger.publish(30)
    await world.told(world.ledger.confirmed - world.ledger.forgiven)
    runner.stop()
    await runner.ended.wait()

    assert QUEUE in told
    assert runner.account.open == 0
    assert runner.metrics.reconnects["cancelled"] == 1
    await world.check()
