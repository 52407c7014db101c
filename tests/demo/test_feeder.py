"""The feeder: everything is confirmed, in waves, and what lost its confirm is published again."""

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.broker import KEY, QUEUE, plumbed
from flow.demo.cast import Sent
from flow.demo.feeder import Feeder

pytestmark = pytest.mark.anyio


def feeder(
    url: BrokerUrl, signatures: int, seconds: float, met: list[Sent], *, forever: bool = False
) -> Feeder:
    return Feeder(url, KEY, signatures, seconds, forever=forever, meet=met.append)


async def test_a_round_is_published_and_confirmed() -> None:
    met: list[Sent] = []
    async with plumbed() as (broker, url):
        feeding = feeder(url, 300, 0.5, met)

        with anyio.fail_after(30):
            await feeding.run()

        assert broker.lengths()[QUEUE] == len(feeding.sent) == 303
        assert {sent.id for sent in met} == feeding.sent.keys()
        assert feeding.again == set()


async def test_what_lost_its_confirm_is_published_again_and_noted() -> None:
    async with plumbed() as (broker, url):
        broker.faults.drop_connection("publish", 50)
        feeding = feeder(url, 200, 0.5, [])

        with anyio.fail_after(30):
            await feeding.run()

        assert len(feeding.sent) == 202
        assert feeding.again
        assert broker.lengths()[QUEUE] >= 202


async def test_it_goes_on_until_it_is_stopped() -> None:
    async with plumbed() as (broker, url):
        feeding = feeder(url, 100, 0.3, [], forever=True)

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feeding.run)
                while len(feeding.sent) < 250:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
                feeding.stop()

        assert broker.lengths()[QUEUE] == len(feeding.sent)


async def test_a_late_feeder_ends_soon_as_well() -> None:
    """Whoever waits for the end of a burst, to close connections or to stop, waits for some messages only."""
    async with plumbed() as (_, url):
        feeding = feeder(url, 50_000, 0.1, [])

        with anyio.fail_after(30):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feeding.run)
                while not feeding.sent:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
                feeding.stop()

        assert len(feeding.sent) < 2000
