"""Publishing on a real broker: what returns has arrived, what raises says why, and nothing hangs."""

from typing import Any

import anyio
import pytest
from pamqp.commands import Channel, Connection

from flow.broker.publisher import Publisher
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import (
    AccessDenied,
    BrokerError,
    ConnectionLost,
    NotFound,
    NoVirtualHost,
    PublishFailed,
    PublishReturned,
    PublishTimedOut,
    Unanswered,
)
from tests.broker.peer import Peer
from tests.broker.queues import Acknowledging, Queues, Received, until
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


async def attempt(publisher: Publisher, key: str, body: bytes = b"", **options: Any) -> BrokerError | None:
    """Publish to the queue *key*; return the error, or None when it was confirmed."""
    try:
        await publisher.publish("", key, body, **options)
    except BrokerError as error:
        return error
    return None


async def test_confirmed_message_is_in_the_queue_with_its_properties(
    publisher: Publisher, queues: Queues
) -> None:
    await queues.make("a")
    headers: dict[str, str | int | bool] = {
        "text": "ü\udcff",
        "number": -(2**63),
        "large": 2**63 - 1,
        "yes": True,
    }

    await publisher.publish(
        "", "a", b'{"x": 1}', headers=headers, message_id="id 1", content_type="text/plain"
    )

    message = await queues.take("a")
    properties = message.header.properties
    assert message.body == b'{"x": 1}'
    assert properties.headers == headers | {"text": "ü\\udcff"}
    assert (properties.message_id, properties.content_type, properties.delivery_mode) == (
        "id 1",
        "text/plain",
        2,
    )


async def test_each_message_without_an_id_gets_its_own(publisher: Publisher, queues: Queues) -> None:
    await queues.make("a")

    await publisher.publish("", "a", b"1")
    await publisher.publish("", "a", b"2")

    one, other = [(await queues.take("a")).header.properties.message_id for _ in range(2)]
    assert one
    assert other
    assert one != other


async def test_unroutable_message_fails_and_names_exchange_and_key(
    publisher: Publisher, queues: Queues
) -> None:
    await queues.channel.exchange_declare("x", exchange_type="topic")

    with pytest.raises(
        PublishReturned, match=r"No queue takes messages for exchange x with the key k\.1: bind one"
    ):
        await publisher.publish("x", "k.1", b"")
    with pytest.raises(PublishReturned, match="There is no queue nope: correct its name"):
        await publisher.publish("", "nope", b"")


async def test_missing_exchange_is_named_and_others_can_be_published_to(
    publisher: Publisher, url: BrokerUrl, queues: Queues
) -> None:
    await queues.make("a")

    with pytest.raises(NotFound, match=f"The exchange nope does not exist in the virtual host {url.vhost}"):
        await publisher.publish("nope", "a", b"")
    await publisher.publish("", "a", b"1")

    assert await queues.drain("a") == [b"1"]


async def test_missing_exchange_is_blamed_on_its_own_message_only(
    publisher: Publisher, queues: Queues
) -> None:
    """The broker closes the channel: the others of that moment may have arrived or not."""
    await queues.make("a")
    errors: dict[int, BrokerError | None] = {}

    async def publish(number: int) -> None:
        errors[number] = await attempt(publisher, "a", b"%d" % number)

    async def publish_wrongly() -> None:
        with pytest.raises(NotFound):
            await publisher.publish("nope", "a", b"")

    async with anyio.create_task_group() as group:
        for number in range(50):
            group.start_soon(publish, number)
            if number == 25:
                group.start_soon(publish_wrongly)

    arrived = {int(body) for body in await queues.drain("a")}
    assert {number for number, error in errors.items() if error is None} <= arrived
    assert {type(error) for error in errors.values() if error} <= {ConnectionLost, Unanswered}


async def test_account_without_write_permission_is_denied(
    rabbitmq: RabbitMQControl, vhost: str, queues: Queues
) -> None:
    await queues.make("a")
    user = f"reader-{vhost}"
    await rabbitmq.add_user(user, "p")
    await rabbitmq.permit(user, vhost, "^$", "^$", ".*")
    publisher = Publisher(BrokerUrl.parse(rabbitmq.url(vhost, user=user, password="p")))

    error = await attempt(publisher, "a")
    await publisher.close()
    await rabbitmq.delete_user(user)

    assert type(error) is AccessDenied
    assert str(error).startswith(f"User {user} may not publish to the default exchange with the key a")


async def test_full_queue_refuses(publisher: Publisher, queues: Queues) -> None:
    await queues.make("a", **{"x-max-length": 1, "x-overflow": "reject-publish"})
    await publisher.publish("", "a", b"1")

    errors = [await attempt(publisher, "a", b"2") for _ in range(3)]

    assert type(errors[-1]) is PublishFailed
    assert str(errors[-1]).startswith(
        "The broker refused a message for the default exchange with the key a: a "
    )


