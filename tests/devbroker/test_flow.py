"""flow itself on the devbroker: set-up, publisher, session and runner, with faults and without waiting."""

from collections.abc import Awaitable, Callable
from functools import partial

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.broker.backoff import Backoff
from flow.broker.declaring import Declarer
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.devbroker.server import DevBroker
from flow.errors import PublishFailed
from flow.message import Message
from flow.outcome import Reject, Retry
from flow.pipeline import Pipeline
from flow.plumbing.setup import set_up, topology_for
from flow.runner import Runner
from flow.schema import IdsMessage

pytestmark = pytest.mark.anyio

COUNT = 200
BODY = b'{"schema": "proca:ids:1", "stage": "deliver", "actionId": %d, "actionPageId": 3, "orgId": 2}'


class Collecting(Pipeline[IdsMessage]):
    """Delivers in batches; some are tried again, some are hopeless."""

    queue = "work"
    dead_letter = "assume"
    batching = Batching(size=10, timeout=0.05)

    def __init__(self) -> None:
        super().__init__()
        self.delivered: dict[int, int] = {}

    async def handle_message(self, message: Message[IdsMessage]) -> IdsMessage:
        if message.body.action_id % 50 == 0:
            raise Reject("no good")
        if message.body.action_id % 20 == 0 and message.attempt == 1:
            raise Retry("later")
        return message.body

    async def handle_batch(self, batch: Batch[IdsMessage]) -> None:
        for body in batch.bodies:
            self.delivered[body.action_id] = self.delivered.get(body.action_id, 0) + 1


async def until(condition: Callable[[], object], between: Callable[[], Awaitable[None]]) -> None:
    """Wait until *condition* holds, and do something now and then."""
    with anyio.fail_after(60):
        while not condition():
            await between()


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lost session be opened again without waiting for seconds."""
    monkeypatch.setattr("flow.runner.Backoff", partial(Backoff, least=0.01, most=0.1))


@pytest.mark.usefixtures("soon")
@pytest.mark.parametrize("seed", [None, *range(1, 9)])
async def test_a_pipeline_settles_every_message_whatever_happens(
    devbroker: DevBroker, seed: int | None
) -> None:
    url = BrokerUrl.parse(devbroker.url())
    await set_up(url, topology_for(queues=["work"]))
    publisher = Publisher(url)
    async with anyio.create_task_group() as group:
        for number in range(1, COUNT + 1):
            group.start_soon(publisher.publish, "", "work", BODY % number)
    await publisher.close()
    pipeline = Collecting()
    runner = Runner(pipeline, url)
    if seed is not None:
        devbroker.faults.schedule(seed, number=4, within=6)
    hopeless = {number for number in range(1, COUNT + 1) if number % 50 == 0}

    async def some_time() -> None:
        devbroker.clock.advance(5)
        await anyio.sleep(0.05)

    def done() -> bool:
        parked = devbroker.lengths()["system.dead"] >= len(hopeless)
        return parked and len(pipeline.delivered) == COUNT - len(hopeless)

    async with anyio.create_task_group() as group:
        group.start_soon(runner.run)
        await until(done, some_time)
        runner.stop()

    assert set(pipeline.delivered) == set(range(1, COUNT + 1)) - hopeless
    lengths = devbroker.lengths()
    assert lengths["work"] == lengths["system.retry"] == 0
    if seed is None:
        assert set(pipeline.delivered.values()) == {1}
        assert lengths["system.dead"] == len(hopeless)


async def test_a_publisher_learns_what_became_of_its_message(devbroker: DevBroker) -> None:
    url = BrokerUrl.parse(devbroker.url())
    publisher = Publisher(url)

    with pytest.raises(PublishFailed, match="no queue"):
        await publisher.publish("", "nope", b"{}")

    await publisher.close()


async def test_withheld_confirms_become_a_failed_publish(devbroker: DevBroker) -> None:
    url = BrokerUrl.parse(devbroker.url())
    await set_up(url, topology_for(queues=["work"]))
    devbroker.faults.confirms_withheld = True
    publisher = Publisher(url)

    with pytest.raises(PublishFailed):
        await publisher.publish("", "work", b"{}", deadline=0.3)

    await publisher.close()
    assert devbroker.lengths()["work"] == 1


async def test_the_set_up_reports_drift(devbroker: DevBroker) -> None:
    url = BrokerUrl.parse(devbroker.url())
    assert await set_up(url, topology_for(queues=["work"])) == []

    (drift,) = await set_up(url, topology_for(queues=["work"], retry_delay=5))

    assert "x-message-ttl = 30000 where 5000 is wanted" in drift.sentence


async def test_a_queue_can_be_looked_at(devbroker: DevBroker) -> None:
    url = BrokerUrl.parse(devbroker.url())
    await set_up(url, topology_for(queues=["work"]))
    publisher = Publisher(url)
    await publisher.publish("", "work", b"{}")
    await publisher.close()

    async with Declarer(url) as declarer:
        look = await declarer.look("work")

    assert look.ready == 1
