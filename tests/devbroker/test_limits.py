"""Queues that let go: of old messages, of too many, and of themselves."""

from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from tests.devbroker.client import Client, Closed
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

SHORT = 100  # milliseconds
LONG = 60_000
TEN_YEARS = 315_360_000_000
LONGER = 0.3  # seconds, longer than SHORT
QUORUM = {"x-queue-type": "quorum"}


async def declared(client: Client, **arguments: Any) -> None:
    names = {name.replace("_", "-"): value for name, value in arguments.items()}
    await client.declare("q", durable="x-queue-type" in names, arguments=names)
    await client.confirm()


@pytest.mark.parametrize("kind", [{}, {"x_queue_type": "quorum"}], ids=["classic", "quorum"])
async def test_a_queue_lets_go_of_what_is_too_old(
    broker: Party, client: Client, kind: dict[str, str]
) -> None:
    await declared(client, x_message_ttl=SHORT, **kind)
    await client.confirmed(b"1", "q")

    await broker.wait(LONGER)

    await client.reach("q", 0)


async def test_nothing_lives_longer_than_ten_years(client: Client) -> None:
    await declared(client, x_message_ttl=TEN_YEARS, x_expires=TEN_YEARS)

    confirm = await client.confirmed(b"1", "q", expiration=str(TEN_YEARS))
    with pytest.raises(Closed) as refused:
        await client.confirmed(b"2", "q", expiration=str(TEN_YEARS + 1))

    assert isinstance(confirm, Basic.Ack)
    assert "value_too_large" in refused.value.text


async def test_a_message_lives_as_long_as_the_shorter_of_both_times(broker: Party, client: Client) -> None:
    await declared(client, x_message_ttl=SHORT)
    await client.confirmed(b"1", "q", expiration=str(LONG))

    await broker.wait(LONGER)

    await client.reach("q", 0)


@pytest.mark.parametrize("kind", [{}, {"x_queue_type": "quorum"}], ids=["classic", "quorum"])
async def test_an_old_message_behind_a_young_head_stays(
    broker: Party, client: Client, kind: dict[str, str]
) -> None:
    await declared(client, **kind)
    await client.confirmed(b"1", "q", expiration=str(LONG))
    await client.confirmed(b"2", "q", expiration=str(SHORT))
    await client.confirmed(b"3", "q")

    await broker.wait(LONGER)

    await client.reach("q", 3)
    assert (await client.take("q")).body == b"1"
    assert (await client.take("q")).body == b"3"


@pytest.mark.parametrize("kind", [{}, {"x_queue_type": "quorum"}], ids=["classic", "quorum"])
async def test_a_message_that_has_become_the_head_grows_old(
    broker: Party, client: Client, kind: dict[str, str]
) -> None:
    await declared(client, **kind)
    await client.confirmed(b"1", "q")
    await client.confirmed(b"2", "q", expiration=str(SHORT * 2))
    assert (await client.take("q")).body == b"1"

    await broker.wait(LONGER)

    await client.reach("q", 0)


async def test_a_message_behind_one_that_was_delivered_grows_old(broker: Party, client: Client) -> None:
    await declared(client)
    await client.confirmed(b"1", "q")
    await client.confirmed(b"2", "q", expiration=str(SHORT * 2))
    await client.call(Basic.Qos(prefetch_count=1))
    await client.consume("q")
    assert (await client.receive()).body == b"1"

    await broker.wait(LONGER)

    await client.reach("q", 0)


async def test_what_stays_for_no_time_needs_a_consumer_that_is_ready(client: Client) -> None:
    await declared(client)
    await client.confirmed(b"1", "q", expiration="0")
    assert await client.length("q") == 0
    await client.consume("q", no_ack=True)

    await client.publish(b"2", "q", expiration="0")

    messages = [await client.receive(), await client.receive()]
    assert [message.body for message in messages if hasattr(message, "body")] == [b"2"]


