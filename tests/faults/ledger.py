"""The ledger of one test: what was published, what the sink was told, what the broker still holds."""

import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import aiormq
import anyio
from aiormq.abc import AbstractChannel
from aiormq.exceptions import AMQPError
from pamqp.commands import Basic

from flow.demo.crm_server import CrmServer
from flow.parking import MESSAGE_ID
from flow.topology import DEAD_QUEUE, RETRY_QUEUE

QUEUE = "acme.crm"
NAME = "Kanarienvogel"  # in every body, and never anywhere else
HEAL = 30.0  # seconds until everything that loops has arrived somewhere


class Ledger:
    """Counts messages by their ids; it knows nothing of flow and asks it nothing."""

    def __init__(self, url: str, sink: CrmServer, seed: str) -> None:
        """Publish to the virtual host of *url*; the *sink* counts the effects."""
        self.confirmed: set[str] = set()
        self.attempted: set[str] = set()
        self.waiting: Counter[str] = Counter()
        self.parked: Counter[str] = Counter()
        self.forgiven: set[str] = set()
        """What an operator threw away with a queue."""
        self._url = url
        self._sink = sink
        self._random = random.Random(seed)
        self._made = 0

    @property
    def effects(self) -> Counter[str]:
        return self._sink.effects

    def body(self) -> tuple[str, bytes]:
        """Return the id and the body of the next message; they are numbered from 1."""
        self._made += 1
        one = f"{self._made}-{self._random.getrandbits(32):08x}"
        return one, json.dumps({"id": one, "n": self._made, "name": NAME}).encode()

    async def publish(self, count: int, queue: str = QUEUE) -> list[str]:
        """Publish so many messages; return their ids."""
        made = [self.body() for _ in range(count)]
        await self.publish_bodies(made, queue)
        return [one for one, _ in made]

    async def publish_bodies(self, bodies: Iterable[tuple[str, bytes]], queue: str = QUEUE) -> None:
        """Publish *bodies*, each with its id; what the broker does not confirm was attempted only."""
        async with channel(self._url) as open_channel, anyio.create_task_group() as group:
            for one, body in bodies:
                self.attempted.add(one)
                group.start_soon(self._publish, open_channel, one, body, queue)

    async def drain(self, queue: str = QUEUE) -> None:
        """Take everything from work queue, retry loop and park, until what was published is accounted for."""
        async with channel(self._url) as open_channel:
            with anyio.move_on_after(HEAL):
                while True:
                    for name in (RETRY_QUEUE, queue):
                        self.waiting.update(await taken(open_channel, name))
                    self.parked.update(await taken(open_channel, DEAD_QUEUE))
                    if not self.lost:
                        return
                    await anyio.sleep(0.2)

    @property
    def lost(self) -> set[str]:
        """What was confirmed and is nowhere."""
        return self.confirmed - self._found - self.forgiven

    @property
    def _found(self) -> set[str]:
        return {*self.effects, *self.waiting, *self.parked}

    def check(self, *, again: int = 0, parked_again: int = 0) -> None:
        """Check that nothing is lost or invented, or both delivered and parked.

        At most *again* effects may have come more than once, and *parked_again* copies in the park.
        """
        assert len(self.lost) == 0, f"lost {len(self.lost)}: {sorted(self.lost)[:10]}"
        assert self._found - self.attempted == set(), "invented"
        repeated = sum(count - 1 for count in self.effects.values())
        assert repeated <= again, f"{repeated} effects came again, at most {again} may"
        both = {*self.parked, *self.waiting} & set(self.effects)
        assert both == set(), f"delivered, and still there: {sorted(both)[:10]}"
        assert sum(count - 1 for count in self.parked.values()) <= parked_again, "parked twice"

    async def _publish(self, open_channel: AbstractChannel, one: str, body: bytes, queue: str) -> None:
        properties = Basic.Properties(delivery_mode=2, message_id=one)
        try:
            await open_channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)
        except (AMQPError, OSError):
            return
        self.confirmed.add(one)


@asynccontextmanager
async def channel(url: str, *, confirms: bool = True) -> AsyncIterator[AbstractChannel]:
    """Open a channel of the client library, on a connection of its own."""
    connection = await aiormq.connect(url)
    try:
        yield await connection.channel(publisher_confirms=confirms)
    finally:
        with anyio.move_on_after(3, shield=True):
            await connection.close()


async def taken(open_channel: AbstractChannel, queue: str) -> list[str]:
    """Take everything that is ready in *queue*; return the ids."""
    found = []
    while (message := await open_channel.basic_get(queue, no_ack=True)).delivery_tag is not None:
        found.append(identity(message.header.properties, message.body))
    return found


def identity(properties: Any, body: bytes) -> str:
    """Return the id of a message: a parked copy carries it as a header, a broken one in its body only."""
    header = (properties.headers or {}).get(MESSAGE_ID) or properties.message_id
    if isinstance(header, str):
        return header
    try:
        return str(json.loads(body)["id"])
    except (ValueError, KeyError):
        return f"unknown: {body[:30]!r}"
