"""Takes messages out of a queue for a look, and gives all of them back."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anyio

from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import ConnectionLost
from flow.message import Message
from flow.plumbing.park import LARGEST_BODY, Inbox

QUIET = 2.0  # seconds without a delivery after which the queue is taken to be empty


class Borrowed:
    """The messages in hand; made by `borrowed`."""

    def __init__(self, session: Session, inbox: Inbox, limit: int) -> None:
        self._session = session
        self._inbox = inbox
        self._limit = limit

    async def __aiter__(self) -> AsyncIterator[Message[Any]]:
        """Yield up to the limit of messages; it ends early when 2 seconds pass without one.

        Raises:
            ConnectionLost: the session with the broker ended.
        """
        for _ in range(self._limit):
            await self._inbox.wait(self._session.failed, QUIET)
            if self._session.failed.is_set():
                raise self._session.failure or ConnectionLost("The session with the broker ended")
            if not self._inbox.messages:
                return
            yield self._inbox.messages.popleft()


@asynccontextmanager
async def borrowed(
    url: BrokerUrl, queue: str, limit: int, *, name: str, max_body: int = LARGEST_BODY
) -> AsyncIterator[Borrowed]:
    """Take up to *limit* messages of *queue*; at the end all are given back, marked redelivered.

    A message whose body is above *max_body* bytes has an empty one.

    Raises:
        NotFound: there is no such queue.
        AccessDenied: the account may not read it.
        ConnectionLost: the broker cannot be reached.
    """
    inbox = Inbox()
    session = await Session.open(url, {queue: limit}, inbox.receive, name=name, max_body=max_body)
    (consumer,) = session.consumers
    try:
        yield Borrowed(session, inbox, limit)
    finally:
        with anyio.CancelScope(shield=True):
            await session.cancel()
            for message in session.outstanding():
                consumer.release(message)  # a trial may have taken its place as the origin
            await session.close()
