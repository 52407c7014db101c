"""While the turnstile is closed nothing is on its way to the broker."""

import anyio
import anyio.lowlevel
import pytest

from flow.broker.publisher import Publisher
from flow.demo.broker import plumbed
from flow.demo.turnstile import Turnstile

pytestmark = pytest.mark.anyio
KEY = "acme.system.action"


async def test_it_closes_when_everybody_is_out_and_lets_nobody_in() -> None:
    async with plumbed() as (broker, url):
        publisher = Publisher(url)
        turnstile = Turnstile(publisher)
        broker.faults.confirm_delay = 0.5
        closed, told = anyio.Event(), []

        async def publish(name: str) -> None:
            await turnstile.publish("deliver", KEY, b"{}", message_id=name)
            told.append(name)

        async def close() -> None:
            async with turnstile.closed():
                closed.set()
                told.append("closed")
                await anyio.sleep(0.2)
                told.append(f"{broker.lengths()['acme.crm']} there")
                told.append("opened")

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(publish, "early")
                while not broker.lengths()["acme.crm"]:  # noqa: ASYNC110
                    await anyio.sleep(0.01)
                tasks.start_soon(close)
                await anyio.lowlevel.checkpoint()
                assert not closed.is_set()
                tasks.start_soon(publish, "late")
        await publisher.close()

    assert told == ["early", "closed", "1 there", "opened", "late"]
