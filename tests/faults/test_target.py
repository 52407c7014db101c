"""Faults of the target: it answers wrongly, late, never, or is away."""

import logging

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_store import Faults
from flow.runner import Runner, RunOptions
from tests.broker.queues import until
from tests.faults.worker import Batches, settings
from tests.faults.world import World

pytestmark = pytest.mark.anyio

PASSING = [
    Faults(status=500),
    Faults(limited="1"),
    Faults(outage=True),
    Faults(answer='{"error": "down"}'),
    Faults(answer="<html>busy</html>"),
    Faults(silent=True),
    Faults(reset=1),
    Faults(drip=0.2),
]


@pytest.mark.timeout(180)
async def test_every_fault_of_the_target_passes(world: World) -> None:
    """F40: what passes is waited out, what is refused for ever is parked; at the worst it is told twice."""
    running = await world.run("Batches", SINK_TIMEOUT="1")
    for faults in PASSING:
        before = world.sink.requests
        world.sink.faults = faults
        await world.ledger.publish(5)
        with anyio.fail_after(30):
            await world.sink.until(lambda before=before: world.sink.requests > before)
        world.sink.faults = Faults()
        await world.ends()
    [hopeless] = await world.ledger.publish(1)
    world.sink.faults = Faults(invalid={hopeless: "no_such_country"})
    await running.says("the sink calls it invalid")
    await world.idle(running)
    await world.stop(running)

    await world.check(again=15)
    assert set(world.ledger.parked) == {hopeless}


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    ("url", "says"),
    [("http://no-such-host.invalid", "cannot be reached"), ("http://127.0.0.1:1", "cannot be reached")],
    ids=["no such host", "refused"],
)
async def test_a_target_that_is_not_there(world: World, url: str, says: str) -> None:
    """F40: said once, no attempt is spent, and everything is given back at the stop."""
    await world.ledger.publish(30)
    running = await world.run("Batches", SINK_URL=url)
    said = await running.says("the target is down")
    await world.stop(running)

    await world.check()
    assert says in said
    account = running.account
    assert account == account | {"delivered": 0, "retrying": 0, "returned": account["received"]}
    assert len(world.ledger.waiting) == 30


@pytest.mark.timeout(120)
async def test_a_target_that_is_down_for_long(world: World, caplog: pytest.LogCaptureFixture) -> None:
    """F41: no hot loop while it is away, no attempt spent, no herd when it is back."""
    caplog.set_level(logging.CRITICAL, "flow")
    await world.sink.refuse()
    await world.ledger.publish(200)
    pipeline = Batches.configured(settings(world.sink.url, world.sink.token))
    runner = Runner(pipeline, BrokerUrl.parse(world.url), RunOptions(longest_hold=1.0))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await until(lambda: runner.account.returned > 0)
        rested = runner.account.received
        began = anyio.current_time()
        while anyio.current_time() < began + 5:  # noqa: ASYNC110 (nothing happens, and that is the point)
            await anyio.sleep(0.1)
        received = runner.account.received - rested
        await world.sink.listen()
        await world.ends()
        runner.stop()

    account = runner.account
    assert received <= 20, "it probes with one message"
    assert (account.retrying, account.parked, account.open) == (0, 0, 0)
    assert account.delivered == 200
    await world.check(again=0)