async def test_body_above_the_limit_of_the_broker_is_refused(
    rabbitmq: RabbitMQControl, publisher: Publisher, queues: Queues
) -> None:
    await queues.make("a")
    try:
        await rabbitmq.evaluate("application:set_env(rabbit, max_message_size, 1000)")
        with pytest.raises(PublishFailed, match="message size 1001"):
            await publisher.publish("", "a", bytes(1001))
    finally:
        await rabbitmq.evaluate("application:set_env(rabbit, max_message_size, 134217728)")
    await publisher.publish("", "a", bytes(1001))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"headers": {"k" * 129: 1}}, "The name of a header must fit 128 bytes, got kkk"),
        (
            {"headers": {"x": 2**63}},
            "The header x must be a text, a whole number of 64 bits or a truth value, got int",
        ),
        ({"headers": {"x": 1.5}}, "The header x must be .* got float"),
        ({"headers": {"x": b"1"}}, "The header x must be .* got bytes"),
        ({"headers": {"x": None}}, "The header x must be .* got NoneType"),
        ({"headers": {"x": "ü" * 66_000}}, "must fit 131064 bytes together, got 132"),
        ({"message_id": "x" * 256}, "The message id of a message must fit 255 bytes"),
        ({"content_type": "ü" * 128}, "The content type of a message must fit 255 bytes"),
    ],
)
async def test_what_cannot_be_sent_fails_and_harms_nothing(
    options: dict[str, Any], sentence: str, publisher: Publisher, queues: Queues
) -> None:
    """Sent, some of these would be cut, others would end the connection."""
    await queues.make("a")

    with pytest.raises(PublishFailed, match=sentence):
        await publisher.publish("", "a", b"", **options)
    await publisher.publish("", "a", b"1")


async def test_two_messages_of_one_id_are_judged_each_by_itself(publisher: Publisher, queues: Queues) -> None:
    """The library tells a returned message by its id alone."""
    await queues.make("a")

    for _ in range(50):
        errors: dict[str, BrokerError | None] = {}

        async def publish(key: str, errors: dict[str, BrokerError | None] = errors) -> None:
            errors[key] = await attempt(publisher, key, message_id="the same")

        async with anyio.create_task_group() as group:
            group.start_soon(publish, "nope")
            group.start_soon(publish, "a")

        assert type(errors["nope"]) is PublishReturned
        assert errors["a"] is None
    assert len(await queues.drain("a")) == 50


@pytest.mark.parametrize("end", ["closed by the operator", "killed"])
async def test_every_publish_ends_when_the_connection_does(
    end: str, node: RabbitMQNode, publisher: Publisher, queues: Queues, amqp_url: str
) -> None:
    """R26: what returned is in the queue; the next publish connects again."""
    await queues.make("a")
    errors: dict[int, BrokerError | None] = {}

    async def publish(number: int) -> None:
        errors[number] = await attempt(publisher, "a", b"%d" % number)

    with anyio.fail_after(60):
        async with anyio.create_task_group() as group:
            for number in range(1000):
                group.start_soon(publish, number)
            while len(errors) < 200:  # noqa: ASYNC110 (in the middle)
                await anyio.sleep(0.001)
            if end == "killed":
                node.kill()
            else:
                await node.close_all_connections()
    if end == "killed":
        await node.start()
    assert await attempt(publisher, "a", b"1000") is None

    arrived, again = await received(amqp_url)
    assert {type(error) for error in errors.values() if error} <= {ConnectionLost, Unanswered}
    assert {number for number, error in errors.items() if error is None} | {1000} <= arrived
    assert not again


async def received(url: str) -> tuple[set[int], set[int]]:
    """Take everything from queue a; return the numbers, and those that came twice."""
    everything = Acknowledging()
    session = await Session.open(BrokerUrl.parse(url), {"a": 2000}, everything)
    await everything.reach(await session.ready("a") + len(session.outstanding()))
    while await session.ready("a"):
        pass
    await session.close()
    numbers = [int(body) for body in everything.bodies]
    return set(numbers), {number for number in numbers if numbers.count(number) > 1}


async def test_connection_lost_in_idleness_is_replaced(
    rabbitmq: RabbitMQControl, publisher: Publisher, queues: Queues
) -> None:
    """R26: the caller does not notice."""
    await queues.make("a")
    await publisher.publish("", "a", b"1")

    await rabbitmq.close_all_connections()
    await publisher.publish("", "a", b"2")


