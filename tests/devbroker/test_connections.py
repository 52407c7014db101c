"""How a connection begins and ends."""

from contextlib import suppress
from typing import Any

import anyio
import pytest
from pamqp.commands import Basic, Channel, Confirm
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from tests.devbroker.client import CAPABILITIES, Client, Closed
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

EMPTY = ContentHeader(0, 0, Basic.Properties())
LOGIN_REFUSED = (
    "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. "
    "For details see the broker logfile."
)


async def test_the_broker_proposes_its_limits(client: Client) -> None:
    assert (client.tuned.channel_max, client.tuned.frame_max, client.tuned.heartbeat) == (2047, 131072, 60)


async def test_a_wrong_password_is_refused_in_words(broker: Party) -> None:
    with pytest.raises(Closed) as refused:
        await broker.connect(password="wrong")

    assert (refused.value.code, refused.value.text) == (403, LOGIN_REFUSED)


async def test_a_client_that_cannot_read_the_refusal_loses_the_socket(broker: Party) -> None:
    with pytest.raises(Closed) as refused:
        await broker.connect(password="wrong", capabilities={})

    assert refused.value.code == 0


@pytest.mark.parametrize(
    "tune", [{"frame_max": 100}, {"frame_max": 1_000_000}, {"frame_max": 0}, {"channel_max": 5000}]
)
async def test_limits_beyond_those_proposed_end_the_connection(broker: Party, tune: dict[str, int]) -> None:
    with pytest.raises(Closed) as refused:
        await broker.connect(tune=tune)

    assert refused.value.code == 0


async def test_no_more_channels_than_agreed(broker: Party) -> None:
    client = await broker.connect(tune={"channel_max": 2})
    await client.open(2)

    with pytest.raises(Closed) as refused:
        await client.open(3)

    assert refused.value.code == 530
    assert "channel_max (2)" in refused.value.text
    assert refused.value.method == (0, 0)


async def test_a_frame_may_be_a_little_longer_than_agreed(broker: Party) -> None:
    client = await broker.connect(tune={"frame_max": 4096})
    await client.declare("q")
    await client.publish(b"m" * 4096, "q")
    await client.reach("q", 1)

    await client.publish(b"m" * 4097, "q")

    with pytest.raises(Closed) as refused:
        await client.receive()
    assert refused.value.code == 501
    assert refused.value.text == "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,4097,4088}"


@pytest.mark.parametrize(
    "hello", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x00\x01\x00\x00", b"AMQP\x00\x00\x09\x00"]
)
async def test_another_protocol_is_answered_with_ours(broker: Party, hello: bytes) -> None:
    client = await broker.connect()
    peer = client.stream.extra(anyio.abc.SocketAttribute.remote_address)
    async with await anyio.connect_tcp(peer[0], peer[1]) as stream:
        await stream.send(hello)

        answer = await stream.receive()

        assert answer == b"AMQP\x00\x00\x09\x01"
        with pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
            await stream.receive()


async def test_a_connection_closes_in_order(client: Client) -> None:
    await client.close()

    with pytest.raises(Closed) as ended:
        await client.frame()

    assert ended.value.code == 0


async def test_heartbeats_come_when_they_are_agreed(broker: Party) -> None:
    client = await broker.connect(tune={"heartbeat": 1})

    _, frame = await client.frame()

    assert isinstance(frame, Heartbeat)


@pytest.mark.slow
async def test_a_silent_client_is_dropped_when_heartbeats_are_agreed(broker: Party) -> None:
    client = await broker.connect(tune={"heartbeat": 1})

    async def listen() -> None:
        while True:
            await client.frame()

    with anyio.fail_after(20), pytest.raises(Closed):
        await listen()


async def test_a_channel_closes_and_opens_again(client: Client) -> None:
    answer = await client.call(Channel.Close(200, "", 0, 0))

    assert isinstance(answer, Channel.CloseOk)
    await client.open(1)


async def test_confirms_count_from_one_for_each_channel(client: Client) -> None:
    await client.declare("q")
    await client.open(2)
    for channel in (1, 2):
        await client.call(Confirm.Select(), channel=channel)

    tags = [(await client.confirmed(b"", "q", channel=channel)).delivery_tag for channel in (1, 2, 1)]

    assert tags == [1, 1, 2]


