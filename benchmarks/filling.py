"""Fills the queue that is consumed, faster than any client library publishes."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from itertools import cycle, islice
from typing import Any

import aiormq
import anyio
from aiormq.abc import AbstractChannel
from aiormq.connection import TCPTransportFactory
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader
from yarl import URL

PORTION = 500  # messages in one write
ARRIVAL = 60.0  # seconds from the last write until all must be in the queue


class KeptWriter(TCPTransportFactory):
    """A plain TCP connection, with its writer kept: whole frames may be written beside the library's own."""

    async def create(self, url: URL, **kwargs: Any) -> Any:
        """Connect to *url*."""
        reader, self.writer = await super().create(url, **kwargs)
        return reader, self.writer


class Filler:
    """Fills and counts one durable classic queue over a connection of its own."""

    def __init__(self, queue: str, channel: AbstractChannel, transport: KeptWriter) -> None:
        told = channel.connection.server_properties
        self.broker = f"{told['product']} {told['version']}"
        """Name and version of the broker."""
        self._queue = queue
        self._channel = channel
        self._transport = transport

    async def fill(self, bodies: Sequence[bytes], count: int) -> None:
        """Make the queue hold *count* transient messages with *bodies* in turn, and nothing else."""
        await self._channel.queue_declare(self._queue, durable=True)
        await self._channel.queue_purge(self._queue)
        writer, frames = self._transport.writer, cycle([self._published(body) for body in bodies])
        for start in range(0, count, PORTION):
            writer.write(b"".join(islice(frames, min(PORTION, count - start))))
            await writer.drain()
        with anyio.fail_after(ARRIVAL):
            while await self.count() < count:  # noqa: ASYNC110  # the broker answers before it has put away the last ones
                await anyio.sleep(0.01)

    async def count(self) -> int:
        """Return how many messages wait; what this connection published before is counted."""
        declared = await self._channel.queue_declare(self._queue, passive=True)
        return declared.message_count or 0

    async def delete(self) -> None:
        """Remove the queue."""
        await self._channel.queue_delete(self._queue)

    def _published(self, body: bytes) -> bytes:
        """Return the frames that publish *body* to the queue."""
        properties = commands.Basic.Properties(content_type="application/json", delivery_mode=1)
        parts = (
            commands.Basic.Publish(exchange="", routing_key=self._queue),
            ContentHeader(body_size=len(body), properties=properties),
            ContentBody(body),
        )
        return b"".join(frame.marshal(part, self._channel.number) for part in parts)


@asynccontextmanager
async def filler(url: str, queue: str) -> AsyncIterator[Filler]:
    """Open a `Filler` of *queue* at *url*."""
    transport = KeptWriter()
    connection = await aiormq.connect(url, transport_factory=transport)
    try:
        yield Filler(queue, await connection.channel(publisher_confirms=False), transport)
    finally:
        await connection.close()