async def test_a_message_that_comes_back_too_late_goes(broker: Party, client: Client) -> None:
    await declared(client, x_message_ttl=SHORT)
    await client.confirmed(b"1", "q")
    held = await client.take_held("q")
    await broker.wait(LONGER)

    await client.send(Basic.Reject(held.method.delivery_tag, True))

    await client.reach("q", 0)


async def test_a_queue_that_is_full_lets_its_head_go(client: Client) -> None:
    await declared(client, x_max_length=2)

    for body in (b"1", b"2", b"3"):
        await client.confirmed(body, "q")

    assert await client.drain("q") == [b"2", b"3"]


async def test_a_queue_with_too_many_octets_lets_its_head_go(client: Client) -> None:
    await declared(client, x_max_length_bytes=10)

    for body in (b"aaaa", b"bbbb", b"cccc", b"d"):
        await client.confirmed(body, "q")

    assert await client.drain("q") == [b"bbbb", b"cccc", b"d"]


async def test_a_queue_of_no_length_gives_to_a_ready_consumer(client: Client) -> None:
    await declared(client, x_max_length=0)
    await client.confirmed(b"1", "q")
    await client.consume("q")

    await client.publish(b"2", "q")

    messages = [await client.receive(), await client.receive()]
    assert [message.body for message in messages if hasattr(message, "body")] == [b"2"]


async def test_a_queue_that_rejects_publishes_says_no_until_there_is_room(client: Client) -> None:
    await declared(client, x_max_length=2, x_overflow="reject-publish")

    answers = [(await client.confirmed(b"%d" % number, "q")).name for number in range(4)]
    await client.take("q")
    answers.append((await client.confirmed(b"5", "q")).name)

    assert answers == ["Basic.Ack", "Basic.Ack", "Basic.Nack", "Basic.Nack", "Basic.Ack"]
    refused = await client.confirmed(b"6", "q")
    assert (refused.delivery_tag, refused.multiple, refused.requeue) == (6, True, True)
    assert await client.drain("q") == [b"1", b"5"]


async def test_one_queue_that_refuses_is_enough_for_a_nack(client: Client) -> None:
    await declared(client, x_max_length=0, x_overflow="reject-publish")
    await client.declare("p")
    for queue in ("q", "p"):
        await client.bind(queue, "amq.fanout")

    answer = await client.confirmed(b"1", "", exchange="amq.fanout")

    assert answer.name == "Basic.Nack"
    assert await client.drain("p") == [b"1"]


async def test_what_is_delivered_does_not_count(client: Client) -> None:
    await declared(client, x_max_length=1)
    await client.confirmed(b"1", "q")
    held = await client.take_held("q")
    await client.confirmed(b"2", "q")

    await client.send(Basic.Reject(held.method.delivery_tag, True))

    assert await client.nothing()
    assert await client.drain("q") == [b"2"]


async def test_an_unused_queue_goes(broker: Party, client: Client) -> None:
    await declared(client, x_expires=SHORT)

    await broker.wait(1)

    with pytest.raises(Closed) as refused:
        await client.declare("q", passive=True)
    assert refused.value.code == 404


async def test_a_queue_that_is_asked_for_a_message_is_used(broker: Party, client: Client) -> None:
    await declared(client, x_expires=3000)

    for _ in range(2):
        await broker.wait(1.8)
        assert await client.get("q") is None


async def test_a_queue_with_a_consumer_is_used(broker: Party, client: Client) -> None:
    await declared(client, x_expires=2000)
    await client.consume("q")

    await broker.wait(2.5)

    assert await client.length("q") == 0


async def test_a_full_quorum_queue_rejects_in_the_end(client: Client) -> None:
    await declared(client, x_max_length=1, x_overflow="reject-publish", x_queue_type="quorum")

    answers = [(await client.confirmed(b"%d" % number, "q")).name for number in range(50)]

    assert answers[0] == "Basic.Ack"
    assert answers[-1] == "Basic.Nack"


async def test_deleting_a_queue_tells_how_many_messages_went(client: Client) -> None:
    await declared(client)
    for _ in range(3):
        await client.confirmed(b"", "q")

    assert (await client.call(Queue.Delete(queue="q"))).message_count == 3
