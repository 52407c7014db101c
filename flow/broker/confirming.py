"""One channel in confirm mode: it knows of each publish whether the broker took it."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel, AbstractConnection

from flow.broker import faults
from flow.broker.border import background, error_of, result
from flow.broker.publication import Publication
from flow.broker.url import BrokerUrl

JUDGED = (amqp.DeliveryError,)  # the broker's word on one message; any other error ends the connection


class Carrier(Protocol):
    """What a channel runs over: a connection of its own, or a place on one that others use, too."""

    @property
    def connection(self) -> AbstractConnection:
        """The connection of the library."""

    @property
    def largest_frame(self) -> int:
        """Bytes; 0 when there is no limit."""

    @property
    def abort(self) -> Callable[[], None]:
        """Drops the connection at once."""

    async def blocked(self) -> bool:
        """Whether the broker takes nothing from connections that publish."""

    async def close(self) -> None:
        """Close what is this channel's own. Never raises."""


class ConfirmChannel:
    """Publishes through one channel until anything but the broker's word on a message goes wrong."""

    def __init__(self, url: BrokerUrl, link: Carrier, channel: AbstractChannel) -> None:
        """Take an open channel in confirm mode that nobody else uses, and what it runs over."""
        self.usable = True
        self._url = url
        self._link = link
        self._channel = channel
        self._under_way: dict[str, asyncio.Task[object]] = {}  # by message id
        self._closing: asyncio.Task[None] | None = None
        for resource in (link.connection, channel):
            resource.closing.add_done_callback(self._end)

    async def publish(self, message: Publication, ends: float) -> None:
        """Publish and wait for the confirm until the loop's time *ends*; a cancelled caller leaves it on.

        Raises:
            BrokerError: as `Publisher.publish` says.
        """
        message.check_size(self._link.largest_frame)
        # The library tells returned messages by their id alone: two of one id must not be under way at once.
        while (earlier := self._under_way.get(message.message_id)) is not None:
            await asyncio.wait({earlier})
        if not self.usable:
            raise faults.publishing(amqp.ChannelInvalidStateError(), message, self._url)
        left = ends - asyncio.get_running_loop().time()
        if left <= 0:
            raise faults.publishing(TimeoutError(), message, self._url)
        task = self._start(message, left)
        await asyncio.wait({task})
        blocked = isinstance(error_of(task), TimeoutError) and await self._link.blocked()
        result(task, lambda error: faults.publishing(error, message, self._url, blocked=blocked))

    async def close(self) -> None:
        """Close in order what is its own; what is under way fails. Never raises."""
        self.usable = False
        await self._link.close()
        if self._closing is not None:
            await asyncio.wait({self._closing})

    def _start(self, message: Publication, seconds: float) -> asyncio.Task[object]:
        task: asyncio.Task[object] = background(
            self._channel.basic_publish(
                message.body,
                exchange=message.exchange,
                routing_key=message.routing_key,
                properties=message.properties(),
                mandatory=True,
                timeout=seconds,
            )
        )
        self._under_way[message.message_id] = task
        task.add_done_callback(lambda done: self._ended(message.message_id, done))
        return task

    def _ended(self, message_id: str, task: asyncio.Task[object]) -> None:
        del self._under_way[message_id]
        error = error_of(task)
        if error is not None and not isinstance(error, JUDGED):
            self._end(task)

    def _end(self, future: asyncio.Future[Any]) -> None:
        """Replace the channel: what a channel says after a fault or an expired deadline is not trusted."""
        if isinstance(error_of(future), TimeoutError):
            self._link.abort()
        if self.usable:
            self.usable = False
            self._closing = background(self._link.close())
