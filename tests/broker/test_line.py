"""Several queues in one session: what is wrong with one of them touches no other."""

from collections.abc import AsyncIterator

import pytest

from flow.broker.line import Consuming, Line
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import BrokerError, ConnectionLost, ConsumerCancelled, NotFound
from tests.broker.queues import Acknowledging, Queues, Received, eventually, until
from tests.nodes.rabbitmq_control import QueueLength, RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


class Losses(list[tuple[str, BrokerError]]):
    """The lines that were lost, and why."""

    def __call__(self, line: Line, failure: BrokerError) -> None:
        self.append((line.queue, failure))


@pytest.fixture
def received() -> Acknowledging:
    return Acknowledging()


@pytest.fixture
def lost() -> Losses:
    return Losses()


@pytest.fixture
async def session(
    url: BrokerUrl, queues: Queues, received: Acknowledging, lost: Losses
) -> AsyncIterator[Session]:
    """A session that consumes the queues `a` and `b` and acknowledges everything."""
    opened = await Session.connect(url, line_lost=lost)
    opened.begin(received)
    for queue in ("a", "b"):
        await queues.make(queue)
        await opened.add(queue, 5)
    yield opened
    await opened.close()


async def test_a_deleted_queue_leaves_the_others_consumed(
    session: Session, queues: Queues, received: Acknowledging, lost: Losses
) -> None:
    await queues.channel.queue_delete("b")
    await until(lambda: lost)
    await queues.fill("a", [b"1", b"2"])
    await received.reach(2)

    ((queue, failure),) = lost
    assert queue == "b"
    assert isinstance(failure, ConsumerCancelled)
    assert list(session.lines) == ["a"]
    assert not session.failed.is_set()


async def test_a_queue_that_was_lost_can_be_consumed_again(
    session: Session, queues: Queues, received: Acknowledging, lost: Losses
) -> None:
    for _ in range(3):
        await queues.channel.queue_delete("b")
        await until(lambda: lost)
        lost.clear()
        await session.close_retired()
        await queues.make("b")
        await session.add("b", 5)
    await queues.fill("b", [b"1"])
    await received.reach(1)

    assert not session.failed.is_set()


async def test_a_queue_that_is_refused_leaves_the_others_consumed(
    session: Session, queues: Queues, received: Acknowledging, lost: Losses
) -> None:
    with pytest.raises(NotFound):
        await session.add("missing", 5)
    await queues.fill("a", [b"1"])
    await received.reach(1)

    assert list(session.lines) == ["a", "b"]
    assert lost == []


async def test_a_retired_queue_brings_nothing_more_and_is_settled_to_its_end(
    url: BrokerUrl, queues: Queues, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    received = Received()
    await queues.make("a")
    await queues.fill("a", [b"%d" % number for number in range(10)])
    session = await Session.connect(url, line_lost=Losses())
    session.begin(received)
    await session.add("a", 4)
    await received.reach(4)

    await session.retire("a")
    before = await session.close_retired()
    for message in received[:4]:
        message.origin.ack(message)
    known = await session.close_retired()

    async def six_are_ready() -> bool:
        return await rabbitmq.queue_lengths(vhost) == {"a": QueueLength(ready=6, unacknowledged=0)}

    await eventually(six_are_ready)
    assert session.consumers == []
    assert (before, known) == ([], [received[0].origin])
    assert len(received) == 4
    await session.close()


async def test_what_a_retired_queue_settled_is_unconfirmed_until_the_broker_has_closed_it(
    url: BrokerUrl, queues: Queues, node: RabbitMQNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R27: it may come again, and must be known then."""
    monkeypatch.setattr("flow.broker.line.CLOSE", 0.3)
    received = Received()
    await queues.make("a")
    await queues.fill("a", [b"1", b"2"])
    session = await Session.connect(url, line_lost=Losses())
    session.begin(received)
    await session.add("a", 4)
    await received.reach(2)
    await session.retire("a")

    node.freeze()
    try:
        for message in received:
            message.origin.ack(message)
        known = await session.close_retired()  # no answer comes
        await session.failed.wait()
    finally:
        node.thaw()

    assert session.unconfirmed() == received
    assert known == []
    await session.close()


async def test_a_lost_connection_is_no_lost_queue(
    session: Session, rabbitmq: RabbitMQControl, lost: Losses
) -> None:
    await rabbitmq.close_all_connections()
    await until(session.failed.is_set)

    assert lost == []
    assert all(not consumer.alive for consumer in session.consumers)


async def test_tag_priority_and_exclusiveness_are_seen_by_the_broker(
    url: BrokerUrl, queues: Queues, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    """R17."""
    await queues.make("a")
    first = await Session.connect(url, consuming=Consuming(name="flow crm", exclusive=True, priority=7))
    await first.add("a", 5)
    told = await rabbitmq.ctl("list_consumers", "-p", vhost, "consumer_tag", "arguments")
    second = await Session.connect(url)

    with pytest.raises(ConnectionLost, match="The queue a is held by another consumer alone"):
        await second.add("a", 5)

    assert "flow-crm-1" in told
    assert '"x-priority",7' in told.replace(" ", "")
    await first.close()
    await second.close()
