"""What is published passes a turnstile, which can be closed while nobody is in it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio

from flow.broker.publisher import Publisher
from flow.plumbing.outbox import DEADLINE


class Turnstile:
    """Publishes; while somebody holds it closed nothing is on its way and unconfirmed."""

    def __init__(self, publisher: Publisher) -> None:
        """Hand everything on to *publisher*."""
        self._publisher = publisher
        self._inside = 0
        self._open = anyio.Event()
        self._open.set()
        self._empty = anyio.Event()

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_id: str | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        """Publish when it is open, and return once the broker has confirmed the message.

        Raises:
            BrokerError: it has not.
        """
        while not self._open.is_set():
            await self._open.wait()
        self._inside += 1
        try:
            await self._publisher.publish(
                exchange, routing_key, body, message_id=message_id, deadline=deadline
            )
        finally:
            self._inside -= 1
            if not self._inside:
                self._empty.set()

    @asynccontextmanager
    async def closed(self) -> AsyncIterator[None]:
        """Let nobody in, and begin when everybody is out."""
        self._open = anyio.Event()
        try:
            while self._inside:
                self._empty = anyio.Event()
                await self._empty.wait()
            yield
        finally:
            self._open.set()
