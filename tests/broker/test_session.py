"""Sessions on a real broker: what is received and settled, and how a session ends."""

import asyncio
from typing import Any

import anyio
import pytest

from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import ConfigError, ConnectionLost, ConsumerCancelled
from tests.broker.queues import PATIENCE, Acknowledging, Queues, Received, eventually, until
from tests.nodes.rabbitmq_control import QueueLength, RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

EMPTY = QueueLength(ready=0, unacknowledged=0)


def numbered(count: int) -> list[bytes]:
    return [str(number).encode() for number in range(count)]


async def failure_of(
    session: Session, seconds: float = PATIENCE, kind: type[ConnectionLost] = ConnectionLost
) -> str:
    """Wait for the session to fail, close it, and return the sentence."""
    with anyio.fail_after(seconds):
        await session.failed.wait()
    assert type(session.failure) is kind
    await session.close()
    return str(session.failure)


async def test_every_message_is_received_once_and_acknowledged(
    rabbitmq: RabbitMQControl, vhost: str, url: BrokerUrl, queues: Queues
) -> None:
    """R20, R39: the broker shows the name of the connection, which is gone afterwards."""
    await queues.make("a")
    await queues.fill("a", numbered(2000))
    received = Acknowledging()

    session = await Session.open(url, {"a": 100}, received, name="flow test")
    await received.reach(2000)
    names = await rabbitmq.connection_names(vhost)
    await session.close()

    assert sorted(received.bodies) == sorted(numbered(2000))
    assert "flow test" in names
    assert await rabbitmq.queue_lengths(vhost) == {"a": EMPTY}
    await eventually(lambda: absent(rabbitmq, vhost, "flow test"))
    assert not session.failed.is_set()


async def queues_are_empty(rabbitmq: RabbitMQControl, vhost: str) -> bool:
    return set((await rabbitmq.queue_lengths(vhost)).values()) == {EMPTY}


async def absent(rabbitmq: RabbitMQControl, vhost: str, name: str) -> bool:
    return name not in await rabbitmq.connection_names(vhost)


