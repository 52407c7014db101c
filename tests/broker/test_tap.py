"""The tap in a real connection: asyncio and uvloop, with TLS and without."""

import asyncio
import logging
import os
import socket
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from typing import Any

import aiormq
import anyio
import pytest
import trustme
from aiormq.exceptions import AMQPConnectionError, AMQPError
from pamqp.commands import Basic, Channel, Connection
from yarl import URL

from flow.broker import tap
from flow.broker.frames import BrokenStream
from flow.broker.settling import Settler
from flow.broker.tap import Receive, SilentBroker, TapProtocol, TapTransportFactory
from flow.message import Message
from tests.broker.peer import Peer
from tests.broker.queues import until
from tests.broker.wire import HEARTBEAT, Delivery, frame, raw_frame

pytestmark = pytest.mark.anyio


@pytest.fixture(params=[False, True], ids=["asyncio", "uvloop"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    return "asyncio", {"use_uvloop": request.param}


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def server_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return context


@pytest.fixture(scope="module")
def client_tls(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


@pytest.fixture(autouse=True)
async def clean(caplog: pytest.LogCaptureFixture) -> AsyncIterator[None]:
    """Nothing may be left behind: no task, no socket, no word in the log of asyncio."""
    loop = asyncio.get_running_loop()
    noise: list[Any] = []
    loop.set_exception_handler(lambda loop, context: noise.append(context))
    sockets = open_sockets()
    yield
    with suppress(TimeoutError):
        await until(lambda: not tasks_of_the_test() and open_sockets() <= sockets, 5)
    assert tasks_of_the_test() == []
    assert open_sockets() <= sockets
    assert noise == []
    assert [record for record in caplog.records if record.name == "asyncio"] == []


@pytest.fixture(autouse=True)
def silent_library(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    logging.getLogger("aiormq").setLevel(logging.CRITICAL)
    yield
    logging.getLogger("aiormq").setLevel(logging.NOTSET)


def tasks_of_the_test() -> list[str]:
    """All tasks but the one that runs fixtures and tests."""
    return [repr(task) for task in asyncio.all_tasks() if "TestRunner" not in repr(task)]


def open_sockets() -> int:
    found = 0
    for descriptor in os.listdir("/proc/self/fd") if sys.platform == "linux" else ():
        with suppress(OSError):  # the one that lists them
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")
    return found


class Side:
    """Our side: a tap without a client library, or with it, and all that came out of it."""

    def __init__(self, receive: Receive | None = None, *, max_body: int = 1 << 20) -> None:
        self.reads: list[list[Message[Any]]] = []
        self.ends: list[Exception | None] = []
        self.factory = TapTransportFactory(receive or self.reads.append, self.ends.append, max_body=max_body)

    @property
    def tap(self) -> TapProtocol:
        return self.factory.protocol

    @property
    def messages(self) -> list[Message[Any]]:
        return [message for read in self.reads for message in read]

    async def open(self, peer: Peer, **options: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect without the client library."""
        self.opened = await self.factory.create(URL(peer.url), **options)  # a lost writer closes itself
        await until(lambda: peer.connections)
        return self.opened


@asynccontextmanager
async def consuming(
    peer: Peer, side: Side, context: ssl.SSLContext | None = None, prefetch: int = 10_000
) -> AsyncIterator[tuple[aiormq.Connection, aiormq.abc.AbstractChannel, Settler]]:
    """Connect with the client library and consume; drop the connection at the end."""
    connection = aiormq.Connection(peer.url, context=context, transport_factory=side.factory)
    try:
        with anyio.fail_after(10):
            await connection.connect()
            channel = await connection.channel(publisher_confirms=False)
            settler = side.tap.tap(channel.number)
            settler.consumer("queue", "one", prefetch)
            await channel.basic_consume("queue", untapped, consumer_tag="one")
        yield connection, channel, settler
    finally:
        side.factory.abort()
        await until(lambda: side.ends)
        with suppress(AMQPError, asyncio.CancelledError):
            await connection.close()


async def untapped(_: object) -> None:
    raise AssertionError("a delivery went past the tap")


def ended_with(connection: aiormq.Connection) -> BaseException | None:
    assert connection.closing.done()
    return connection.closing.exception()


# All of it


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_thousands_of_messages_pass_in_order_beside_the_library(
    encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    """Pins what the library must keep doing: it calls the factory and uses what that returns."""
    sizes = [0, 1, 52, 1500, 4088, 131_064, 131_065, 300_000]
    sent = [Delivery(tag, b"x" * sizes[tag % 8 if tag % 97 == 0 else tag % 4]) for tag in range(1, 5001)]
    side = Side()
    async with (
        Peer(server_tls if encrypted else None) as peer,
        consuming(peer, side, client_tls) as (connection, channel, settler),
    ):
        for start in range(0, 5000, 500):
            peer.send(*(one.wire(131_072) for one in sent[start : start + 500]), HEARTBEAT)
            await channel.basic_qos(prefetch_count=start + 1)  # an answer among the deliveries
            await until(lambda end=start + 500: len(side.messages) == end)
            for message in side.messages[start : start + 500]:
                message.origin.ack(message)
        await until(lambda: any(ack.delivery_tag == 5000 for ack in peer.methods(Basic.Ack)))
        await channel.basic_cancel("one")
        await channel.close()
        await connection.close()

    assert [(message.tag, message.raw) for message in side.messages] == [(one.tag, one.body) for one in sent]
    assert side.ends == [None]
    assert settler.outstanding == {}
    assert len(side.reads) < len(sent)
    assert len(peer.methods(Basic.Ack)) < 100


async def test_messages_of_one_read_are_handed_over_together_with_one_time() -> None:
    side = Side()
    async with Peer() as peer, consuming(peer, side):
        peer.send(*(Delivery(tag).wire() for tag in (1, 2, 3)))
        await until(lambda: side.messages)

    (read,) = side.reads
    assert [message.tag for message in read] == [1, 2, 3]
    assert len({message.received_at for message in read}) == 1
    assert read[0].received_at == side.tap.last_byte_at


async def test_settling_within_receive_is_written() -> None:
    def acknowledge(messages: list[Message[Any]]) -> None:
        for message in messages:
            message.origin.ack(message)

    async with Peer() as peer, consuming(peer, Side(acknowledge)):
        peer.send(*(Delivery(tag).wire() for tag in (1, 2, 3)))
        await until(lambda: peer.methods(Basic.Ack))

        (ack,) = peer.methods(Basic.Ack)
        assert (ack.delivery_tag, ack.multiple) == (3, True)


# Broken streams

BROKEN = {
    "no end mark": raw_frame(3, 1, b"x", end=b"\0"),
    "unknown type": raw_frame(9, 0, b""),
    "too large": raw_frame(3, 1, b"x" * 200_000),
    "long body": b"".join(Delivery(1, b"abc").frames()[:2]) + raw_frame(3, 1, b"abcd"),
    "short header": Delivery(1).frames()[0] + raw_frame(2, 1, b"\0\x3c"),
    "stray body": raw_frame(3, 1, b"abc"),
}


@pytest.mark.parametrize("broken", BROKEN.values(), ids=list(BROKEN))
async def test_a_broken_stream_ends_everything_with_the_named_error(broken: bytes) -> None:
    side = Side()
    async with Peer() as peer, consuming(peer, side) as (connection, channel, settler):
        asking = asyncio.ensure_future(channel.basic_qos(prefetch_count=1))
        peer.mute = True
        peer.send(Delivery(1).wire() + broken + Delivery(2).wire())
        await until(lambda: connection.closing.done() and channel.closing.done() and asking.done())

        error = ended_with(connection)
        assert isinstance(error, BrokenStream)
        assert side.tap.error is error
        assert side.ends == [error]
        assert str(error).startswith("The broker sent a ")
        assert repr(error) == f"<BrokenStream: {error}>"
        assert asking.exception() is not None
        assert not settler.alive
        assert side.messages == []  # nobody has seen the one before the fault: it was still in this read
        assert settler.outstanding == {}


async def test_frames_may_be_as_large_as_was_agreed_and_no_larger() -> None:
    side = Side()
    async with Peer(frame_max=4096) as peer, consuming(peer, side) as (connection, _, _):
        peer.send(Delivery(1, b"x" * 4088).wire(0))
        await until(lambda: side.messages)
        peer.send(Delivery(2, b"x" * 4089).wire(0))
        await until(connection.closing.done)

        assert "at most 4088 were agreed" in str(ended_with(connection))


async def test_frames_may_be_of_any_size_when_the_broker_sets_no_limit() -> None:
    side = Side(max_body=1 << 24)
    one = Delivery(1, b"x" * 10_000_000)
    async with Peer(frame_max=0) as peer, consuming(peer, side):
        peer.send(one.wire(0))
        await until(lambda: side.messages)

    assert side.messages[0].raw == one.body


async def test_another_protocol_version_is_named_by_the_library() -> None:
    side = Side()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"AMQP\0\0\x09\x02")
        await reader.read()
        writer.transport.abort()

    async with listening(refuse) as port:
        connection = aiormq.Connection(f"amqp://127.0.0.1:{port}/", transport_factory=side.factory)
        with pytest.raises(aiormq.exceptions.ProtocolSyntaxError):
            await connection.connect()


async def test_a_web_server_is_noticed_at_once() -> None:
    side = Side()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await reader.read()
        writer.transport.abort()

    async with listening(answer) as port:
        connection = aiormq.Connection(f"amqp://127.0.0.1:{port}/", transport_factory=side.factory)
        with pytest.raises(BrokenStream, match="this may be no AMQP port"), anyio.fail_after(2):
            await connection.connect()


@asynccontextmanager
async def listening(serve: Any) -> AsyncIterator[int]:
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


# Ends


async def test_abort_ends_the_connection_at_once() -> None:
    side = Side()
    async with Peer() as peer:
        await side.open(peer)

        side.factory.abort()

        await until(lambda: side.ends and peer.ended)
    assert side.ends == [None]


async def test_abort_before_anything_is_open_does_nothing() -> None:
    Side().factory.abort()


async def test_a_broker_that_closes_its_side_has_ended_the_connection() -> None:
    """F22: a half-open connection is of no use."""
    side = Side()
    async with Peer() as peer:
        _, writer = await side.open(peer)
        settler = side.tap.tap(1)

        peer.connections[0].write_eof()

        await until(lambda: side.ends)
        assert not settler.alive
        assert writer.transport.is_closing()
        await until(lambda: peer.ended)


async def test_the_words_of_a_closing_broker_are_kept_and_channels_are_dead_at_once() -> None:
    side = Side()
    async with Peer() as peer, consuming(peer, side) as (connection, _, settler):
        peer.send(Delivery(1).wire(), frame(Connection.Close(320, "shut down", 0, 0), 0), Delivery(2).wire())
        await until(connection.closing.done)

        assert side.factory.reply == (320, "shut down")
        assert (settler.alive, settler.dropped, side.messages) == (False, 2, [])


async def test_a_closed_channel_is_dead_while_the_connection_goes_on() -> None:
    """R30: not one acknowledgement follows, as it would end the connection as well."""
    side = Side()
    async with Peer() as peer, consuming(peer, side) as (connection, channel, settler):
        peer.send(Delivery(1).wire())
        await until(lambda: side.messages)
        (message,) = side.messages

        peer.send(frame(Channel.Close(406, "unknown delivery tag", 60, 80), 1))
        await until(lambda: not settler.alive)
        message.origin.ack(message)
        await until(channel.closing.done)

        assert not connection.closing.done()
        assert settler.dropped == 1
        await until(lambda: peer.methods(Channel.CloseOk))
        assert peer.methods(Basic.Ack) == []


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_writing_after_the_end_does_nothing(
    encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    side = Side()
    async with Peer(server_tls if encrypted else None) as peer:
        await side.open(peer, ssl_context_provider=Provider(client_tls))
        for _ in range(3):
            side.factory.abort()
            for _ in range(10):
                side.tap.write(HEARTBEAT)
            await until(lambda: side.ends)


async def test_a_channel_that_is_tapped_after_the_end_is_dead() -> None:
    side = Side()
    async with Peer() as peer:
        await side.open(peer)
        side.factory.abort()
        await until(lambda: side.ends)

        assert not side.tap.tap(1).alive


async def test_a_failure_counts_once() -> None:
    side = Side()
    async with Peer() as peer:
        reader, _ = await side.open(peer)
        first = SilentBroker("first")

        side.tap.fail(first)
        side.tap.fail(SilentBroker("second"))

        with pytest.raises(SilentBroker, match="first"):
            await reader.readexactly(1)
        assert (side.ends, side.tap.error) == ([first], first)
        await until(lambda: peer.ended)


async def test_what_comes_after_a_failure_is_ignored() -> None:
    side = Side()
    async with Peer() as peer:
        await side.open(peer)
        settler = side.tap.tap(1)
        settler.consumer("queue", "one", 10)
        side.tap.fail(SilentBroker("over"))

        side.tap.data_received(Delivery(1).wire() + raw_frame(9, 0, b""))

        assert (settler.dropped, side.messages) == (0, [])
        await until(lambda: peer.ended)


# Silence


async def test_a_silent_broker_is_given_up_with_the_named_error() -> None:
    """F14: all that wait for an answer get the error, nobody is cancelled."""
    side = Side()
    async with Peer() as peer, consuming(peer, side) as (connection, channel, _):
        peer.mute = True
        asking = asyncio.ensure_future(channel.basic_qos(prefetch_count=1))

        side.tap.watch(0.3)
        start = time.monotonic()
        await until(lambda: connection.closing.done() and asking.done())

        assert time.monotonic() - start > 0.2
        assert isinstance(ended_with(connection), SilentBroker)
        assert asking.exception() is side.tap.error
        assert str(side.tap.error).startswith("The broker has been silent for 0.")
        assert repr(side.tap.error) == f"<SilentBroker: {side.tap.error}>"


@asynccontextmanager
async def ticking(peer: Peer, *pieces: bytes) -> AsyncIterator[None]:
    """Let the peer send *pieces*, or else heartbeats, one every 20 ms."""

    async def send() -> None:
        waiting = list(pieces)
        while waiting or not pieces:
            peer.send(waiting.pop(0) if pieces else HEARTBEAT)
            await asyncio.sleep(0.02)

    sending = asyncio.ensure_future(send())
    try:
        yield
    finally:
        sending.cancel()
        await asyncio.wait({sending})


async def test_heartbeats_keep_an_idle_connection() -> None:
    side = Side()
    async with Peer() as peer, consuming(peer, side):
        side.tap.watch(0.3)

        async with ticking(peer):
            start = side.tap.last_byte_at
            await until(lambda: side.tap.last_byte_at > start + 0.8)

        assert side.ends == []


async def test_a_broker_that_stops_within_a_delivery_is_given_up_despite_its_heartbeats() -> None:
    side = Side()
    async with Peer() as peer, consuming(peer, side) as (connection, _, _):
        side.tap.watch(0.3)
        peer.send(*Delivery(1, b"abc").frames()[:2])

        async with ticking(peer):
            await until(connection.closing.done)

        assert str(ended_with(connection)).startswith("The broker stopped within a delivery 0.")


@pytest.mark.slow
async def test_a_slow_line_is_not_silence_and_the_library_is_told_so() -> None:
    """F24: bytes are a sign of life, even if they make no whole frame for long."""
    side = Side()
    wire = Delivery(1, b"x" * 60).wire()
    async with Peer() as peer:
        reader, writer = await side.open(peer)
        side.tap.tap(1).consumer("queue", "one", 10)
        side.tap.watch(0.3)

        async with ticking(peer, *(wire[at : at + 2] for at in range(0, len(wire), 2))):
            await until(lambda: side.messages)

        assert side.tap.error is None
        assert await reader.read(100) == HEARTBEAT
        writer.transport.abort()
        await until(lambda: side.ends)


@pytest.mark.slow
async def test_before_anything_is_consumed_the_library_gets_what_the_broker_sends_and_no_more() -> None:
    side = Side()
    start = frame(Connection.Start(server_properties={"product": "x" * 100}), 0)  # takes over a second
    async with Peer() as peer:
        reader, writer = await side.open(peer)

        async with ticking(peer, *(start[at : at + 2] for at in range(0, len(start), 2))):
            got = await reader.readexactly(len(start))

        assert got == start
        writer.transport.abort()
        await until(lambda: side.ends)


async def test_a_loop_that_stood_still_is_not_a_silent_broker() -> None:
    """F08: what came in the meantime is read before the time is looked at."""
    side = Side()
    async with Peer() as peer, consuming(peer, side):
        side.tap.watch(0.2)
        before = side.tap.last_byte_at
        peer.send(HEARTBEAT)

        time.sleep(0.5)  # noqa: ASYNC251  # what a handler should not do

        await until(lambda: side.tap.error or side.tap.last_byte_at > before)
        assert side.tap.error is None


async def test_the_watch_ends_with_the_connection() -> None:
    side = Side()
    async with Peer() as peer:
        await side.open(peer)
        side.tap.watch(0.1)
        side.factory.abort()
        await until(lambda: side.ends)
        side.tap.watch(0.1)

        end = time.monotonic() + 0.5
        await until(lambda: time.monotonic() > end)

    assert side.tap.error is None


# Connecting


class Provider:
    """Stands for what aiormq gives to a factory."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.context = context

    async def get_context(self) -> ssl.SSLContext:
        return self.context


@pytest.mark.parametrize("encrypted", [False, True], ids=["plain", "tls"])
async def test_unsent_bytes_have_four_seconds(
    encrypted: bool, server_tls: ssl.SSLContext, client_tls: ssl.SSLContext
) -> None:
    if not hasattr(socket, "TCP_USER_TIMEOUT"):
        pytest.skip("the system has no such option")
    side = Side()
    async with Peer(server_tls if encrypted else None) as peer:
        _, writer = await side.open(peer, ssl_context_provider=Provider(client_tls))

        option = writer.get_extra_info("socket").getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)

        assert option == 4000
        side.factory.abort()
        await until(lambda: side.ends)


async def refused(peer: Peer, context: ssl.SSLContext) -> AMQPConnectionError:
    side = Side()
    with pytest.raises(AMQPConnectionError) as raised:
        await side.factory.create(URL(peer.url), ssl_context_provider=Provider(context))
    return raised.value


async def test_an_unknown_authority_is_refused(server_tls: ssl.SSLContext) -> None:
    """F45: the cause names the certificate."""
    async with Peer(server_tls) as peer:
        error = await refused(peer, ssl.create_default_context())

    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_a_certificate_for_another_host_is_refused(
    authority: trustme.CA, client_tls: ssl.SSLContext
) -> None:
    other = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("broker.example.org").configure_cert(other)

    async with Peer(other) as peer:
        error = await refused(peer, client_tls)

    assert isinstance(error.__cause__, ssl.SSLCertVerificationError)


async def test_tls_to_a_plain_port_is_an_error_of_tls(client_tls: ssl.SSLContext) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"AMQP\0\0\x09\x01")
        await reader.read()
        writer.transport.abort()

    side = Side()
    async with listening(answer) as port:
        with pytest.raises(AMQPConnectionError) as raised:
            await side.factory.create(
                URL(f"amqps://127.0.0.1:{port}/"), ssl_context_provider=Provider(client_tls)
            )

    assert isinstance(raised.value.__cause__, ssl.SSLError)


async def test_nobody_there_is_a_connection_error() -> None:
    async with Peer() as peer:
        url = URL(peer.url)

    with pytest.raises(AMQPConnectionError) as raised:
        await Side().factory.create(url)

    assert isinstance(raised.value.__cause__, ConnectionRefusedError)


async def test_a_missing_context_is_an_error_and_leaves_nothing() -> None:
    class Missing(Provider):
        def __init__(self) -> None:
            pass

        async def get_context(self) -> ssl.SSLContext:
            raise FileNotFoundError(2, "No such file", "authority.pem")

    with pytest.raises(AMQPConnectionError) as raised:
        await Side().factory.create(URL("amqps://127.0.0.1:1/"), ssl_context_provider=Missing())

    assert isinstance(raised.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("scheme", ["amqp", "amqps"])
async def test_a_peer_that_only_accepts_is_left_as_soon_as_we_like(
    scheme: str, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F25: neither the missing handshake of TLS nor that of AMQP can hold us."""
    monkeypatch.setitem(tap.TLS, "ssl_handshake_timeout", 3600)
    gone: list[bytes] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.read(-1)
        gone.append(b"")
        writer.transport.abort()

    side = Side()
    async with listening(accept) as port:
        connection = aiormq.Connection(
            f"{scheme}://127.0.0.1:{port}/", context=client_tls, transport_factory=side.factory
        )
        connecting = asyncio.ensure_future(connection.connect())
        await asyncio.wait({connecting}, timeout=0.3)
        side.factory.abort()
        connecting.cancel()

        await until(lambda: connecting.done() and gone)
        with suppress(asyncio.CancelledError, AMQPError):
            await connecting


async def test_a_peer_that_is_silent_after_the_handshake_of_tls_is_left_at_once(
    server_tls: ssl.SSLContext, client_tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F25: without the abort, taking leave in TLS would wait for the peer."""
    monkeypatch.setitem(tap.TLS, "ssl_shutdown_timeout", 3600)
    side = Side()
    async with Peer(server_tls, mute=True) as peer:
        connection = aiormq.Connection(peer.url, context=client_tls, transport_factory=side.factory)
        connecting = asyncio.ensure_future(connection.connect())
        await until(lambda: peer.connections)
        peer.connections[0].transport.pause_reading()

        side.factory.abort()

        await until(connecting.done)
        assert isinstance(connecting.exception(), AMQPConnectionError)


@pytest.mark.slow
async def test_taking_leave_in_tls_has_an_end(server_tls: ssl.SSLContext, client_tls: ssl.SSLContext) -> None:
    side = Side()
    async with AsyncExitStack() as stack:
        peer = await stack.enter_async_context(Peer(server_tls, mute=True))
        _, writer = await side.open(peer, ssl_context_provider=Provider(client_tls))
        peer.connections[0].transport.pause_reading()
        stack.callback(partial(side.factory.abort))

        writer.close()
        with anyio.fail_after(10), suppress(TimeoutError, OSError):  # 30 s by default
            await writer.wait_closed()

        await until(lambda: side.ends)
