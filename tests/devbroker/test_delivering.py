"""Who gets which message when, and where a message goes that comes back."""

from typing import Any

import pytest
from pamqp.commands import Basic, Channel, Queue

from tests.devbroker.client import Client, Closed
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

QUORUM = {"durable": True, "arguments": {"x-queue-type": "quorum"}}


async def filled(client: Client, count: int, queue: str = "q", **options: Any) -> None:
    """Declare *queue* and put the messages 1, 2, … into it."""
    await client.declare(queue, **options)
    await client.confirm()
    for number in range(1, count + 1):
        await client.confirmed(b"%d" % number, queue)


async def received(client: Client, count: int, channel: int = 1) -> list[Any]:
    return [await client.receive(channel) for _ in range(count)]


async def test_messages_come_in_order_with_tags_from_one(client: Client) -> None:
    await filled(client, 5)

    await client.consume("q", "t")

    messages = await received(client, 5)
    assert [message.body for message in messages] == [b"1", b"2", b"3", b"4", b"5"]
    assert [message.method.delivery_tag for message in messages] == [1, 2, 3, 4, 5]
    assert {message.method.consumer_tag for message in messages} == {"t"}
    assert not any(message.method.redelivered for message in messages)


async def test_consumers_get_messages_in_turn(client: Client) -> None:
    await client.declare("q")
    await client.consume("q", "a")
    await client.consume("q", "b")

    for number in range(4):
        await client.publish(b"%d" % number, "q")

    messages = await received(client, 4)
    assert [message.method.consumer_tag for message in messages] == ["a", "b", "a", "b"]


async def test_prefetch_counts_for_each_consumer(client: Client) -> None:
    await filled(client, 6)
    await client.call(Basic.Qos(prefetch_count=2))
    await client.consume("q", "a")
    first = await received(client, 2)
    await client.consume("q", "b")

    second = await received(client, 2)

    assert await client.nothing()
    assert [message.body for message in first + second] == [b"1", b"2", b"3", b"4"]
    await client.send(Basic.Ack(first[0].method.delivery_tag))
    third = await client.receive()
    assert (third.method.consumer_tag, third.body) == ("a", b"5")


async def test_prefetch_holds_for_consumers_that_come_later_only(client: Client) -> None:
    await filled(client, 4)
    await client.consume("q", "a")
    await received(client, 4)

    await client.send(Basic.Qos(prefetch_count=1))

    assert isinstance(await client.receive(), Basic.QosOk)
    for number in range(2):
        await client.publish(b"%d" % number, "q")
    assert len(await received(client, 2)) == 2


async def test_a_consumer_without_acks_has_no_prefetch_and_nothing_comes_back(client: Client) -> None:
    await filled(client, 5)
    await client.open(2)
    await client.call(Basic.Qos(prefetch_count=1), channel=2)

    await client.consume("q", channel=2, no_ack=True)

    assert len(await received(client, 5, 2)) == 5
    await client.call(Channel.Close(200, "", 0, 0), channel=2)
    assert await client.length("q") == 0


async def test_an_ack_of_many_makes_room_for_as_many(client: Client) -> None:
    await filled(client, 6)
    await client.call(Basic.Qos(prefetch_count=3))
    await client.consume("q")
    await received(client, 3)

    await client.send(Basic.Ack(2, True))

    assert [message.body for message in await received(client, 2)] == [b"4", b"5"]
    assert await client.nothing()


async def test_tag_zero_with_multiple_means_all(client: Client) -> None:
    await filled(client, 6)
    await client.call(Basic.Qos(prefetch_count=3))
    await client.consume("q")
    await received(client, 3)

    await client.send(Basic.Ack(0, True))

    assert [message.body for message in await received(client, 3)] == [b"4", b"5", b"6"]


@pytest.mark.parametrize("options", [{}, QUORUM], ids=["classic", "quorum"])
async def test_a_tag_can_be_settled_once(client: Client, options: dict[str, Any]) -> None:
    await filled(client, 1, **options)
    await client.consume("q")
    await client.receive()
    await client.send(Basic.Ack(1))
    await client.send(Basic.Ack(1))

    with pytest.raises(Closed) as refused:
        await client.receive()

    assert refused.value.text == "PRECONDITION_FAILED - unknown delivery tag 1"


async def test_a_rejected_message_goes_back_to_its_place(client: Client) -> None:
    await filled(client, 4)
    taken = [await client.get("q", no_ack=False) for _ in range(3)]
    tags = [message.method.delivery_tag for message in taken if message]

    await client.send(Basic.Reject(tags[1], True))
    await client.send(Basic.Reject(tags[0], True))
    await client.send(Basic.Reject(tags[2], True))
    assert await client.nothing()

    found = [await client.take("q") for _ in range(4)]
    assert [message.body for message in found] == [b"1", b"2", b"3", b"4"]
    assert [message.method.redelivered for message in found] == [True, True, True, False]


