"""What only the devbroker has: at-least-once without waiting, slow readers, ends, and two loops."""

import anyio
import pytest
from pamqp.commands import Basic, Exchange, Queue, Tx

from flow.devbroker.connection import CLOSE_WAIT, FULL
from flow.devbroker.server import CHUNK, MOST, DevBroker
from tests.devbroker.client import Client, Closed, Content

pytestmark = pytest.mark.anyio

AT_LEAST_ONCE = {
    "x-queue-type": "quorum",
    "x-dead-letter-exchange": "amq.fanout",
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
}


async def reject_one(client: Client) -> None:
    await client.declare("q", durable=True, arguments=AT_LEAST_ONCE)
    await client.confirm()
    await client.confirmed(b"m", "q")
    content = await client.take_held("q")
    await client.send(Basic.Reject(content.method.delivery_tag, False))
    assert await client.nothing()


async def test_what_dies_at_least_once_waits_for_a_binding(devbroker: DevBroker) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await reject_one(client)
        await client.declare("dead")

        await client.bind("dead", "amq.fanout")

        got = await client.take("dead")
        assert got.headers["x-death"][0]["reason"] == "rejected"


async def test_bindings_that_do_not_help_leave_nothing_behind(devbroker: DevBroker) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await reject_one(client)
        for _ in range(30):
            await client.bind("q", "amq.direct", "elsewhere")
        devbroker.clock.advance(200)
        alarms = len(devbroker.clock._alarms)

        await client.declare("dead")
        await client.bind("dead", "amq.fanout")

        assert alarms < 10
        assert (await client.take("dead")).body == b"m"


