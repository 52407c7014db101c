"""Faults of the process: killed, stopped, crashing, stuck."""

import signal

import anyio
import pytest

from tests.broker.queues import eventually
from tests.end_to_end.conftest import FlowProcess
from tests.faults.world import World

pytestmark = pytest.mark.anyio

WINDOW = 100


@pytest.mark.timeout(180)
async def test_killed_in_the_middle_of_a_batch(world: World) -> None:
    """Fault F01: what the sink was told may be told again, once, and at most one window of it."""
    world.sink.faults.delay = 0.1
    await world.ledger.publish(400)
    killed = await world.run("Batches", "--prefetch", str(WINDOW))
    with anyio.fail_after(60):
        await world.sink.until(lambda: len(world.ledger.effects) >= 40)
    killed.signal(signal.SIGKILL)
    await killed.end()

    world.sink.faults.delay = 0.0
    second = await world.run("Batches", "--prefetch", str(WINDOW))
    await world.ends()
    await world.stop(second)

    await world.check(again=WINDOW)


@pytest.mark.timeout(180)
async def test_killed_between_the_effect_and_the_acknowledgement(world: World) -> None:
    """Fault F02: the classic duplicate; only the sink can know, by the id."""
    ids = await world.ledger.publish(100)
    killed = await world.run("Batches", "--prefetch", str(WINDOW), SINK_KILLED_AT="50")
    code = await killed.end()
    again = world.ledger.effects[ids[49]]

    second = await world.run("Batches")
    await world.ends()
    await world.stop(second)

    assert code == -signal.SIGKILL
    assert again == 1
    assert world.ledger.effects[ids[49]] == 2, "it was not acknowledged, so it must come again"
    assert len(world.sink.records) == 100, "an idempotent sink holds it once"
    await world.check(again=WINDOW)


@pytest.mark.timeout(180)
async def test_a_message_that_ends_the_process_is_parked(world: World) -> None:
    """Fault F03: something starts the process again and again; a few crashes later all is done."""
    world.sink.faults.delay = 0.1
    ids = await world.ledger.publish(60)
    crashes = 0
    running = await world.run("Singles", "--prefetch", "20", SINK_EXITS_AT="30")
    with anyio.fail_after(120):
        while not await parked(world, running):
            assert running.code == 9, running.lines
            crashes += 1
            running = await world.run("Singles", "--prefetch", "20", SINK_EXITS_AT="30")
    await world.told(set(ids) - {ids[29]})
    await world.stop(running)

    assert 2 <= crashes <= 8
    await world.check(again=20 * crashes)
    assert set(world.ledger.parked) == {ids[29]}
    assert "crashed the worker: it was started 2 times" in await running.says("parked")


async def parked(world: World, running: FlowProcess) -> bool:
    """Wait until *running* has ended or parked something; tell whether it was the latter."""
    while running.code is None:
        if any(" parked " in line for line in running.lines):
            return True
        await anyio.sleep(0.05)
    return False


@pytest.mark.parametrize("count", [1, 9, 13])
@pytest.mark.timeout(120)
async def test_asked_to_stop_with_open_batches(world: World, count: int) -> None:
    """Fault F04: they are delivered, acknowledged, and nothing comes again."""
    await world.ledger.publish(count)
    running = await world.run("Patient")

    async def gathered() -> bool:
        waiting = f'stage="batcher default"}} {count % 10}.0'
        return waiting in await world.metrics(running)

    await eventually(gathered)
    await world.stop(running)

    account = running.account
    await world.check()
    assert not world.ledger.waiting
    assert account["delivered"] == account["received"] == count


@pytest.mark.timeout(120)
async def test_asked_to_stop_while_the_sink_hangs(world: World) -> None:
    """Fault F05, K05: exit code 3 says how many hung; they go back and are told again."""
    world.sink.faults.silent = True
    await world.ledger.publish(50)
    hanging = await world.run("Batches", "--shutdown-timeout", "3")
    with anyio.fail_after(60):
        await world.sink.until(lambda: len(world.sink.calls) >= 2)
    code = await hanging.stop()
    told = len(world.ledger.effects)
    world.sink.faults.silent = False

    second = await world.run("Batches")
    await second.says("consumes")
    await world.ends()
    with anyio.fail_after(60):
        await world.sink.until(lambda: sum(world.ledger.effects.values()) == 50 + told)
    await world.stop(second)

    assert code == 3
    assert hanging.account == hanging.account | {"received": 50, "delivered": 0, "returned": 50}
    assert "2 callbacks still ran at the deadline" in hanging.lines[-2]
    await world.check(again=told)


@pytest.mark.timeout(120)
async def test_asked_to_stop_before_anything_was_consumed(world: World) -> None:
    """Fault F07: while it waits for a queue that is missing."""
    running = await world.run("Batches", "--wait", "--queue", "beta.crm")
    await running.says("the next try is in")

    running.signal(signal.SIGTERM)

    assert await running.end(10) == 0
    assert running.account["received"] == 0


@pytest.mark.parametrize("part", ["Processor.work", "Deliverer.work", "Parker.run", "Subscription", "Runner"])
@pytest.mark.timeout(120)
async def test_a_part_that_ends_unexpectedly_ends_the_process(world: World, part: str) -> None:
    """F10: something in the process cancels what is not its own; idling for ever would look healthy."""
    await world.ledger.publish(30)
    broken = await world.run("Batches", SINK_CANCELS_AT="15", SINK_CANCELS=part)
    code = await broken.end()

    second = await world.run("Batches")
    await world.ends()
    await world.idle(second)  # the sink may have been told of everything before
    await world.stop(second)

    assert code == 1, broken.lines
    await world.check(again=WINDOW)
