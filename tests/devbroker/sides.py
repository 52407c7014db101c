"""One of two brokers under the same operations, and what can be seen of it."""

from collections.abc import Callable, Coroutine
from typing import Any

import anyio
from pamqp.commands import Basic, Channel, Queue

from flow.devbroker.server import DevBroker
from tests.devbroker.client import Client, Closed, Content

QUEUES = ("a", "b", "c")
CONSUMING = dict(zip(QUEUES, (2, 3, 4), strict=True))
"""The channel on which each queue is consumed; everything else happens on channel 1."""

Operation = Callable[["Side"], Coroutine[Any, Any, Any]]


class Side:
    """A connection to one broker. What is delivered by itself is collected by channel."""

    def __init__(self, client: Client, dev: DevBroker | None) -> None:
        self.client = client
        self.dev = dev
        self.delivered: dict[int, list[Any]] = {}

    @classmethod
    async def open(cls, url: str, dev: DevBroker | None = None) -> "Side":
        side = cls(await Client.connect(url), dev)
        await side.prepare(1)
        for channel in CONSUMING.values():
            await side.client.open(channel)
        return side

    async def prepare(self, channel: int) -> None:
        """Let what is published on *channel* be confirmed."""
        await self.client.confirm(channel)

    async def perform(self, operation: Operation, channel: int) -> Any:
        """Do it; a refusal is a result, and the channel is opened again."""
        try:
            return await operation(self)
        except Closed as closed:
            await self.client.open(channel)
            self.delivered.pop(channel, None)
            if channel == 1:
                await self.prepare(1)
            return closed.code, closed.text, closed.method

    async def wait(self, seconds: float) -> None:
        """Let time pass: at once where the clock can be moved."""
        if self.dev is None:
            await anyio.sleep(seconds)
        else:
            self.dev.clock.advance(seconds)

    async def call(self, method: Any, channel: int = 1) -> Any:
        """Send *method*, put deliveries aside, and return the answer."""
        await self.client.send(method, channel=channel)
        return await self.next(channel)

    async def next(self, channel: int = 1) -> Any:
        """Put deliveries aside and return what else comes."""
        while True:
            answer = await self.client.receive(channel)
            if isinstance(answer, Content) and isinstance(answer.method, Basic.Deliver):
                self.delivered.setdefault(channel, []).append(seen(answer))
            elif isinstance(answer, Basic.Cancel):
                self.delivered.setdefault(channel, []).append(("cancel", answer.consumer_tag))
            else:
                return seen(answer)

    async def look(self, queues: dict[str, bool]) -> Any:
        """Return how long the *queues* are and (where True) by how many consumed, and what was delivered."""
        for channel in CONSUMING.values():
            await self.client.send(Channel.Flow(True), channel=channel)
        await self.client.send(*(Queue.Declare(queue=queue, passive=True) for queue in queues))
        lengths = {}
        for queue, consumed in queues.items():
            _, found = await self.next()
            lengths[queue] = found["message_count"], found["consumer_count"] if consumed else None
        for channel in CONSUMING.values():
            await self.next(channel)
        return lengths, {channel: list(found) for channel, found in self.delivered.items() if found}

    async def agree(self, queues: dict[str, bool], expected: Any, patience: float) -> Any:
        """Look until it is as *expected*; return what was seen last."""
        with anyio.move_on_after(patience):
            while (found := await self.look(queues)) != expected:  # noqa: ASYNC110 (a broker tells only when asked)
                await anyio.sleep(0.005)
        return found


def seen(answer: Any) -> Any:
    """Return what can be compared of an answer."""
    if not isinstance(answer, Content):
        return answer.name, {name: value for name, value in answer if value is not None}
    headers = answer.headers
    if "x-death" in headers:
        headers["x-death"] = [
            [(name, value) for name, value in death.items() if name != "time"] for death in headers["x-death"]
        ]
    method = dict(answer.method)
    return answer.method.name, method, list(headers.items()), answer.body
