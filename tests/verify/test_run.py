"""What is still in the queues at the end of a run."""

import pytest

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.devbroker.server import DevBroker
from flow.plumbing.development import development_topology
from flow.plumbing.setup import set_up
from flow.topology import DEAD_QUEUE
from flow.verify.history import History
from flow.verify.run import contents

WORK = "acme.work"


@pytest.mark.anyio
async def test_what_waits_for_another_attempt_is_no_loss_and_what_is_parked_is_found() -> None:
    history = History({"m-0": 0, "m-1": 1, "m-2": 2}, [])
    async with DevBroker() as broker:
        url = BrokerUrl.parse(broker.url())
        await set_up(url, development_topology([WORK], retry_delay=30.0))
        (loop,) = set(broker.lengths()) - {WORK, DEAD_QUEUE}
        publisher = Publisher(url, name="test")
        for number, queue in enumerate((loop, WORK, DEAD_QUEUE)):
            await publisher.publish("", queue, b"{}", message_id=f"m-{number}")
        await publisher.close()

        assert contents(broker, history, WORK) == ({0: "retrying", 1: "not settled"}, {2})
