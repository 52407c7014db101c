"""Reads the parked messages: everything received stays unacknowledged, and goes back at the end."""

from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio

from flow.broker.declaring import Declarer
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import ConnectionLost
from flow.message import Message
from flow.topology import DEAD_QUEUE

WINDOW = 65_535
"""How many parked messages are looked at, at most, as long as they all stay in the park: AMQP's own limit."""
QUIET = 5.0  # seconds without a delivery after which the rest is taken to be in other hands
LARGEST_BODY = 128 << 20  # the largest that RabbitMQ takes; a cut body could not be replayed
NAME = "flow dead"


class Inbox:
    """What was received and not looked at yet."""

    def __init__(self) -> None:
        self.messages: deque[Message[Any]] = deque()
        self._bell = anyio.Event()

    def receive(self, messages: list[Message[Any]]) -> None:
        """Take *messages* in; called by the session."""
        self.messages.extend(messages)
        self._bell.set()

    async def wait(self, failed: anyio.Event, most: float) -> None:
        """Wait until there is a message or the session has *failed*, at most *most* seconds."""
        if self.messages:
            return
        self._bell = anyio.Event()
        with anyio.move_on_after(most):
            async with anyio.create_task_group() as group:
                for event in (self._bell, failed):
                    group.start_soon(self._end, event, group.cancel_scope)

    async def _end(self, event: anyio.Event, waiting: anyio.CancelScope) -> None:
        await event.wait()
        waiting.cancel()


class Park:
    """The parked messages as one reader sees them; made by `opened_park`."""

    def __init__(self, session: Session, inbox: Inbox, waiting: int) -> None:
        self.waiting = waiting
        """How many messages were parked at the beginning, without those in other hands."""
        self.seen = 0
        self._session = session
        self._inbox = inbox

    async def messages(self) -> AsyncIterator[Message[Any]]:
        """Yield what was parked at the beginning; it ends early when 5 seconds pass without a message.

        Raises:
            ConnectionLost: the session with the broker ended.
        """
        while self.seen < self.waiting:
            await self._inbox.wait(self._session.failed, QUIET)
            if self._session.failed.is_set():
                raise self._session.failure or ConnectionLost("The session with the broker ended")
            if not self._inbox.messages:
                return
            self.seen += 1
            yield self._inbox.messages.popleft()

    async def newcomers(self, most: float) -> Sequence[Message[Any]]:
        """Return what was parked since the beginning, after at most *most* seconds without any."""
        await self._inbox.wait(self._session.failed, most)
        return list(self._inbox.messages)

    async def answered(self) -> None:
        """Return once the broker has carried out what was settled here.

        Raises:
            ConnectionLost: the session ended, so that some of it may not have arrived.
        """
        await self._session.ready(DEAD_QUEUE)  # on the same channel, so after all that was written before


@asynccontextmanager
async def opened_park(url: BrokerUrl, window: int) -> AsyncIterator[Park]:
    """Look at up to *window* parked messages at a time; those not acknowledged are given back at the end.

    Raises:
        NotFound: there is no park; `flow setup` makes it.
        AccessDenied: the account may not read it.
        ConnectionLost: the broker cannot be reached.
    """
    waiting = await parked_count(url)
    inbox = Inbox()
    queues = {DEAD_QUEUE: max(1, min(window, waiting))}
    session = await Session.open(url, queues, inbox.receive, name=NAME, max_body=LARGEST_BODY)
    try:
        yield Park(session, inbox, waiting)
    finally:
        with anyio.CancelScope(shield=True):
            await session.cancel()
            for message in session.outstanding():
                message.origin.release(message)
            await session.close()


async def parked_count(url: BrokerUrl) -> int:
    """Return how many messages are parked, without those in somebody's hands.

    Raises:
        NotFound: there is no park; `flow setup` makes it.
    """
    async with Declarer(url, name=NAME) as declarer:
        look = await declarer.look(DEAD_QUEUE)
    return look.ready
