"""The broker of the story: embedded, with the plumbing of both organisations."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import msgspec

from flow.broker.url import BrokerUrl
from flow.codec import tried
from flow.demo.organisations import PARTIES
from flow.devbroker.server import DevBroker
from flow.parking import read_parked
from flow.plumbing.park import WINDOW, opened_park
from flow.plumbing.setup import set_up, topology_for
from flow.topology import organisation_topology

RETRY_DELAY = 1.0  # seconds, instead of 30


class InPark(NamedTuple):
    """A parked message."""

    queue: str
    """In which it was."""
    about: int | str
    """The id of its action; of one that cannot be read its message id."""
    reason: str


class About(msgspec.Struct, rename="camel"):
    """Which action a body is about."""

    action_id: int


ABOUT = msgspec.json.Decoder(About)


@asynccontextmanager
async def plumbed() -> AsyncIterator[tuple[DevBroker, BrokerUrl]]:
    """Run a broker on a free port of this machine, with everything that `flow setup` and `flow org` make."""
    topology = topology_for(system_queues=True, retry_delay=RETRY_DELAY)
    for party in PARTIES:
        topology += organisation_topology(party.name, party.parts)
    async with DevBroker() as broker:
        url = BrokerUrl.parse(broker.url())
        await set_up(url, topology)
        yield broker, url


async def parked(url: BrokerUrl) -> list[InPark]:
    """Return what is in the park, each copy; it stays there."""
    found: list[InPark] = []
    async with opened_park(url, WINDOW) as park:
        async for message in park.messages():
            one = read_parked(message)
            about, _ = tried(ABOUT.decode, message.raw)
            name = about.action_id if isinstance(about, About) else one.message_id or one.id
            if one.message_id and one.message_id.startswith("poison-"):
                name = one.message_id
            found.append(InPark(one.queue or "", name, one.reason))
    return found
