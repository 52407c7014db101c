"""The broker of the story: embedded, with the plumbing of one organisation."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from flow.broker.url import BrokerUrl
from flow.devbroker.server import DevBroker
from flow.parking import read_parked
from flow.plumbing.park import WINDOW, opened_park
from flow.plumbing.setup import set_up, topology_for

ORGANISATION = "acme"
QUEUE = f"{ORGANISATION}.crm"
KEY = f"{ORGANISATION}.system.action"
RETRY_DELAY = 1.0  # seconds, instead of 30


@asynccontextmanager
async def plumbed() -> AsyncIterator[tuple[DevBroker, BrokerUrl]]:
    """Run a broker on a free port of this machine, with the exchanges, the retry loop, the park and QUEUE."""
    async with DevBroker() as broker:
        url = BrokerUrl.parse(broker.url())
        await set_up(url, topology_for([ORGANISATION], retry_delay=RETRY_DELAY))
        yield broker, url


async def parked(url: BrokerUrl) -> dict[str, list[str]]:
    """Return why messages are parked, by message id, once for each copy; they stay in the park."""
    reasons: dict[str, list[str]] = {}
    async with opened_park(url, WINDOW) as park:
        async for message in park.messages():
            found = read_parked(message)
            reasons.setdefault(found.message_id or found.id, []).append(found.reason)
    return reasons
