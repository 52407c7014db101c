"""Everything that keeps a session from beginning: the right class and one sentence, in time."""

import asyncio
import logging
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import anyio
import pytest
import trustme

from flow.broker.connecting import caution, connect
from flow.broker.publisher import Publisher
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import (
    AccessDenied,
    BrokerError,
    CertificateRejected,
    ConnectionLost,
    NotFound,
    NoVirtualHost,
    PublishFailed,
)
from tests.broker.queues import Queues, Received, until
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import Certificate, RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

CANARY = "s3cret-canary"

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


def silence(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
    """Accept the connection and say nothing."""


class Peer:
    """Something that listens, and counts the connections that came and went."""

    def __init__(self, answer: Answer) -> None:
        self.url = BrokerUrl(host="127.0.0.1", port=1, user="u", password=CANARY)
        self.accepted = self.ended = 0
        self._answer = answer

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        self._answer(reader, writer)
        with suppress(OSError):
            while await reader.read(1 << 16):
                pass
        self.ended += 1
        writer.close()


@asynccontextmanager
async def peer(answer: Answer, context: ssl.SSLContext | None = None) -> AsyncIterator[Peer]:
    """Listen and *answer*."""
    made = Peer(answer)
    server = await asyncio.start_server(made.serve, "127.0.0.1", 0, ssl=context)
    made.url = replace(made.url, port=server.sockets[0].getsockname()[1])
    yield made
    server.close()
    await until(lambda: made.accepted == made.ended)


async def refusal(url: BrokerUrl, queue: str = "a") -> BrokerError:
    """Return the error of a refused session; it must be one sentence, and nothing may go on behind it."""
    before = asyncio.all_tasks()
    with pytest.raises(BrokerError) as caught, anyio.fail_after(9):
        await Session.open(url, {queue: 10}, Received())
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert CANARY not in sentence
    assert url.place in sentence or queue in sentence or url.host in sentence
    await until(lambda: asyncio.all_tasks() <= before)
    return caught.value


async def test_wrong_password(url: BrokerUrl) -> None:
    """R25, R42, F45: the account is named, the password is not."""
    error = await refusal(replace(url, password=CANARY))

    assert type(error) is AccessDenied
    assert f"The broker at {url.place} refused the login of user guest" in str(error)


async def test_missing_virtual_host(url: BrokerUrl) -> None:
    """R25, F45: told apart from a virtual host that the account may not use."""
    error = await refusal(url.on("no such/vhost ü"))

    assert type(error) is NoVirtualHost
    assert str(error).startswith(f"There is no virtual host no such/vhost ü at {url.place}")


async def test_virtual_host_without_permission(rabbitmq: RabbitMQControl, vhost: str, url: BrokerUrl) -> None:
    """R25, F45: the account and the virtual host are named."""
    user = f"nobody-{vhost}"
    await rabbitmq.add_user(user, CANARY)

    error = await refusal(replace(url, user=user, password=CANARY))
    await rabbitmq.delete_user(user)

    assert type(error) is AccessDenied
    assert str(error).startswith(f"User {user} may not use the virtual host {vhost} of {url.place}")


async def test_missing_queue(url: BrokerUrl) -> None:
    """R25: the queue and the virtual host are named."""
    error = await refusal(url, "no.such.queue")

    assert type(error) is NotFound
    assert str(error).startswith(f"The queue no.such.queue does not exist in the virtual host {url.vhost}")


async def test_queue_without_read_permission(
    rabbitmq: RabbitMQControl, vhost: str, url: BrokerUrl, queues: Queues
) -> None:
    """R25, F45: looking at a queue needs no permission, consuming does."""
    await queues.make("a")
    user = f"other-{vhost}"
    await rabbitmq.add_user(user, CANARY)
    await rabbitmq.permit(user, vhost, ".*", ".*", "^b$")

    error = await refusal(replace(url, user=user, password=CANARY))
    await rabbitmq.delete_user(user)

    assert type(error) is AccessDenied
    assert str(error).startswith(f"User {user} may not read the queue a in the virtual host {vhost}")


async def test_exclusively_consumed_queue_is_waited_for(url: BrokerUrl, queues: Queues) -> None:
    await queues.make("a")

    async def nothing(_: object) -> None: ...

    await queues.channel.basic_consume("a", nothing, exclusive=True)

    error = await refusal(url)

    assert type(error) is ConnectionLost
    assert str(error).startswith("The queue a is held by another consumer alone")


async def test_nothing_listens() -> None:
    error = await refusal(BrokerUrl.parse("amqp://localhost:1"))

    assert type(error) is ConnectionLost
    assert str(error).startswith("Nothing listens at localhost:1: start the broker")


async def test_host_that_cannot_be_resolved() -> None:
    """F45: in one sentence that names it."""
    error = await refusal(BrokerUrl.parse(f"amqps://u:{CANARY}@no-such-host.invalid"))

    assert type(error) is ConnectionLost
    assert str(error).startswith("The host no-such-host.invalid cannot be resolved")


async def test_unknown_authority(node: RabbitMQNode) -> None:
    """F45: in one sentence that names it."""
    error = await refusal(BrokerUrl.parse(node.tls_url()))

    assert type(error) is CertificateRejected
    assert str(error).startswith(f"The certificate of localhost:{node.tls_port} is not accepted (")
    assert "cafile=FILE" in str(error)


@pytest.mark.parametrize(
    ("host", "ends", "why"),
    [
        ("other.example", datetime(2999, 1, 1, tzinfo=UTC), "mismatch"),
        ("127.0.0.1", datetime(2001, 1, 1, tzinfo=UTC), "expired"),
    ],
    ids=["another host", "expired"],
)
async def test_certificate_that_does_not_hold(tmp_path: Path, host: str, ends: datetime, why: str) -> None:
    """F45: the reason is told, and what to do."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued = authority.issue_cert(host, not_before=datetime(2000, 1, 1, tzinfo=UTC), not_after=ends)
    issued.configure_cert(context)

    async with peer(silence, context) as there:
        error = await refusal(replace(there.url, tls=True, cafile=tmp_path / "authority.pem"))

    assert type(error) is CertificateRejected
    assert why in str(error)
    assert "correct the host name" in str(error)


async def test_plain_connection_to_a_tls_port(node: RabbitMQNode, url: BrokerUrl) -> None:
    """F45: in one sentence that names it."""
    error = await refusal(replace(url, port=node.tls_port))

    assert type(error) is CertificateRejected
    assert str(error).startswith(
        f"The port 127.0.0.1:{node.tls_port} speaks TLS: begin the URL with amqps://"
    )


async def test_tls_to_a_plain_port(url: BrokerUrl) -> None:
    """F45: in one sentence that names it."""
    error = await refusal(replace(url, tls=True))

    assert type(error) is CertificateRejected
    assert str(error).startswith(f"The port {url.place} does not speak TLS")


async def test_verified_connection_works(
    node: RabbitMQNode, vhost: str, certificate: Certificate, queues: Queues
) -> None:
    await queues.make("a")
    await queues.fill("a", [b"x"])
    received = Received()
    named = BrokerUrl.parse(node.tls_url(vhost, cafile=certificate.authority))

    session = await Session.open(named, {"a": 1}, received)
    (message,) = await received.reach(1)
    message.origin.ack(message)
    await session.close()

    assert await queues.drain("a") == []


@pytest.mark.parametrize(
    ("greeting", "sentence"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak AMQP 0-9-1: correct host and port"),
        (b"AMQP\x00\x01\x00\x00", "does not speak AMQP 0-9-1: correct host and port"),
    ],
)
async def test_something_else_listens(greeting: bytes, sentence: str) -> None:
    def greet(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(greeting)

    async with peer(greet) as there:
        error = await refusal(there.url)

    assert type(error) is ConnectionLost
    assert sentence in str(error)


async def test_peer_that_hangs_up() -> None:
    def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with peer(hang_up) as there:
        error = await refusal(there.url)

    assert type(error) is ConnectionLost
    assert str(error) == f"The broker at {there.url.place} closed the connection before it was open"


async def test_silent_peer_is_given_up_at_the_deadline() -> None:
    async with peer(silence) as there:
        with pytest.raises(ConnectionLost, match=r"did not answer within 0\.2 s"), anyio.fail_after(5):
            await connect(there.url, name="flow", heartbeat=1, deadline=0.2)


@pytest.mark.parametrize("tls", ["none", "handshake", "established"])
async def test_stopping_while_connecting_returns_at_once(tls: str, certificate: Certificate) -> None:
    """K11: whatever the broker does not answer; and no connection is left."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.certificate, certificate.key)
    before = asyncio.all_tasks()

    async with peer(silence, context if tls == "established" else None) as there:
        url = there.url if tls == "none" else replace(there.url, tls=True, cafile=certificate.authority)
        with anyio.fail_after(3):
            async with anyio.create_task_group() as group:
                group.start_soon(Session.open, url, {"a": 1}, Received())
                await until(lambda: there.accepted)
                group.cancel_scope.cancel()

    await until(lambda: asyncio.all_tasks() <= before)


async def test_publishers_are_refused_with_the_same_sentences(url: BrokerUrl) -> None:
    publisher = Publisher(replace(url, password=CANARY))

    for _ in range(2):
        with pytest.raises(AccessDenied, match=f"The broker at {url.place} refused the login"):
            await publisher.publish("", "a", b"")
    await publisher.close()


async def test_bodies_and_passwords_stay_out_of_the_log(
    caplog: pytest.LogCaptureFixture, url: BrokerUrl, queues: Queues
) -> None:
    """R42: even when somebody asks for everything that the library logs."""
    caplog.set_level(logging.DEBUG)
    for name in ("aiormq", "aiormq.connection", "aiormq.channel"):
        caplog.set_level(logging.DEBUG, name)
    await queues.make("a")
    received = Received()
    publisher = Publisher(url)

    session = await Session.open(url, {"a": 1}, received)
    await publisher.publish("", "a", CANARY.encode(), headers={"x": CANARY})
    await received.reach(1)
    with pytest.raises(PublishFailed):
        await publisher.publish("", "no.such.queue", CANARY.encode())
    await session.close()
    await publisher.close()
    await refusal(replace(url, password=CANARY))

    assert CANARY not in caplog.text
    assert "guest:guest" not in caplog.text


async def test_connections_without_tls_across_a_network_are_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = BrokerUrl.parse(f"amqp://u:{CANARY}@plain-{id(caplog)}.invalid")

    for _ in range(2):
        await refusal(url)

    warnings = [record.getMessage() for record in caplog.records if "not encrypted" in record.getMessage()]
    assert warnings == [f"The connection to {url.host} is not encrypted: use amqps:// across a network"]


@pytest.mark.parametrize(
    ("version", "warned"),
    [("3.12.14", False), ("3.13.0", True), ("3.13.2", True), ("3.13.3", False), ("4.1.0", False)],
)
def test_versions_that_drop_messages_are_warned_of(version: str, warned: bool) -> None:
    assert (caution({"version": version}) is not None) is warned


async def test_another_address_is_tried_when_the_first_is_not_reached(url: BrokerUrl) -> None:
    """R34: at each connecting anew, in their order; when none is reached, all of them are told."""
    nowhere = BrokerUrl.parse("amqp://127.0.0.1:1")
    reached = replace(nowhere, alternatives=(url,))

    for _ in range(2):
        link = await connect(reached, name="flow", heartbeat=10)
        await link.close()
    with pytest.raises(ConnectionLost) as lost:
        await connect(replace(nowhere, alternatives=(nowhere,)), name="flow", heartbeat=10)

    assert link.url == url
    assert str(lost.value).count("Nothing listens at 127.0.0.1:1") == 2