async def test_every_publish_of_a_burst_is_confirmed(client: Client) -> None:
    await client.declare("q")
    await client.confirm()
    for _ in range(100):
        await client.publish(b"", "q")

    confirmed: set[int] = set()
    while 100 not in confirmed:
        answer = await client.receive()
        assert isinstance(answer, Basic.Ack)
        confirmed |= set(range(1 if answer.multiple else answer.delivery_tag, answer.delivery_tag + 1))

    assert confirmed == set(range(1, 101))
    assert await client.length("q") == 100


async def test_a_method_on_a_channel_that_is_not_open_ends_it_all(client: Client) -> None:
    with pytest.raises(Closed) as refused:
        await client.call(Basic.Qos(), channel=7)

    assert refused.value.code == 504
    assert refused.value.text == "CHANNEL_ERROR - expected 'channel.open'"


async def test_a_publish_that_is_refused_is_not_confirmed(client: Client) -> None:
    await client.confirm()
    await client.publish(b"1", "nope", exchange="nope")

    with pytest.raises(Closed) as refused:
        await client.receive()

    assert refused.value.code == 404


ENDS: list[tuple[Any, ...]] = [
    (Channel.Close(200, "", 0, 0),),
    (Basic.Publish(exchange="nope"), EMPTY),
    (Basic.Qos(prefetch_size=1),),
]


@pytest.mark.parametrize("end", ENDS)
async def test_what_is_published_together_with_the_end_of_the_channel_is_never_confirmed(
    broker: Party, client: Client, end: tuple[Any, ...]
) -> None:
    """The effect is done, and the publisher cannot know."""
    await client.declare("q")
    await client.confirm()

    await client.send(Basic.Publish(routing_key="q"), EMPTY, Basic.Publish(routing_key="q"), EMPTY, *end)

    if broker.dev is not None:  # RabbitMQ confirms all the same, once in some hundred times
        with suppress(Closed):
            assert isinstance(await client.receive(), Channel.CloseOk)
    other = await broker.connect()
    await other.reach("q", 2)


async def test_an_account_may_do_what_it_is_permitted(broker: Party) -> None:
    await account(broker, "^mine$", "^mine$|^amq.default$", "^mine$")
    client = await broker.connect(user="some one", password="secret")
    await client.declare("mine")
    await client.confirm()

    await client.confirmed(b"1", "mine")

    assert await client.drain("mine") == [b"1"]


FORBIDDEN: list[Any] = [
    (lambda client: client.declare("other"), "queue 'other'"),
    (lambda client: client.exchange("other"), "exchange 'other'"),
    (lambda client: client.get("other"), "queue 'other'"),
    (lambda client: client.consume("other"), "queue 'other'"),
    (lambda client: client.bind("other", "amq.topic"), "queue 'other'"),
    (lambda client: client.confirmed(b"", "q", exchange="amq.topic"), "exchange 'amq.topic'"),
    (lambda client: client.confirmed(b"", "q"), "exchange 'amq.default'"),
]


@pytest.mark.parametrize(("call", "what"), FORBIDDEN)
async def test_an_account_may_not_do_more(broker: Party, call: Any, what: str) -> None:
    await account(broker, "^mine$", "^mine$", "^mine$")
    client = await broker.connect(user="some one", password="secret")

    with pytest.raises(Closed) as refused:
        await call(client)

    assert refused.value.code == 403
    expected = f"ACCESS_REFUSED - access to {what} in vhost '{broker.vhost}' refused for user 'some one'"
    assert refused.value.text == expected


async def test_an_account_without_permissions_stays_outside(broker: Party) -> None:
    await account(broker, "", "", "", permitted=False)

    with pytest.raises(Closed) as refused:
        await broker.connect(user="some one", password="secret", capabilities=CAPABILITIES)

    assert refused.value.code == 530
    assert refused.value.text == f"NOT_ALLOWED - access to vhost '{broker.vhost}' refused for user 'some one'"


async def account(broker: Party, *expressions: str, permitted: bool = True) -> None:
    """Make the account "some one" with these permissions to configure, write and read."""
    configure, write, read = expressions
    if broker.dev is not None:
        broker.dev.add_user("some one", "secret")
        if permitted:
            broker.dev.permit("some one", broker.vhost, configure, write, read)
    elif broker.control is not None:
        await broker.control.add_user("some one", "secret")
        broker.accounts.append("some one")
        if permitted:
            await broker.control.permit("some one", broker.vhost, configure, write, read)
