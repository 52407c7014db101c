"""Looks after parked messages: list, find, export, delete, and replay to the queue where they failed."""

from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from flow.broker.declaring import Declarer
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.errors import NotFound, PublishFailed
from flow.message import Message
from flow.parking import Parked, read_parked, replay_headers
from flow.plumbing.park import WINDOW, Park, opened_park
from flow.topology import RETRY_EXCHANGE, retry_exchange

REPLAY_WINDOW = 200
MOMENT = 1.0  # seconds to look for replayed messages that are parked again at once
NAME = "flow dead replay"
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
    deleted: int = 0
    """How many of these `drop` deleted."""
    failures: list[str] = field(default_factory=list)
    """What could not be done, a sentence each."""

    @property
    def held(self) -> int:
        """How many of the messages looked at fill the window, if all others have left the park."""
        return self.seen - len(self.found) + len(self.failures)


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
    async with Replayer(url) as replayer, opened_park(url, window) as park:
        look.waiting = park.waiting
        async for message in park.messages():
            look.seen = park.seen
            parked = read_parked(message)
            if selection.holds(parked):
                look.found.append(parked.id)
                if failure := await replayer.replay(message, parked):
                    look.failures.append(failure)
                else:
                    done(parked)
            else:
                message.raw = b""
            if look.held >= window or selection.complete(look.found):
                break
        if len(look.found) > len(look.failures):
            look.failures += await came_back(park)
    return look


async def drop(url: BrokerUrl, selection: Selection, agreed: Callable[[int], Awaitable[bool]]) -> Look:
    """Delete the selected messages for good, if *agreed* says so of their number; all others stay parked.

    They are held until it has said so: exactly these are deleted, whatever is parked meanwhile.

    Raises:
        NotFound: there is no park; `flow setup` makes it.
        AccessDenied: the account may not read it.
        ConnectionLost: the broker was not reached, or got lost, perhaps after some were deleted.
    """
    look, chosen = Look(), list[Message[Any]]()
    async with opened_park(url, WINDOW) as park:
        look.waiting = park.waiting
        async for message in park.messages():
            look.seen = park.seen
            parked = read_parked(message)
            message.raw = b""
            if selection.holds(parked):
                look.found.append(parked.id)
                chosen.append(message)
            if look.seen == WINDOW or selection.complete(look.found):
                break
        if chosen and await agreed(len(chosen)):
            for message in chosen:
                message.origin.ack(message)
            await park.answered()
            look.deleted = len(chosen)
    return look


class Replayer:
    """Publishes parked messages to their queues again, on a connection of its own."""

    def __init__(self, url: BrokerUrl) -> None:
        self._publisher = Publisher(url, name=NAME)
        self._declarer = Declarer(url, name=NAME)
        self._exists: dict[str, bool] = {}

    async def __aenter__(self) -> "Replayer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._publisher.close()
        await self._declarer.close()

    async def replay(self, message: Message[Any], parked: Parked) -> str | None:
        """Replay one message and acknowledge it; or return the sentence why it stays parked."""
        if parked.queue is None:
            return f"{parked.id} stays parked: nothing tells the queue in which it failed"
        if not await self._there(parked.queue):
            return f"{parked.id} stays parked: its queue {parked.queue} does not exist"
        try:
            await self._publisher.publish(
                retry_exchange(parked.queue),
                parked.queue,
                message.raw,
                headers=replay_headers(parked),
                message_id=parked.message_id,
                content_type=parked.content_type or JSON,
            )
        except PublishFailed as error:
            return f"{parked.id} stays parked: {error}"
        if not message.origin.alive:
            return f"{parked.id} was replayed and stays parked as well: the session was lost meanwhile"
        message.origin.ack(message)
        return None

    async def _there(self, queue: str) -> bool:
        """Ask once for each queue: the alternate exchange would take what no queue does, and confirm it."""
        if queue not in self._exists:
            try:
                await self._declarer.look(queue)
                self._exists[queue] = True
            except NotFound:
                self._exists[queue] = False
        return self._exists[queue]


async def came_back(park: Park) -> list[str]:
    """Return a sentence for each replay that the alternate exchange parked again: its queue is not bound.

    The broker has confirmed these, so that nothing else tells of them; they arrive within a moment.
    """
    newcomers = [message for message in await park.newcomers(MOMENT) if message.exchange == RETRY_EXCHANGE]
    replayed = [parked for parked in map(read_parked, newcomers) if parked.replays]
    return [f"{parked.id} is parked again: {parked.reason}" for parked in replayed]