@pytest.mark.parametrize(("limit", "order"), [({}, "421"), ({"x-delivery-limit": 9}, "214")])
async def test_a_quorum_queue_puts_what_was_asked_back_in_front_only_with_a_delivery_limit(
    client: Client, limit: dict[str, int], order: str
) -> None:
    await filled(client, 4, durable=True, arguments={"x-queue-type": "quorum"} | limit)
    taken = [await client.get("q", no_ack=False) for _ in range(3)]
    tags = [message.method.delivery_tag for message in taken if message]

    await client.send(Basic.Reject(tags[1], True))
    await client.send(Basic.Reject(tags[0], True))
    await client.reach("q", 3)

    found = [await client.take("q") for _ in range(3)]
    assert b"".join(message.body for message in found).decode() == order
    counts = {message.body.decode(): message.headers["x-delivery-count"] for message in found}
    assert counts == {"1": 1, "2": 1, "4": 0}
    assert {message.body.decode(): message.method.redelivered for message in found} == {
        "1": True,
        "2": True,
        "4": False,
    }


async def test_a_quorum_queue_puts_what_a_channel_held_in_front(client: Client) -> None:
    await filled(client, 4, **QUORUM)
    await client.open(2)
    for _ in range(3):
        await client.get("q", channel=2, no_ack=False)

    await client.call(Channel.Close(200, "", 0, 0), channel=2)

    await client.reach("q", 4)
    assert await client.drain("q") == [b"1", b"2", b"3", b"4"]


async def test_a_message_in_the_middle_goes_back_to_the_middle(client: Client) -> None:
    await filled(client, 4)
    taken = [await client.get("q", no_ack=False) for _ in range(3)]
    tags = [message.method.delivery_tag for message in taken if message]

    await client.send(Basic.Nack(tags[2], False, True))
    await client.send(Basic.Nack(tags[0], False, True))
    assert await client.nothing()

    assert await client.drain("q") == [b"1", b"3", b"4"]


async def test_a_nack_of_many_puts_them_back_in_order(client: Client) -> None:
    await filled(client, 4)
    for _ in range(3):
        last = await client.get("q", no_ack=False)
    assert last is not None

    await client.send(Basic.Nack(last.method.delivery_tag, True, True))
    assert await client.nothing()

    assert await client.drain("q") == [b"1", b"2", b"3", b"4"]


async def test_a_requeued_message_comes_again_at_once_marked_redelivered(client: Client) -> None:
    await filled(client, 2)
    await client.call(Basic.Qos(prefetch_count=1))
    await client.consume("q")
    first = await client.receive()

    await client.send(Basic.Reject(first.method.delivery_tag, True))

    again = await client.receive()
    assert (again.body, again.method.redelivered, again.method.delivery_tag) == (b"1", True, 2)


@pytest.mark.parametrize("options", [{}, QUORUM], ids=["classic", "quorum"])
async def test_a_closed_channel_gives_back_what_it_held(client: Client, options: dict[str, Any]) -> None:
    await filled(client, 3, **options)
    await client.open(2)
    await client.consume("q", channel=2)
    await received(client, 3, 2)

    await client.call(Channel.Close(200, "", 0, 0), channel=2)

    await client.reach("q", 3)
    found = [await client.take("q") for _ in range(3)]
    assert [message.body for message in found] == [b"1", b"2", b"3"]
    assert all(message.method.redelivered for message in found)


async def test_a_lost_connection_gives_back_what_it_held(broker: Party, client: Client) -> None:
    await filled(client, 3)
    other = await broker.connect()
    await other.consume("q")
    await received(other, 3)

    await other.abort()

    await client.reach("q", 3)
    assert await client.drain("q") == [b"1", b"2", b"3"]


async def test_a_cancelled_consumer_keeps_what_it_was_given(client: Client) -> None:
    await filled(client, 3)
    await client.call(Basic.Qos(prefetch_count=2))
    await client.consume("q", "t")
    await received(client, 2)

    await client.call(Basic.Cancel(consumer_tag="t"))

    assert await client.length("q") == 1
    await client.send(Basic.Ack(2, True))
    assert await client.nothing()


async def test_deleting_a_queue_tells_its_consumers(broker: Party, client: Client) -> None:
    await filled(client, 1)
    other = await broker.connect()
    await other.consume("q", "t")
    delivered = await other.receive()

    deleted = await client.call(Queue.Delete(queue="q"))

    cancel = await other.receive()
    assert (cancel.name, cancel.consumer_tag) == ("Basic.Cancel", "t")
    assert deleted.message_count == 0
    await other.send(Basic.Ack(delivered.method.delivery_tag))
    assert await other.nothing()


