"""What the tests of the broker wing use beside the wing: queues to fill, a place to receive, waiting."""

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

import aiormq
import anyio
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from flow.message import Message

PATIENCE = 30.0  # seconds; generous, as a state is waited for and not a time


class Queues:
    """Makes queues and fills them, over a connection of its own that knows nothing of flow."""

    def __init__(self, channel: AbstractChannel) -> None:
        self.channel = channel

    async def make(self, name: str, **arguments: Any) -> str:
        """Declare a durable queue."""
        await self.channel.queue_declare(name, durable=True, arguments=arguments)
        return name

    async def fill(self, queue: str, bodies: Iterable[bytes]) -> None:
        """Publish *bodies* to *queue*, confirmed."""
        async with anyio.create_task_group() as group:
            for body in bodies:
                group.start_soon(self._publish, queue, body)

    async def take(self, queue: str) -> Any:
        """Take one message from *queue*, as aiormq gives it."""
        return await self.channel.basic_get(queue, no_ack=True)

    async def drain(self, queue: str) -> list[bytes]:
        """Take everything from *queue*."""
        bodies = []
        while (message := await self.take(queue)).delivery_tag is not None:
            bodies.append(message.body)
        return bodies

    async def _publish(self, queue: str, body: bytes) -> None:
        properties = Basic.Properties(delivery_mode=2)
        await self.channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)


class Received(list[Message[Any]]):
    """The messages of a session, in the order in which they came."""

    def __call__(self, messages: list[Message[Any]]) -> None:
        """Take what the session hands over."""
        self.extend(messages)

    async def reach(self, count: int) -> "Received":
        """Wait until *count* messages are here."""
        await until(lambda: len(self) >= count)
        return self

    @property
    def bodies(self) -> list[bytes]:
        return [message.raw for message in self]


class Acknowledging(Received):
    """Acknowledges every message as it comes."""

    def __call__(self, messages: list[Message[Any]]) -> None:
        super().__call__(messages)
        for message in messages:
            message.origin.ack(message)


async def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until *condition* holds."""
    with anyio.fail_after(seconds):
        while not condition():  # noqa: ASYNC110 (the state is not of this task, and has no event)
            await anyio.sleep(0.01)


async def eventually(condition: Callable[[], Awaitable[object]], seconds: float = PATIENCE) -> None:
    """Wait until the asynchronous *condition* holds."""
    with anyio.fail_after(seconds):
        while not await condition():  # noqa: ASYNC110 (the broker tells of it only when asked)
            await anyio.sleep(0.02)


async def connected(url: str) -> aiormq.Connection:
    """Open a plain connection of the client library."""
    return await aiormq.connect(url)
