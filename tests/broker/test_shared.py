"""One connection for many uses: what ends one channel harms no other."""

from collections.abc import AsyncIterator

import anyio
import pytest

from flow.broker.declaring import Declarer
from flow.broker.publisher import Publisher
from flow.broker.shared import SharedConnection
from flow.broker.url import BrokerUrl
from flow.errors import ConnectionLost, NotFound, PublishReturned
from tests.broker.queues import Queues, eventually
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NAME = "flow shared"


@pytest.fixture
async def shared(url: BrokerUrl) -> AsyncIterator[SharedConnection]:
    connection = SharedConnection(url, name=NAME)
    yield connection
    await connection.close()


async def test_a_channel_that_the_broker_closes_harms_no_other(
    shared: SharedConnection, queues: Queues, rabbitmq: RabbitMQControl, url: BrokerUrl
) -> None:
    await queues.make("a")
    looking, publisher = Declarer(shared), Publisher(shared)
    await looking.look("a")
    await publisher.publish("", "a", b"1")

    for number in range(20):  # each closes a channel; a number used twice would end the connection
        async with Declarer(shared) as declarer:
            with pytest.raises(NotFound):
                await declarer.look(f"missing {number}")
    with pytest.raises(NotFound):
        await publisher.publish("missing", "a", b"2")
    with pytest.raises(PublishReturned):
        await publisher.publish("", "missing", b"3")
    await publisher.publish("", "a", b"4")

    await eventually(lambda: ready(looking, 2))
    assert (await rabbitmq.connection_names(url.vhost)).count(NAME) == 1
    await publisher.close()
    await looking.close()


async def ready(declarer: Declarer, count: int) -> bool:
    return (await declarer.look("a")).ready == count


async def test_a_channel_that_is_closed_under_load_harms_no_other(
    shared: SharedConnection, queues: Queues
) -> None:
    """The library may lose its answer to the close: a second channel of its number would be the end."""
    await queues.make("a")
    looking, publishers = Declarer(shared), [Publisher(shared) for _ in range(30)]
    await looking.look("a")
    missing: list[NotFound] = []

    async def publish(number: int) -> None:
        exchange = "missing" if number % 10 == 2 else ""
        try:
            await publishers[number % 30].publish(exchange, "a", b"x" * 1000)
        except NotFound as error:
            missing.append(error)

    for _ in range(10):
        async with anyio.create_task_group() as group:
            for number in range(300):
                group.start_soon(publish, number)

    assert len(missing) == 300
    await eventually(lambda: ready(looking, 2700))
    for publisher in publishers:
        await publisher.close()
    await looking.close()


async def test_closed_channels_give_their_numbers_back(shared: SharedConnection) -> None:
    numbers = set()
    for _ in range(30):
        channel = await shared.open()
        numbers.add(channel.amqp.number)
        await channel.close()

    assert numbers == {1}


async def test_a_lost_connection_is_replaced_at_the_next_use(
    shared: SharedConnection, queues: Queues, rabbitmq: RabbitMQControl
) -> None:
    await queues.make("a")
    looking = Declarer(shared)
    await looking.look("a")

    await rabbitmq.close_all_connections()
    await eventually(lambda: lost(looking))  # it may be noticed at the second question only

    assert (await looking.look("a")).ready == 0
    await looking.close()


async def lost(declarer: Declarer) -> bool:
    try:
        await declarer.look("a")
    except ConnectionLost:
        return True
    return False
