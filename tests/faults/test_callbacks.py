"""Callbacks that do what they must not do: each is contained and said, and the others go on."""

import anyio
import pytest

from tests.faults import wrong
from tests.faults.world import World

pytestmark = pytest.mark.anyio

SAID = [
    ">: handle_message took longer than 1 s",
    ">: it cancelled itself, or waited for something that was cancelled, in handle_message (wrong.py",
    ">: it wanted to end the process (SystemExit) in handle_message (wrong.py",
    ">: KeyError in handle_message (wrong.py",
    " is marked already (Retry), in handle_batch (wrong.py",
    " is not in this batch, in handle_batch (wrong.py",
]
HOPELESS = {wrong.STUCK, wrong.CANCELLED, wrong.EXITING, wrong.RAISING, wrong.FOREIGN}


@pytest.mark.timeout(120)
async def test_wrong_callbacks_are_contained(world: World) -> None:
    """F35, F08: stuck for ever, blocking the loop, cancelling itself, exiting, raising, marking wrongly."""
    ids = await world.ledger.publish(100)
    hopeless = {ids[n - 1] for n in HOPELESS}
    running = await world.run("Wrong", module="tests.faults.wrong")
    await world.told(set(ids) - hopeless - {ids[wrong.TWICE - 1]})
    with anyio.fail_after(60):
        while sum(" parked " in line for line in running.lines) < len(hopeless) + 1:  # noqa: ASYNC110
            await anyio.sleep(0.05)
    await world.stop(running)

    await world.check()
    assert set(world.ledger.parked) == hopeless | {ids[wrong.TWICE - 1]}
    for sentence in SAID:
        assert any(sentence in line for line in running.lines), (sentence, running.lines)
    assert running.account == running.account | {"delivered": 94, "parked": 6, "returned": 0}
