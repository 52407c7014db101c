"""`flow dev`: listens, prints its URL, is set up, and ends when asked."""

import signal

import anyio
import pytest

from flow.broker.declaring import Declarer
from flow.broker.url import BrokerUrl
from flow.devbroker.server import DevBroker
from tests.cli.conftest import end_of, run_flow, start_flow

pytestmark = pytest.mark.anyio


async def first_line(process: anyio.abc.Process) -> str:
    assert process.stdout is not None
    with anyio.fail_after(60):
        return (await process.stdout.receive()).decode().strip()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_dev_prints_its_url_is_set_up_and_ends_in_peace(number: signal.Signals) -> None:
    process = await start_flow("dev", "--port", "0", "--org", "acme", "--queue", "my.queue", url="")
    told = await first_line(process)
    url = BrokerUrl.parse(told)

    async with Declarer(url) as declarer:
        looks = [
            await declarer.look(name) for name in ("system.dead", "system.retry", "acme.crm", "my.queue")
        ]
    ended = await end_of(process, number)

    assert [look.ready for look in looks] == [0, 0, 0, 0]
    assert (url.host, url.user) == ("127.0.0.1", "guest")
    assert ended.code == 0
    assert ended.err.splitlines() == [
        f"flow: to feed acme.crm: flow push deliver acme.system.action FILE --amqp-url {told}",
        f"flow: to feed my.queue: flow push '' my.queue FILE --amqp-url {told}",
    ]


async def test_dev_takes_the_next_port_when_one_is_taken() -> None:
    async with DevBroker() as taken:
        process = await start_flow("dev", "--port", str(taken.port), url="")
        url = BrokerUrl.parse(await first_line(process))
        await end_of(process, signal.SIGTERM)

    assert url.port > taken.port


async def test_dev_says_what_it_cannot_listen_at() -> None:
    ended = await run_flow("dev", "--host", "192.0.2.1")

    assert ended.code == 78
    assert ended.err == "flow: --host must be an address of this machine, got 192.0.2.1\n"


async def test_dev_warns_when_the_network_can_reach_it() -> None:
    process = await start_flow("dev", "--host", "0.0.0.0", "--port", "0", url="")
    url = await first_line(process)
    ended = await end_of(process, signal.SIGTERM)

    assert url.startswith("amqp://guest:guest@0.0.0.0:")
    assert ended.err == "flow: guest/guest may do everything here, and the whole network can reach it\n"
