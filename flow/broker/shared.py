"""One connection for many uses, each with a channel of its own: what ends one channel harms no other."""

from collections.abc import Callable
from contextlib import suppress

import aiormq
import anyio
from aiormq.abc import AbstractChannel

from flow.broker import faults
from flow.broker.border import bounded
from flow.broker.connecting import Link, connect
from flow.broker.url import BrokerUrl
from flow.errors import BrokerError, ConnectionLost

HEARTBEAT = 10  # seconds
CHANNEL = 10.0  # seconds until a channel must be open
CLOSE = 3.0  # seconds for the orderly end of a channel
MOST_CHANNELS = 2047  # where the broker names no limit; RabbitMQ's own default


class OpenChannel:
    """One channel of a shared connection; whoever opened it closes it."""

    def __init__(self, link: Link, channel: AbstractChannel, free: Callable[[int], object]) -> None:
        """Take a channel that is open; made by `SharedConnection.open` only, with what takes numbers back."""
        self.amqp = channel
        self._link = link
        self._free = free
        self.abort = link.abort
        """Drops the whole connection: for a broker that does not answer."""

    @property
    def connection(self) -> aiormq.Connection:
        """The connection of the library."""
        return self._link.connection

    @property
    def reply(self) -> tuple[int, str] | None:
        """The code and the words with which the broker closed the connection, if it did."""
        return self._link.reply

    @property
    def largest_frame(self) -> int:
        """Bytes; 0 when there is no limit."""
        return self._link.largest_frame

    async def blocked(self) -> bool:
        """Whether the broker takes nothing from connections that publish (memory or disk alarm)."""
        return await self._link.blocked()

    async def close(self) -> None:
        """Close the channel alone; when that takes over 3 seconds, drop the connection. Never raises."""
        if self.amqp.closing.done() or self._link.over:
            return
        with suppress(BrokerError):
            await bounded(self.amqp.close(), seconds=CLOSE, give_up=self.abort, fault=faults.lost)
            self._free(self.amqp.number)


class SharedConnection:
    """Opens one connection at the first use, and another one after it was lost."""

    def __init__(self, url: BrokerUrl, *, name: str) -> None:
        """Connect to *url* later, under *name*."""
        self.url = url
        self._name = name
        self._link: Link | None = None
        self._used = 0  # the highest number of a channel so far
        self._free: set[int] = set()  # numbers of channels that were closed in order
        self._opening = anyio.Lock()

    async def open(self, *, confirms: bool = False) -> OpenChannel:
        """Open a channel, in confirm mode when it has to publish.

        Raises:
            AccessDenied: the account may not log in, or not use the virtual host.
            ConnectionLost: the broker was not reached, or got lost.
        """
        async with self._opening:
            link = await self._connected()
            number = self._number(link)
            channel = await bounded(
                link.connection.channel(number, publisher_confirms=confirms),
                seconds=CHANNEL,
                give_up=link.abort,
                fault=lambda error: faults.lost(error, link.reply),
            )
            return OpenChannel(link, channel, self._free.add)

    async def close(self) -> None:
        """Close the connection with all its channels; the next use would open a new one. Never raises."""
        async with self._opening:
            await self._disconnect()

    async def _connected(self) -> Link:
        link = self._link
        if link is not None and (link.over or link.connection.closing.done()):
            await self._disconnect()
        if self._link is None:
            self._link = await connect(self.url, name=self._name, heartbeat=HEARTBEAT)
            self._used, self._free = 0, set()
        return self._link

    def _number(self, link: Link) -> int:
        """Return a number for the next channel.

        That of a channel which the broker closed is never used again: the library's answer to that can be
        lost, and the next channel of this number would then end the connection.

        Raises:
            ConnectionLost: there is none left; the next use opens another connection.
        """
        if self._free:
            return self._free.pop()
        if self._used >= (link.connection.connection_tune.channel_max or MOST_CHANNELS):
            link.abort()
            raise ConnectionLost("The connection has used up its channels: the next one begins anew")
        self._used += 1
        return self._used

    async def _disconnect(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()
