"""Faults of the line to the broker."""

import signal
import socket

import pytest

from tests.faults.proxy import proxied
from tests.faults.world import World

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("swallows", [True, False], ids=["never arrives", "arrives"])
@pytest.mark.parametrize("place", [1, 3])
@pytest.mark.timeout(120)
async def test_the_connection_breaks_at_an_acknowledgement(world: World, place: int, swallows: bool) -> None:
    """F26: what was worked is not worked again, whether the broker saw the acknowledgement or not."""
    async with proxied(world.rabbitmq.port) as proxy:
        proxy.breaks_at, proxy.swallows = place, swallows
        world.sink.faults.delay = 0.02
        await world.ledger.publish(60)
        running = await world.run("Singles", AMQP_URL=world.through(proxy.port))
        await running.says("lost its session")
        await world.ends()
        await world.stop(running)

        account = running.account
        await world.check(again=0)
    assert proxy.breaks == 1
    assert account["stale"] > 0
    assert account["received"] == account["delivered"] + account["stale"]


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
@pytest.mark.timeout(120)
async def test_a_peer_that_accepts_and_is_silent(world: World, scheme: str) -> None:
    """F25, Fault F07: it is told, tried again, and a request to stop is obeyed while it connects."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        url = f"{scheme}://worker:secret@127.0.0.1:{port}/"
        running = await world.run("Singles", AMQP_URL=url)
        await running.says("the next try is in")
        running.signal(signal.SIGTERM)

        assert await running.end(10) == 0
        assert running.account["received"] == 0
        await world.check()
