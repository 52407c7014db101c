"""Publishes over a shared connection, each message on a channel that is its own until it is confirmed."""

import anyio

from flow.broker.publication import Headers
from flow.broker.publisher import Publisher
from flow.broker.shared import SharedConnection

MOST = 100  # messages under way at once


class Pool:
    """Keeps channels in confirm mode for the next messages; what ends one of them harms one message."""

    def __init__(self, connection: SharedConnection) -> None:
        """Publish over *connection* later."""
        self._connection = connection
        self._idle: list[Publisher] = []
        self._places = anyio.Semaphore(MOST)

    async def publish(
        self, exchange: str, routing_key: str, body: bytes, message_id: str | None, headers: Headers | None
    ) -> None:
        """Publish one message, as `Publisher.publish` says."""
        async with self._places:
            publisher = self._idle.pop() if self._idle else Publisher(self._connection)
            try:
                await publisher.publish(exchange, routing_key, body, message_id=message_id, headers=headers)
            finally:
                self._idle.append(publisher)

    async def close(self) -> None:
        """Close the idle channels. Never raises."""
        while self._idle:
            await self._idle.pop().close()
