"""Looks after parked messages: list, find, export, and replay to the queue where they failed."""

from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.errors import PublishFailed
from flow.message import Message
from flow.parking import Parked, read_parked, replay_headers
from flow.plumbing.park import WINDOW, Park, opened_park
from flow.topology import RETRY_EXCHANGE, retry_exchange

REPLAY_WINDOW = 200
JSON = "application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which parked messages are meant; without a condition all are."""

    queue: str | None = None
    """Those that failed in this queue."""
    ids: frozenset[str] = frozenset()
    """Those with one of these ids, as `Parked.id` tells them."""

    @property
    def everything(self) -> bool:
        """Whether there is no condition."""
        return self.queue is None and not self.ids

    def complete(self, found: Collection[str]) -> bool:
        """Whether there is nothing more to look for after messages with the ids *found*."""
        return bool(self.ids) and self.ids <= set(found)

    def holds(self, parked: Parked) -> bool:
        """Whether *parked* is meant."""
        return self.queue in (None, parked.queue) and (not self.ids or parked.id in self.ids)


@dataclass(slots=True)
class Look:
    """What one look into the park came to."""

    waiting: int = 0
    """How many messages were parked when it began."""
    seen: int = 0
    """How many of them were looked at; the others are in other hands, or beyond the window."""
    found: list[str] = field(default_factory=list)
    """The ids of those that were meant."""
    failures: list[str] = field(default_factory=list)
    """What could not be done, a sentence each."""


Visit = Callable[[Parked, bytes], None]


async def visit(url: BrokerUrl, selection: Selection, visitor: Visit, limit: int = WINDOW) -> Look:
    """Call *visitor* for up to *limit* parked messages of the *selection*; all stay parked.

    Raises:
        NotFound: there is no park; `flow setup` makes it.
        AccessDenied: the account may not read it.
        ConnectionLost: the broker was not reached, or got lost.
    """
    look = Look()
    window = min(limit, WINDOW) if selection.everything else WINDOW
    async with opened_park(url, window) as park:
        look.waiting = park.waiting
        async for message in park.messages():
            parked = read_parked(message)
            if selection.holds(parked):
                look.found.append(parked.id)
                visitor(parked, message.raw)
            message.raw = b""
            look.seen = park.seen
            if len(look.found) == limit or look.seen == window:
                break
    return look


async def replay(url: BrokerUrl, selection: Selection, done: Callable[[Parked], None]) -> Look:
    """Publish the selected messages to their queues again, each acknowledged here only once confirmed there.

    Calls *done* for each that left the park. A crash in between leaves a message in both places: it is
    never in none.

    Raises:
        NotFound: there is no park, or no retry exchange; `flow setup` makes them.
        AccessDenied: the account may not read the one or write to the other.
        ConnectionLost: the broker was not reached, or got lost.
    """
    look = Look()
    window = REPLAY_WINDOW if selection.everything else WINDOW
    publisher = Publisher(url, name="flow dead replay")
    try:
        async with opened_park(url, window) as park:
            look.waiting = park.waiting
            async for message in park.messages():
                await _replay_one(publisher, message, selection, look, done)
                look.seen = park.seen
                if _held(look) >= window or selection.complete(look.found):
                    break
            look.failures += await _came_back(park)
    finally:
        await publisher.close()
    return look


async def _replay_one(
    publisher: Publisher,
    message: Message[Any],
    selection: Selection,
    look: Look,
    done: Callable[[Parked], None],
) -> None:
    parked = read_parked(message)
    if not selection.holds(parked):
        message.raw = b""
        return
    look.found.append(parked.id)
    if parked.queue is None:
        look.failures.append(f"{parked.id} stays parked: nothing tells the queue in which it failed")
        return
    try:
        await publisher.publish(
            retry_exchange(parked.queue),
            parked.queue,
            message.raw,
            headers=replay_headers(parked),
            message_id=parked.message_id,
            content_type=parked.content_type or JSON,
        )
    except PublishFailed as error:
        look.failures.append(f"{parked.id} stays parked: {error}")
        return
    if not message.origin.alive:
        look.failures.append(
            f"{parked.id} was replayed and stays parked as well: the session was lost meanwhile"
        )
        return
    message.origin.ack(message)
    done(parked)


def _held(look: Look) -> int:
    """How many messages fill the window, since they stay parked."""
    return look.seen - len(look.found) + len(look.failures)


async def _came_back(park: Park) -> list[str]:
    """The alternate exchange parks at once what the retry exchange cannot route; the broker confirms that."""
    newcomers = [message for message in await park.newcomers() if message.exchange == RETRY_EXCHANGE]
    replayed = [parked for parked in map(read_parked, newcomers) if parked.replays]
    return [f"{parked.id} is parked again: {parked.reason}" for parked in replayed]