async def test_what_dies_at_least_once_waits_for_room(devbroker: DevBroker) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await client.declare("dead", arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
        await client.bind("dead", "amq.fanout")
        await client.publish(b"in the way", "dead")
        await reject_one(client)
        assert await client.drain("dead") == [b"in the way"]

        devbroker.clock.advance(200)

        assert await client.drain("dead") == [b"m"]


async def test_a_client_that_does_not_read_takes_no_memory(devbroker: DevBroker) -> None:
    size, count = 100_000, 100
    async with await Client.connect(devbroker.url()) as slow, await Client.connect(devbroker.url()) as client:
        await client.declare("q")
        await slow.consume("q", no_ack=True)
        await client.confirm()
        for _ in range(count):
            await client.confirmed(b"m" * size, "q")

        waiting = devbroker.lengths()["q"] * size

        # What is not in the queue is in the buffers of the broker and of the network, which have limits.
        assert waiting > size * count - 5 * FULL - 5_000_000
        received = [await slow.receive() for _ in range(count)]
        assert all(isinstance(content, Content) and len(content.body) == size for content in received)


async def test_a_handshake_that_trickles_in_is_given_up_all_the_same(
    devbroker: DevBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow.devbroker.server.HANDSHAKE", 0.3)

    with anyio.fail_after(20):
        async with await anyio.connect_tcp(devbroker.host, devbroker.port) as stream:
            with pytest.raises((anyio.BrokenResourceError, anyio.EndOfStream)):
                await trickle(stream, b"AMQP\0\0\x09")


async def trickle(stream: anyio.abc.SocketStream, octets: bytes) -> None:
    """Send one octet after the other, until the broker ends it."""
    for octet in octets:
        await stream.send(bytes([octet]))
        with anyio.move_on_after(0.2):
            await stream.receive()
    raise AssertionError("it was never given up")


async def test_answers_that_nobody_reads_take_no_memory(devbroker: DevBroker) -> None:
    """Returned messages, answers and confirms are not held back like deliveries: the client is not read."""
    count = 200
    async with await Client.connect(devbroker.url()) as slow, anyio.create_task_group() as group:
        (connection,) = devbroker.connections
        async with await Client.connect(devbroker.url()) as client:
            group.start_soon(flood, slow, count)
            with anyio.move_on_after(5):
                while connection.waiting < MOST:  # noqa: ASYNC110 (a connection tells nobody)
                    await anyio.sleep(0.01)
            await client.declare("q")  # others are served
            held = connection.waiting
        returned = [await slow.receive() for _ in range(count)]

    assert 0 < held < MOST + 2 * CHUNK
    assert all(isinstance(content, Content) and len(content.body) == LARGE for content in returned)


LARGE = 200_000


async def flood(client: Client, count: int) -> None:
    """Publish what comes back, and read nothing."""
    for _ in range(count):
        await client.publish(b"m" * LARGE, "nowhere", mandatory=True)


async def test_a_queue_that_is_used_often_leaves_nothing_behind(devbroker: DevBroker) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await client.declare("q", arguments={"x-expires": 60_000})
        for _ in range(200):
            await client.get("q")

        assert len(devbroker.clock._alarms) < 10


async def test_the_end_of_the_broker_is_the_end_of_its_connections() -> None:
    async with DevBroker() as broker:
        client = await Client.connect(broker.url())

    with pytest.raises(Closed):
        await client.receive()
    await client.abort()


async def test_a_deleted_vhost_ends_its_connections(devbroker: DevBroker) -> None:
    devbroker.add_vhost("other")
    client = await Client.connect(devbroker.url("other"))

    devbroker.delete_vhost("other")

    with pytest.raises(Closed):
        await client.receive()
    await client.abort()


async def test_a_deleted_vhost_leaves_nothing_to_be_done(devbroker: DevBroker) -> None:
    devbroker.add_vhost("other")
    client = await Client.connect(devbroker.url("other"))
    await client.declare("old", arguments={"x-message-ttl": 60_000, "x-expires": 60_000})
    await client.publish(b"m", "old")
    await reject_one(client)

    devbroker.delete_vhost("other")
    devbroker.delete_vhost("other")

    assert not [alarm for _, _, alarm in devbroker.clock._alarms if alarm.call is not None]
    await client.abort()


async def test_a_client_that_does_not_agree_with_its_end_is_dropped(devbroker: DevBroker) -> None:
    client = await Client.connect(devbroker.url())
    await client.stream.send(b"nonsense that is no frame")
    assert b"FRAME_ERROR" in await client.stream.receive()

    devbroker.clock.advance(CLOSE_WAIT + 1)

    with anyio.fail_after(20), pytest.raises((anyio.EndOfStream, anyio.BrokenResourceError)):
        await client.stream.receive()
    await client.abort()


def test_the_broker_runs_on_either_loop() -> None:
    async def round_trip() -> None:
        async with DevBroker() as broker, await Client.connect(broker.url()) as client:
            await client.declare("q")
            await client.publish(b"m", "q")
            assert (await client.take("q")).body == b"m"

    for use_uvloop in (False, True):
        anyio.run(round_trip, backend_options={"use_uvloop": use_uvloop})


NOT_PROVIDED = [
    Queue.Declare(queue="q", arguments={"x-max-priority": 5}),
    Queue.Declare(queue="q", arguments={"x-single-active-consumer": True}),
    Queue.Declare(queue="q", durable=True, arguments={"x-queue-type": "stream"}),
    Basic.Qos(prefetch_count=1, global_=True),
    Basic.Recover(True),
    Exchange.Declare(exchange="x", exchange_type="headers"),
    Exchange.Bind(destination="amq.topic", source="amq.fanout"),
    Basic.Consume(queue="some", arguments={"x-priority": 5}),
    Tx.Select(),
]


@pytest.mark.parametrize("method", NOT_PROVIDED)
async def test_what_is_not_provided_is_said_so(devbroker: DevBroker, method: object) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await client.declare("some")
        with pytest.raises(Closed) as refused:
            await client.call(method)

    assert refused.value.code == 540
    assert "not provided by the development broker" in refused.value.text


@pytest.mark.parametrize("mechanism", ["AMQPLAIN", "EXTERNAL"])
async def test_another_way_to_log_in_is_not_provided(devbroker: DevBroker, mechanism: str) -> None:
    with pytest.raises(Closed) as refused:
        await Client.connect(devbroker.url(), mechanism=mechanism)

    assert refused.value.code == 540
    assert f"mechanism {mechanism} is not provided, only PLAIN" in refused.value.text


async def test_the_old_recover_is_not_provided_either(devbroker: DevBroker) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await client.stream.send(b"\x01\x00\x01\x00\x00\x00\x05\x00\x3c\x00\x64\x01\xce")
        with pytest.raises(Closed) as refused:
            await client.receive()

    assert refused.value.code == 540
    assert "Basic.RecoverAsync is not provided by the development broker" in refused.value.text


@pytest.mark.parametrize("moved", [True, False], ids=["moved", "waited"])
async def test_a_defect_at_a_time_to_come_leaves_the_others_alone(
    devbroker: DevBroker, caplog: pytest.LogCaptureFixture, moved: bool
) -> None:
    rung = anyio.Event()
    devbroker.clock.at(devbroker.clock.now() + 0.1, lambda: [][1])
    devbroker.clock.at(devbroker.clock.now() + 0.2, rung.set)

    if moved:
        devbroker.clock.advance(1)
    with anyio.fail_after(20):
        await rung.wait()

    assert "this is a defect of it" in caplog.text
    async with await Client.connect(devbroker.url()) as client:
        assert await client.nothing()


async def test_what_a_defect_left_unsettled_comes_back(
    devbroker: DevBroker, caplog: pytest.LogCaptureFixture
) -> None:
    async with await Client.connect(devbroker.url()) as client:
        await client.declare("q")
        await client.publish(b"m", "q")
        content = await client.take_held("q")
        devbroker.watch(lambda _, __, how: [][1] if how == "reject" else None)

        await client.send(Basic.Reject(content.method.delivery_tag, False))
        with pytest.raises(Closed):
            await client.receive()

    assert devbroker.lengths() == {"q": 1}
    assert "this is a defect of it" in caplog.text


async def test_a_count_that_is_no_number_begins_anew(devbroker: DevBroker) -> None:
    """RabbitMQ's queue fails at it, and loses the message."""
    async with await Client.connect(devbroker.url()) as client:
        await client.declare("dead")
        await client.declare(
            "q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
        )
        forged = {"x-death": [{"queue": "q", "reason": "rejected", "count": "x"}, 5]}
        await client.publish(b"m", "q", headers=forged)
        content = await client.take_held("q")

        await client.send(Basic.Reject(content.method.delivery_tag, False))

        got = await client.take("dead")
        assert got.headers["x-death"] == [{"count": 1, "queue": "q", "reason": "rejected"}]