async def test_rejected_messages_go_to_the_dead_letter_exchange(url: BrokerUrl, queues: Queues) -> None:
    """R10: once, and they leave their queue."""
    await queues.make("dead")
    await queues.make("a", **{"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    await queues.fill("a", numbered(10))
    received = Received()

    session = await Session.open(url, {"a": 10}, received)
    for message in await received.reach(10):
        message.origin.reject(message)
    await session.close()

    assert sorted(await queues.drain("dead")) == sorted(numbered(10))
    assert await queues.drain("a") == []


async def test_released_messages_come_again(url: BrokerUrl, queues: Queues) -> None:
    await queues.make("a")
    await queues.fill("a", numbered(3))
    received = Received()

    session = await Session.open(url, {"a": 3}, received)
    for message in list(await received.reach(3)):
        message.origin.release(message)
    await received.reach(6)
    for message in received[3:]:
        message.origin.ack(message)
    await session.close()

    assert [message.redelivered for message in received] == [False] * 3 + [True] * 3
    assert sorted(received.bodies[3:]) == numbered(3)
    assert await queues.drain("a") == []


async def test_settling_twice_changes_nothing(url: BrokerUrl, queues: Queues) -> None:
    """A second verb for a delivery would make the broker close the channel (406)."""
    await queues.make("a")
    await queues.fill("a", numbered(3))
    received = Received()

    session = await Session.open(url, {"a": 3}, received)
    for message in await received.reach(3):
        message.origin.ack(message)
        message.origin.ack(message)
        message.origin.reject(message)
        await asyncio.sleep(0)
        message.origin.release(message)
    ready = await session.ready("a")

    assert ready == 0
    assert not session.failed.is_set()
    assert session.outstanding() == []
    await session.close()


async def test_each_queue_has_its_own_prefetch(
    rabbitmq: RabbitMQControl, vhost: str, url: BrokerUrl, queues: Queues
) -> None:
    """R40: no more is unacknowledged than granted, and nothing is lost locally."""
    for name in ("a", "b"):
        await queues.make(name)
        await queues.fill(name, numbered(30))
    received = Received()

    session = await Session.open(url, {"a": 20, "b": 5}, received)
    await received.reach(25)
    lengths = await rabbitmq.queue_lengths(vhost)

    assert [(one.queue, one.prefetch, one.outstanding) for one in session.consumers] == [
        ("a", 20, 20),
        ("b", 5, 5),
    ]
    assert lengths == {"a": QueueLength(10, 20), "b": QueueLength(25, 5)}
    assert session.outstanding() == received
    assert await session.ready("b") == 25
    await session.close()


async def test_session_fails_when_the_operator_closes_its_connection(
    rabbitmq: RabbitMQControl, url: BrokerUrl, queues: Queues
) -> None:
    """R26, R27: at once, with the reason; what is settled afterwards is dropped without a word."""
    await queues.make("a")
    await queues.fill("a", numbered(5))
    received = Received()
    session = await Session.open(url, {"a": 5}, received)
    await received.reach(5)

    await rabbitmq.close_all_connections("for a test")
    sentence = await failure_of(session, 3)
    for message in received:
        message.origin.ack(message)

    assert sentence == "The broker closed the connection: CONNECTION_FORCED - for a test"
    assert not any(message.origin.alive for message in received)
    assert session.outstanding() == received
    assert session.unconfirmed() == []
    assert session.oldest() is None


async def test_what_was_acknowledged_just_before_a_loss_is_unconfirmed(
    rabbitmq: RabbitMQControl, url: BrokerUrl, queues: Queues
) -> None:
    await queues.make("a")
    await queues.fill("a", numbered(5))
    received = Received()
    session = await Session.open(url, {"a": 5}, received)
    await received.reach(5)

    for message in received[:3]:
        message.origin.ack(message)
    await rabbitmq.close_all_connections()
    await failure_of(session)

    assert session.unconfirmed() == received[:3]
    assert session.outstanding() == received[3:]


async def test_session_fails_when_its_queue_is_deleted(url: BrokerUrl, queues: Queues) -> None:
    """R33: the broker cancels the consumer and closes nothing."""
    await queues.make("a")
    await queues.make("b")
    session = await Session.open(url, {"a": 5, "b": 5}, Received())

    await queues.channel.queue_delete("b")

    failure = await failure_of(session, 3, ConsumerCancelled)
    assert failure == "The broker cancelled the consumer of b: was the queue deleted?"


async def test_session_fails_when_the_broker_closes_its_channel(
    rabbitmq: RabbitMQControl, url: BrokerUrl, queues: Queues
) -> None:
    """R30, R31: here since an acknowledgement took too long."""
    await queues.make("a")
    await queues.fill("a", numbered(2))
    try:
        await rabbitmq.evaluate("application:set_env(rabbit, consumer_timeout, 300)")
        await rabbitmq.evaluate("application:set_env(rabbit, channel_tick_interval, 300)")
        session = await Session.open(url, {"a": 2}, Received())
        sentence = await failure_of(session)
    finally:
        await rabbitmq.evaluate("application:set_env(rabbit, consumer_timeout, 1800000)")
        await rabbitmq.evaluate("application:set_env(rabbit, channel_tick_interval, 60000)")

    assert sentence.startswith(
        "The broker closed the channel: PRECONDITION_FAILED - delivery acknowledgement"
    )


async def test_frozen_broker_is_noticed_within_two_heartbeats(
    node: RabbitMQNode, url: BrokerUrl, queues: Queues
) -> None:
    """F14."""
    await queues.make("a")
    session = await Session.open(url, {"a": 5}, Received(), heartbeat=1)

    node.freeze()
    try:
        sentence = await failure_of(session, 8)  # closing included
    finally:
        node.thaw()

    assert sentence.startswith("The broker has been silent for 2.")


async def test_nothing_is_lost_when_the_broker_is_killed(
    node: RabbitMQNode, vhost: str, url: BrokerUrl, queues: Queues
) -> None:
    """R26, F11: the same queue is consumed again by a new session, with what was not acknowledged."""
    await queues.make("a")
    await queues.fill("a", numbered(20))
    received, again = Received(), Acknowledging()
    session = await Session.open(url, {"a": 20}, received)
    await received.reach(20)
    for message in received[:5]:
        message.origin.ack(message)

    node.kill()
    await failure_of(session, 5)
    await node.start()
    session = await Session.open(url, {"a": 20}, again)
    await until(lambda: set(numbered(20)[5:]) <= set(again.bodies))
    await session.close()

    assert set(again.bodies) <= set(numbered(20))
    assert await queues_are_empty(node, vhost)


async def test_cancelled_session_has_received_all_that_the_broker_sent(
    rabbitmq: RabbitMQControl, vhost: str, url: BrokerUrl, queues: Queues
) -> None:
    """R37: after the cancel everything received can be settled, and the rest is ready for others."""
    await queues.make("a")
    await queues.fill("a", numbered(2000))
    received = Received()
    session = await Session.open(url, {"a": 500}, received)

    await session.cancel()
    lengths = await rabbitmq.queue_lengths(vhost)
    for message in received:
        message.origin.ack(message)
    await session.close()

    count = len(received)
    assert lengths["a"] == QueueLength(2000 - count, count)
    assert await rabbitmq.queue_lengths(vhost) == {"a": QueueLength(2000 - count, 0)}
    assert not session.failed.is_set()


async def test_cancelling_returns_when_the_session_fails_meanwhile(
    node: RabbitMQNode, url: BrokerUrl, queues: Queues
) -> None:
    """R38: the broker never answers the cancel."""
    await queues.make("a")
    session = await Session.open(url, {"a": 5}, Received(), heartbeat=1)

    node.freeze()
    try:
        with anyio.fail_after(8):
            await session.cancel()
        await failure_of(session)
    finally:
        node.thaw()
    await session.cancel()


async def test_impatient_caller_of_cancel_leaves_the_session_alive(url: BrokerUrl, queues: Queues) -> None:
    """An expired wait must not close the channel, which would give back all that is being worked on."""
    await queues.make("a")
    await queues.fill("a", numbered(5))
    received = Received()
    session = await Session.open(url, {"a": 5}, received)
    await received.reach(5)

    with anyio.move_on_after(0):
        await session.cancel()
    for message in received:
        message.origin.ack(message)
    await session.close()

    assert await queues.drain("a") == []


async def test_nothing_is_handed_over_when_a_later_queue_is_refused(
    rabbitmq: RabbitMQControl, vhost: str, queues: Queues
) -> None:
    """R25: the session either consumes all of its queues or has done nothing."""
    await queues.make("a")
    await queues.make("b")
    await queues.fill("a", numbered(5))
    user = f"reader-{vhost}"
    await rabbitmq.add_user(user, "p")
    await rabbitmq.permit(user, vhost, "^$", "^$", "^a$")
    received = Received()

    try:
        with pytest.raises(Exception, match="may not read the queue b"):
            await Session.open(
                BrokerUrl.parse(rabbitmq.url(vhost, user=user, password="p")), {"a": 5, "b": 5}, received
            )
    finally:
        await rabbitmq.delete_user(user)

    await eventually(lambda: all_ready(rabbitmq, vhost, 5))
    assert received == []


async def all_ready(rabbitmq: RabbitMQControl, vhost: str, count: int) -> bool:
    return (await rabbitmq.queue_lengths(vhost))["a"] == QueueLength(count, 0)


@pytest.mark.parametrize(
    ("queues_and_prefetches", "sentence"),
    [
        ({}, "needs a queue"),
        ({"a": 0}, "The prefetch of the queue a must be 1 to 65535, got 0"),
        ({"a": 65536}, "got 65536"),
    ],
)
async def test_prefetch_without_bound_is_refused(
    queues_and_prefetches: dict[str, int], sentence: str
) -> None:
    """R02: before any network traffic; nothing listens there."""
    nowhere = BrokerUrl.parse("amqp://localhost:1")

    with pytest.raises(ConfigError, match=sentence):
        await Session.open(nowhere, queues_and_prefetches, Received())


async def test_length_of_another_queue_is_refused(url: BrokerUrl, queues: Queues) -> None:
    """Asking for a queue that does not exist would close the channel."""
    await queues.make("a")
    session = await Session.open(url, {"a": 5}, Received())

    with pytest.raises(ConfigError, match="does not consume the queue b"):
        await session.ready("b")
    await session.close()
    with pytest.raises(ConnectionLost):
        await session.ready("a")


async def test_no_task_is_left_after_any_end(
    rabbitmq: RabbitMQControl, url: BrokerUrl, queues: Queues
) -> None:
    await queues.make("a")
    before: set[asyncio.Task[Any]] = asyncio.all_tasks()

    session = await Session.open(url, {"a": 5}, Received())
    await session.cancel()
    await session.close()
    session = await Session.open(url, {"a": 5}, Received())
    await session.close()
    await session.close()

    await until(lambda: asyncio.all_tasks() <= before)
