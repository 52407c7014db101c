"""The exchanges and queues of some organisations, declared by hand, and what lies in them."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any

import aiormq

from tests.broker.queues import connected
from tests.plumbing.signature_model import BINDINGS, Sent
from tests.plumbing.signatures import told


class Wires:
    """A connection of its own to one broker."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: aiormq.Connection | None = None
        self.channel: Any = None

    async def __aenter__(self) -> "Wires":
        self._connection = await connected(self.url)
        self.channel = await self._connection.channel()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._connection is not None
        await self._connection.close()

    async def lay(self, organisations: Sequence[str]) -> list[str]:
        """Declare everything that plumbing has for the *organisations*; return the queues."""
        queues = set()
        for exchange, pattern, queue in BINDINGS:
            await self.channel.exchange_declare(exchange, exchange_type="topic", durable=True)
            for organisation in organisations:
                name = queue.replace("ORG", organisation)
                queues.add(name)
                await self.channel.queue_declare(name, durable=True)
                await self.channel.queue_bind(name, exchange, pattern.replace("ORG", organisation))
        return sorted(queues)

    async def exchanges(self) -> None:
        """Declare the exchanges alone: nothing can be routed."""
        for exchange in ("confirm", "deliver"):
            await self.channel.exchange_declare(exchange, exchange_type="topic", durable=True)

    async def drain(self, queue: str) -> list[Any]:
        """Take everything from *queue*, as aiormq gives it."""
        found = []
        while (message := await self.channel.basic_get(queue, no_ack=True)).delivery_tag is not None:
            found.append(message)
        return found

    @staticmethod
    def words(messages: Sequence[Any], numbers: dict[int, int]) -> list[Sent]:
        """Return *messages* in the words of the model; what came twice, with one id, counts once."""
        found = {message.header.properties.message_id: message for message in messages}
        sent = (
            told(message.delivery.exchange, message.delivery.routing_key, message.body, numbers)
            for message in found.values()
        )
        return sorted(sent, key=str)