async def test_broker_that_does_not_confirm_in_time_is_given_up(
    node: RabbitMQNode, publisher: Publisher, queues: Queues
) -> None:
    await queues.make("a")
    await publisher.publish("", "a", b"1")

    node.freeze()
    try:
        with (
            anyio.fail_after(5),
            pytest.raises(PublishFailed, match=r"did not confirm .* in 0\.5 s: it may have"),
        ):
            await publisher.publish("", "a", b"2", deadline=0.5)
    finally:
        node.thaw()
    assert await attempt(publisher, "a", b"3") is None


async def test_memory_alarm_stops_publishing_and_not_consuming(
    rabbitmq: RabbitMQControl, publisher: Publisher, url: BrokerUrl, queues: Queues
) -> None:
    """The two have connections of their own: acknowledgements go on."""
    await queues.make("a")
    await queues.fill("a", [b"x"] * 100)
    consumed = Acknowledging()
    await publisher.publish("", "a", b"x")

    try:
        await rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.000001)")
        with anyio.fail_after(10):
            while (error := await attempt(publisher, "a", b"x", deadline=2)) is None:
                pass  # the alarm takes a moment
        session = await Session.open(url, {"a": 10}, consumed)
        await consumed.reach(101)
        while await session.ready("a"):
            pass
        await session.close()
    finally:
        await rabbitmq.evaluate("vm_memory_monitor:set_vm_memory_high_watermark(0.4)")

    assert type(error) is PublishTimedOut
    assert "in 2 s: it blocks publishers now" in str(error)
    with anyio.fail_after(30):
        while await attempt(publisher, "a", b"y", deadline=2) is not None:
            pass


async def test_impatient_caller_leaves_the_publisher_usable(publisher: Publisher, queues: Queues) -> None:
    await queues.make("a")

    for _ in range(20):
        with anyio.move_on_after(0.001):
            await publisher.publish("", "a", b"1", message_id="the same")

    assert await attempt(publisher, "a", b"2", message_id="the same", deadline=10) is None


async def test_all_who_wait_for_a_refused_connection_are_told(url: BrokerUrl) -> None:
    publisher = Publisher(url.on("no such vhost"), window=10)
    errors: list[BrokerError | None] = []

    async def publish() -> None:
        errors.append(await attempt(publisher, "a"))

    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            for _ in range(30):
                group.start_soon(publish)
    await publisher.close()

    assert [type(error) for error in errors] == [NoVirtualHost] * 30


async def test_closed_publisher_refuses(publisher: Publisher, node: RabbitMQNode, queues: Queues) -> None:
    """Closing returns in time even when the broker does not answer."""
    await queues.make("a")
    await publisher.publish("", "a", b"1")

    node.freeze()
    try:
        with anyio.fail_after(6):
            await publisher.close()
    finally:
        node.thaw()

    with pytest.raises(ConnectionLost, match="The publisher is closed"):
        await publisher.publish("", "a", b"2")


async def test_closing_while_connecting_ends_what_waits(queues: Queues) -> None:
    """K11: no connection is opened afterwards."""
    publisher = Publisher(BrokerUrl.parse("amqps://u:p@192.0.2.1"))  # leads nowhere
    errors: list[BrokerError | None] = []

    async def publish() -> None:
        errors.append(await attempt(publisher, "a"))

    with anyio.fail_after(5):
        async with anyio.create_task_group() as group:
            group.start_soon(publish)
            await anyio.wait_all_tasks_blocked()
            await publisher.close()

    assert [type(error) for error in errors] == [ConnectionLost]


async def test_message_beyond_the_window_waits_its_turn(url: BrokerUrl, queues: Queues) -> None:
    await queues.make("a")
    publisher = Publisher(url, window=1)
    received = Received()

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(publisher.publish, "", "a", b"%d" % number)
    session = await Session.open(url, {"a": 20}, received)
    await received.reach(20)
    await session.close()
    await publisher.close()

    assert received.bodies == [b"%d" % number for number in range(20)]


class Refusing(Peer):
    """Opens connections, and no channel on them."""

    def _answer(self, method: Any) -> Any:
        if isinstance(method, Channel.Open):
            return Channel.Close(reply_code=506, reply_text="RESOURCE_ERROR", class_id=20, method_id=10)
        return super()._answer(method)


async def test_a_connection_without_a_channel_does_not_stay_open() -> None:
    """Each publish tries again, and would leave another one behind."""
    async with Refusing() as peer:
        publisher = Publisher(BrokerUrl(host="127.0.0.1", port=peer.port, user="u", password="p"))
        for opened in (1, 2):
            error = await attempt(publisher, "a")

            assert isinstance(error, ConnectionLost)
            assert len(peer.connections) == opened
            await until(lambda opened=opened: peer.ended == opened)
            assert len(peer.methods(Connection.Close)) == opened, "else its silence has ended it"
        await publisher.close()