async def test_a_client_that_does_not_know_cancels_is_told_nothing(broker: Party, client: Client) -> None:
    await client.declare("q")
    other = await broker.connect(capabilities={})
    await other.consume("q", "t")

    await client.call(Queue.Delete(queue="q"))

    assert await other.nothing()


async def test_a_queue_counts_what_is_ready_and_who_consumes(client: Client) -> None:
    await filled(client, 3)
    await client.get("q", no_ack=False)
    await client.call(Basic.Qos(prefetch_count=1))
    await client.consume("q")
    await client.receive()

    answer = await client.declare("q", passive=True)

    assert (answer.message_count, answer.consumer_count) == (1, 1)


async def test_a_get_tells_how_many_are_left(client: Client) -> None:
    await filled(client, 3)

    counts = [(await client.take("q")).method.message_count for _ in range(3)]

    assert counts == [2, 1, 0]
    assert await client.get("q") is None


async def test_purging_leaves_what_is_delivered(client: Client) -> None:
    await filled(client, 3)
    held = await client.get("q", no_ack=False)
    assert held is not None

    purged = await client.call(Queue.Purge(queue="q"))

    assert purged.message_count == 2
    await client.send(Basic.Reject(held.method.delivery_tag, True))
    await client.reach("q", 1)


async def test_an_auto_delete_queue_goes_with_its_last_consumer(client: Client) -> None:
    await client.declare("q", auto_delete=True)
    await client.consume("q", "a")
    await client.consume("q", "b")
    await client.call(Basic.Cancel(consumer_tag="a"))
    assert await client.length("q") == 0

    await client.call(Basic.Cancel(consumer_tag="b"))

    with pytest.raises(Closed) as refused:
        await client.declare("q", passive=True)
    assert refused.value.code == 404


async def test_an_exclusive_queue_goes_with_its_connection(broker: Party, client: Client) -> None:
    other = await broker.connect()
    await other.declare("q", exclusive=True)

    await other.close()

    with pytest.raises(Closed) as refused:
        await client.declare("q", passive=True)
    assert refused.value.code == 404


async def test_a_queue_without_a_name_gets_one(client: Client) -> None:
    names = [(await client.declare(exclusive=True)).queue for _ in range(2)]

    assert all(name.startswith("amq.gen-") for name in names)
    assert names[0] != names[1]


async def test_a_consumer_without_a_tag_gets_one(client: Client) -> None:
    await client.declare("q")

    tags = [await client.consume("q") for _ in range(2)]

    assert all(tag.startswith("amq.ctag-") for tag in tags)
    assert tags[0] != tags[1]


@pytest.mark.parametrize("size", [0, 1, 4088, 4089, 300_000])
async def test_a_body_of_any_size_passes_small_frames(broker: Party, size: int) -> None:
    client = await broker.connect(tune={"frame_max": 4096})
    other = await broker.connect()
    await client.declare("q")
    body = bytes(index % 251 for index in range(size))

    await other.publish(body, "q")
    got = await client.take("q")

    assert got.body == body


async def test_all_properties_and_headers_pass_unchanged(client: Client) -> None:
    await client.declare("q")
    properties: dict[str, Any] = {
        "content_type": "a",
        "content_encoding": "b",
        "headers": {"s": "ü", "i": 7, "l": 1 << 40, "t": True, "n": None, "d": {"x": [1, "y", {}]}, "f": 1.5},
        "delivery_mode": 2,
        "priority": 3,
        "correlation_id": "c",
        "reply_to": "d",
        "message_id": "e",
        "message_type": "f",
        "user_id": "guest",
        "app_id": "g",
    }

    await client.publish(b"m", "q", **properties)

    got = await client.take("q")
    assert {name: getattr(got.properties, name) for name in properties} == properties


async def test_consumers_that_were_full_queue_up_as_they_get_room(client: Client) -> None:
    await client.declare("q")
    await client.call(Basic.Qos(prefetch_count=1))
    await client.consume("q", "a")
    await client.consume("q", "b")
    await client.publish(b"1", "q")
    await client.publish(b"2", "q")
    first, second = await received(client, 2)
    await client.publish(b"3", "q")  # finds both full
    assert await client.nothing()
    await client.send(Basic.Ack(second.method.delivery_tag))
    third = await client.receive()
    assert third.method.consumer_tag == "b"
    await client.send(Basic.Ack(third.method.delivery_tag))
    await client.send(Basic.Ack(first.method.delivery_tag))

    await client.publish(b"4", "q")
    await client.publish(b"5", "q")

    assert [message.method.consumer_tag for message in await received(client, 2)] == ["b", "a"]
