"""Clients that others wrote, unchanged: publish, consume, confirm, return, reject to a dead-letter queue."""

from typing import Any

import aio_pika
import aiormq
import anyio
import pika
import pika.exceptions
import pytest

from tests.devbroker.client import Client
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

ROUNDS = 20
GRAVE = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}


def with_pika(url: str) -> dict[str, Any]:
    """Make one round of everything with pika; return what was seen."""
    seen: dict[str, Any] = {"returned": False, "consumed": []}
    connection = pika.BlockingConnection(pika.URLParameters(url))
    try:
        channel = connection.channel()
        channel.queue_declare("dead")
        channel.queue_declare("q", arguments=GRAVE)
        channel.confirm_delivery()
        for number in range(ROUNDS):
            channel.basic_publish(
                "", "q", b"%d" % number, pika.BasicProperties(delivery_mode=2), mandatory=True
            )
        try:
            channel.basic_publish("", "nope", b"", mandatory=True)
        except pika.exceptions.UnroutableError as error:
            seen["returned"] = error.messages[0].method.reply_code
        channel.basic_qos(prefetch_count=3)
        for method, _, body in channel.consume("q", inactivity_timeout=10):
            seen["consumed"].append(body)
            if len(seen["consumed"]) % 2:
                channel.basic_ack(method.delivery_tag)
            else:
                channel.basic_reject(method.delivery_tag, requeue=False)
            if len(seen["consumed"]) == ROUNDS:
                break
        channel.cancel()
        seen["left"] = channel.queue_declare("q", passive=True).method.message_count
        seen["dead"] = channel.queue_declare("dead", passive=True).method.message_count
        _, properties, _ = channel.basic_get("dead", auto_ack=True)
        seen["reason"] = properties.headers["x-death"][0]["reason"]
        with pytest.raises(pika.exceptions.ChannelClosedByBroker) as refused:
            channel.queue_declare("q")
        seen["code"] = refused.value.reply_code
    finally:
        connection.close()
    return seen


async def test_pika_does_a_whole_round(broker: Party, client: Client) -> None:
    await forget(client)

    seen = await anyio.to_thread.run_sync(with_pika, broker.url)

    assert seen == {
        "returned": 312,
        "consumed": [b"%d" % number for number in range(ROUNDS)],
        "left": 0,
        "dead": ROUNDS // 2,
        "reason": "rejected",
        "code": 406,
    }


async def test_aio_pika_does_a_whole_round(broker: Party, client: Client) -> None:
    await forget(client)
    consumed = []
    async with await aio_pika.connect(broker.url) as connection:
        channel = await connection.channel(on_return_raises=True)
        await channel.set_qos(prefetch_count=3)
        dead = await channel.declare_queue("dead")
        queue = await channel.declare_queue("q", arguments=GRAVE)
        exchange = await channel.declare_exchange("x", aio_pika.ExchangeType.TOPIC)
        await queue.bind(exchange, "a.*")
        for number in range(ROUNDS):
            body = aio_pika.Message(b"%d" % number, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await exchange.publish(body, "a.b")
        with pytest.raises(aio_pika.exceptions.DeliveryError):
            await exchange.publish(aio_pika.Message(b""), "nope")
        async with queue.iterator() as messages:
            async for message in messages:
                consumed.append(message.body)
                if len(consumed) % 2:
                    await message.ack()
                else:
                    await message.reject(requeue=False)
                if len(consumed) == ROUNDS:
                    break
        await client.reach("dead", ROUNDS // 2)
        got = await dead.get(no_ack=True)

    assert got is not None
    assert got.headers["x-death"][0]["reason"] == "rejected"
    assert consumed == [b"%d" % number for number in range(ROUNDS)]


async def test_aio_pika_recovers_from_a_lost_connection(broker: Party, client: Client) -> None:
    await forget(client)
    received = anyio.Event()

    async def take(message: aio_pika.abc.AbstractIncomingMessage) -> None:
        received.set()

    async with await aio_pika.connect_robust(broker.url, reconnect_interval=0.1) as connection:
        channel = await connection.channel()
        queue = await channel.declare_queue("q", arguments=GRAVE)
        await queue.consume(take, no_ack=True)
        if broker.dev is not None:
            broker.dev.faults.drop_connections()
        elif broker.control is not None:
            await broker.control.close_all_connections()
        publisher = await broker.connect()
        with anyio.fail_after(30):
            while not received.is_set():
                await publisher.publish(b"m", "q")
                await anyio.sleep(0.05)


async def test_aiormq_does_a_whole_round(broker: Party, client: Client) -> None:
    await forget(client)
    connection = await aiormq.connect(broker.url)
    channel = await connection.channel(on_return_raises=True)
    await channel.queue_declare("q", arguments=GRAVE)
    await channel.basic_publish(b"m", routing_key="q", mandatory=True)
    with pytest.raises(aiormq.exceptions.PublishError):
        await channel.basic_publish(b"m", routing_key="nope", mandatory=True)

    got = await channel.basic_get("q")

    assert got.body == b"m"
    await channel.basic_ack(got.delivery_tag or 0)
    await connection.close()


async def forget(client: Client) -> None:
    """Declare what a round uses, so that it is removed at the end of the test."""
    await client.declare("dead")
    await client.declare("q", arguments=GRAVE)
    await client.exchange("x", "topic")
