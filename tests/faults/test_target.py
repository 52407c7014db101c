"""Faults of the target: it answers wrongly, late, never, or is away."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import anyio
import pytest
import trustme

from flow.broker.url import BrokerUrl
from flow.demo.crm_store import Faults
from flow.runner import Runner, RunOptions
from tests.broker.queues import until
from tests.faults.proxy import pour
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


@asynccontextmanager
async def behind_tls(port: int, context: ssl.SSLContext) -> AsyncIterator[str]:
    """Speak TLS before *port* of this machine; yield the URL."""
    serving: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            back, forth = await asyncio.open_connection("127.0.0.1", port)
            try:
                await asyncio.gather(pour(reader, forth), pour(back, writer))
            finally:
                for one in (writer, forth):
                    one.transport.abort()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        serving.add(task)
        task.add_done_callback(serving.discard)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://localhost:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in list(serving):
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("trusted", [True, False], ids=["expired", "unknown authority"])
async def test_a_certificate_that_does_not_hold(world: World, tmp_path: Path, trusted: bool) -> None:
    """F40: nothing is told to such a target and no attempt is spent; a good one goes on at once."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    yesterday = datetime.now(UTC) - timedelta(days=1) if trusted else None
    authority.issue_cert("localhost", not_after=yesterday).configure_cert(context)
    ids = await world.ledger.publish(30)
    more = {"SINK_AUTHORITY": str(tmp_path / "authority.pem")} if trusted else {}

    async with behind_tls(world.sink.port, context) as url:
        running = await world.run("Batches", SINK_URL=url, **more)
        said = await running.says("the target is down")
        told = world.sink.requests
        if trusted:
            authority.issue_cert("localhost").configure_cert(context)
            await world.told(set(ids))
        await world.stop(running)
        await world.check(again=0)

    account = running.account
    assert told == 0
    assert ("certificate has expired" if trusted else "certificate verify failed") in said
    assert account["retrying"] == account["parked"] == 0
    assert account["delivered" if trusted else "returned"] == account["received"]
    assert len(world.ledger.waiting) == (0 if trusted else 30)


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
