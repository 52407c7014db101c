"""Opens and closes connections: bounded in time, verified, with a tap in the byte stream."""

import asyncio
import functools
import logging
import ssl
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import version
from typing import Any

import aiormq
import anyio

from flow.broker import faults
from flow.broker.border import background, bounded
from flow.broker.names import any_name
from flow.broker.quiet import quiet
from flow.broker.tap import Ended, Receive, TapProtocol, TapTransportFactory
from flow.broker.url import BrokerUrl
from flow.errors import BrokerError, ConnectionLost

CONNECT = 10.0  # seconds until a connection must be open, by default
CLOSE = 3.0  # seconds for an orderly end
PROBE = 2.0  # seconds for the question whether a port speaks TLS
MESSAGES_LOST_IN_CYCLES = ("3.13.0", "3.13.1", "3.13.2")  # github.com/rabbitmq/rabbitmq-server/issues/11159

log = logging.getLogger("flow")


class Link:
    """An open connection, and the handle that ends it at once."""

    def __init__(
        self, url: BrokerUrl, *, name: str, heartbeat: int, context: ssl.SSLContext | None, max_body: int
    ) -> None:
        """Prepare a connection; made by `connect` only."""
        self.url = url
        """The address that was reached."""
        self.receive: Receive = ignore
        """Gets the deliveries of tapped channels, all those of one read from the socket at once."""
        self.ended: Ended = ignore
        """Is told once that the connection can carry nothing more, with the error if there was one."""
        self._factory = TapTransportFactory(
            lambda messages: self.receive(messages), lambda error: self.ended(error), max_body=max_body
        )
        self.abort = self._factory.abort
        self.connection = aiormq.Connection(
            url.full(name=name, heartbeat=heartbeat),
            context=context,
            transport_factory=self._factory,
            client_properties=client_properties(),
        )
        self.connection.vhost = url.vhost  # a URL cannot carry every name through the library

    @property
    def protocol(self) -> TapProtocol:
        """The tap in the byte stream."""
        return self._factory.protocol

    @property
    def reply(self) -> tuple[int, str] | None:
        """The code and the words with which the broker closed the connection, if it did."""
        return self._factory.reply

    @property
    def reached(self) -> bool:
        """Whether somebody accepted the connection."""
        return self._factory.reached

    @property
    def over(self) -> bool:
        """Whether the connection has ended, or is about to as one of the ends asked for it."""
        return self.reply is not None or self._factory.ended

    def lost(self, error: BaseException | None) -> BrokerError:
        """Translate what ended the connection or something on it."""
        return faults.lost(error, self.reply)

    @property
    def largest_frame(self) -> int:
        """Bytes; 0 when there is no limit."""
        return self.connection.connection_tune.frame_max or 0

    async def blocked(self) -> bool:
        """Whether the broker takes nothing from connections that publish (memory or disk alarm)."""
        ready = background(self.connection.ready())
        await asyncio.wait({ready}, timeout=0)
        return ready.cancel()  # False when it was done

    async def close(self) -> None:
        """Close in order, or drop the connection when that takes over 3 seconds. Never raises."""
        with suppress(BrokerError):
            await bounded(self.connection.close(), seconds=CLOSE, give_up=self.abort, fault=faults.lost)
        self.abort()


async def connect(
    url: BrokerUrl, *, name: str, heartbeat: int, max_body: int = 0, deadline: float = CONNECT
) -> Link:
    """Open a connection under *name*, to the first address of *url* that is reached, as its files say it now.

    One that is silent for two *heartbeat*s is ended. Bodies above *max_body* bytes are not kept.

    Raises:
        BrokerError: it was not open within *deadline* seconds at any address; a ConnectionLost may pass,
            others will not.
    """
    quiet()
    any_name()
    lost: list[ConnectionLost] = []
    if url.read is not None:
        url = await anyio.to_thread.run_sync(url.again)
    for one in (url, *url.alternatives):
        try:
            return await connect_to(one, name=name, heartbeat=heartbeat, max_body=max_body, deadline=deadline)
        except ConnectionLost as error:
            lost.append(error)
    if len(lost) == 1:
        raise lost[0]
    raise ConnectionLost("; ".join(str(error) for error in lost)) from lost[-1]


async def connect_to(url: BrokerUrl, *, name: str, heartbeat: int, max_body: int, deadline: float) -> Link:
    """Open a connection to *url* itself, as `connect` says."""
    if url.in_the_clear:
        warn_of_plain(url.host)
    context = await anyio.to_thread.run_sync(url.context) if url.tls else None
    link = Link(url, name=name, heartbeat=heartbeat, context=context, max_body=max_body)
    try:
        await bounded(
            link.connection.connect(),
            seconds=deadline,
            give_up=link.abort,
            fault=lambda error: faults.opening(error, url, link.reply),
        )
    except ConnectionLost as lost:
        expired = lost.__cause__ is None
        if link.reached and not expired and not url.tls and await speaks_tls(url):
            raise faults.needs_tls(url) from lost
        raise
    link.protocol.watch(2.0 * heartbeat)
    return link


def client_properties() -> dict[str, Any]:
    """Return what the broker shows of us beside the name."""
    return {"product": "proca-flow", "version": version("proca-flow"), "information": "A queue consumer"}


def caution(server_properties: Mapping[str, Any]) -> str | None:
    """Return what is to be said about the version of the broker, if anything."""
    number = server_properties.get("version")
    if isinstance(number, bytes):
        number = number.decode("ascii", "replace")
    if number not in MESSAGES_LOST_IN_CYCLES:
        return None
    return f"RabbitMQ {number} drops messages from retry loops: update the broker to 3.13.3 or newer"


@functools.cache
def warn_of_plain(host: str) -> None:
    """Say once per process and host that login and messages can be read on the way."""
    log.warning("The connection to %s is not encrypted: use amqps:// across a network", host)


def ignore(_: object) -> None:
    """Take what nobody waits for."""


async def speaks_tls(url: BrokerUrl) -> bool:
    """Whether the port answers a TLS handshake; nothing else is sent."""
    loop = asyncio.get_running_loop()
    try:
        with anyio.fail_after(PROBE):
            transport, _ = await loop.create_connection(
                asyncio.Protocol, url.host, url.port, ssl=ssl.create_default_context()
            )
    except ssl.SSLCertVerificationError:
        return True
    except OSError:  # also TimeoutError and other errors of TLS
        return False
    transport.abort()
    return True
