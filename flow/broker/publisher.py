"""Publishes messages so that the broker has taken responsibility for them when the call returns."""

import asyncio
import functools
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from flow.broker import faults
from flow.broker.border import background, bounded, error_of
from flow.broker.confirming import ConfirmChannel
from flow.broker.connecting import connect
from flow.broker.publication import Headers, publication
from flow.broker.shared import SharedConnection
from flow.broker.url import BrokerUrl
from flow.errors import BrokerError, ConnectionLost

HEARTBEAT = 10  # seconds
CHANNEL = 10.0  # seconds until a channel must be open
LATE = 1.0  # seconds after a deadline within which the library has to notice it


class Publisher:
    """Publishes with confirms on a connection of its own, opened at the first publish and again after a loss.

    The connection should only publish: a memory alarm of the broker freezes everything on one that does.
    """

    def __init__(
        self, broker: BrokerUrl | SharedConnection, *, name: str = "flow-publisher", window: int = 100
    ) -> None:
        """Publish later, on a connection under *name* or through a channel of one that others use, too.

        At most *window* messages wait for their confirm at once; on a shared connection one does: when the
        broker closes the channel, the library would still send the next, and that ends the connection.
        """
        self._url = broker if isinstance(broker, BrokerUrl) else broker.url
        self._open: Callable[[], Coroutine[Any, Any, ConfirmChannel]]
        if isinstance(broker, BrokerUrl):
            self._open = functools.partial(open_channel, broker, name)
        else:
            self._open = functools.partial(share_channel, broker)
        self._places = anyio.Semaphore(window if isinstance(broker, BrokerUrl) else 1)
        self._opening: asyncio.Task[ConfirmChannel] | None = None  # done: the channel is open, or failed
        self._closed = False

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        headers: Headers | None = None,
        message_id: str | None = None,
        content_type: str = "application/json",
        deadline: float = 30.0,
    ) -> None:
        """Publish one message, persistent and mandatory, and return when the broker has confirmed it.

        Without *message_id* it gets a new one. After *deadline* seconds, or when cancelled, it may or may
        not have arrived.

        Raises:
            PublishFailed: it cannot be sent, no queue takes it, the broker refused it, or did not confirm it
                in time.
            NotFound: the exchange or the virtual host does not exist.
            AccessDenied: the account may not publish there, or not log in.
            CertificateRejected: the broker's certificate is not accepted.
            ConnectionLost: there is no connection, or it broke before the confirm.
        """
        message = publication(exchange, routing_key, body, headers, message_id, content_type, deadline)
        ends = anyio.current_time() + deadline
        try:
            with anyio.fail_after(deadline + LATE):
                async with self._places:
                    channel = await self._channel()
                    await channel.publish(message, ends)
        except TimeoutError as error:
            raise faults.publishing(error, message, self._url) from None

    async def close(self) -> None:
        """Close in order what is its own, not a shared connection; what is under way fails. Never raises."""
        self._closed = True
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()  # no effect when it is done
            with anyio.CancelScope(shield=True):
                await asyncio.wait({opening})
                if error_of(opening) is None:
                    await opening.result().close()

    async def _channel(self) -> ConfirmChannel:
        """Return the open channel, or open one; all who ask meanwhile wait for the same.

        Raises:
            BrokerError: it cannot be opened.
        """
        if self._closed:
            raise ConnectionLost("The publisher is closed: nothing can be published through it any more")
        opening = self._opening
        if opening is None or (opening.done() and not usable(opening)):
            opening = self._opening = background(self._open())
        if not opening.done():  # else nothing may come between the look at it and its use
            await asyncio.wait({opening})
        error = error_of(opening)
        if isinstance(error, BrokerError):
            raise type(error)(*error.args) from error  # a new one for each who waits
        if error is not None:
            raise ConnectionLost("The publisher was closed while it connected") from error
        return opening.result()


async def open_channel(url: BrokerUrl, name: str) -> ConfirmChannel:
    """Open a connection and on it a channel in confirm mode.

    Raises:
        BrokerError: it was refused, or not open in time.
    """
    link = await connect(url, name=name, heartbeat=HEARTBEAT)
    try:
        channel = await bounded(
            link.connection.channel(publisher_confirms=True),
            seconds=CHANNEL,
            give_up=link.abort,
            fault=lambda error: faults.lost(error, link.reply),
        )
    except BrokerError:
        await link.close()
        raise
    return ConfirmChannel(url, link, channel)


async def share_channel(connection: SharedConnection) -> ConfirmChannel:
    """Open a channel in confirm mode on a *connection* that others use, too.

    Raises:
        BrokerError: it was refused, or not open in time.
    """
    channel = await connection.open(confirms=True)
    return ConfirmChannel(connection.url, channel, channel.amqp)


def usable(opening: asyncio.Task[ConfirmChannel]) -> bool:
    """Whether what was opened can still be used."""
    return error_of(opening) is None and opening.result().usable
