"""Messages that may have crashed the worker: worked alone, and parked when they do it again."""

import logging
from collections.abc import Awaitable, Callable, Collection
from functools import partial
from typing import Any, Protocol

import anyio

from flow.errors import DecodeError, LedgerError
from flow.message import Message, State
from flow.outcome import Reject
from flow.stages.bell import Bell
from flow.stages.guard import NotNow

SUSPICIOUS = 3  # deliveries without an outcome; planned restarts count too, so this alone proves nothing
PATIENCE = 5.0  # seconds that a suspect waits for the one before it, which may itself wait for its target
CRASHES = 2  # starts that had no outcome, after which a message is not started again

log = logging.getLogger("flow")


class Journal(Protocol):
    """A durable note of what was started."""

    async def started(self, identity: object) -> int:
        """Note that the message called *identity* is started; return how often it was, without an outcome.

        Raises:
            OSError: it cannot be noted.
            LedgerError: it cannot be noted now.
        """

    async def ended(self, identities: Collection[object]) -> None:
        """Note that the messages called *identities* have an outcome.

        Raises:
            LedgerError: it cannot be noted now.
        """


Before = Callable[[Callable[[], Awaitable[int]]], Awaitable[int]]
"""Notes what is about to be started, and waits until that can be noted."""


class Suspects:
    """Guards against messages that kill the process, on queues that count deliveries (quorum queues)."""

    def __init__(self, journal: Journal | None, patience: float = PATIENCE) -> None:
        """Take the *journal*; without one nothing is guarded. One suspect waits *patience* for another."""
        self._journal = journal
        self._patience = patience
        # By identity: what is started may come again, and end as that.
        self._started: dict[object, Message[Any]] = {}
        self._over: set[object] = set()  # have ended, which is not noted yet
        self._turn = anyio.Event()
        self._bell = Bell()

    def suspect(self, message: Message[Any]) -> bool:
        """Tell whether *message* was delivered so often without an outcome that it is to be worked alone."""
        if self._journal is None or b"x-delivery-count" not in message.header:
            return False
        try:
            count = message.headers.get("x-delivery-count")
        except DecodeError:
            return False
        return isinstance(count, int) and count >= SUSPICIOUS

    async def admit(self, message: Message[Any], before: Before | None) -> None:
        """Note that the suspect *message* is started, after the one before it: a crash blames all that run.

        While the database is away nothing is started, for which *before* waits. A folder that cannot be
        written is told, and the message is started all the same.

        Raises:
            Reject: it was started too often without coming to an end.
            NotNow: nothing is started any more.
        """
        assert self._journal is not None
        identity = message.identity()
        known = identity in self._started  # it waited, or came again, and was started here before
        if not known:
            self.discard_stale()
            with anyio.move_on_after(self._patience):
                while self._started:
                    await self._turn.wait()
        self._started[identity] = message
        message.alone = True
        if known:
            return
        try:
            beginning = partial(self._begin, identity)
            crashes = await (beginning() if before is None else before(beginning))
        except OSError as error:
            log.error("crash loops are not guarded now: the state folder fails (%s)", error.strerror)
            return
        except LedgerError:
            raise NotNow from None
        if crashes >= CRASHES:
            raise Reject(f"crashed the worker: it was started {crashes} times and came to no end")

    async def _begin(self, identity: object) -> int:
        """Note that the message called *identity* is started; return how often it was, without an outcome."""
        assert self._journal is not None
        await self.flush()
        return await self._journal.started(identity)

    def ended(self, message: Message[Any]) -> None:
        """Note that *message*, worked alone, has come to an end, whatever became of it."""
        identity = message.identity()
        if identity in self._started and self._journal is not None:
            del self._started[identity]
            self._over.add(identity)
            self._turn.set()
            self._turn = anyio.Event()
            self._bell.ring()

    def discard_stale(self) -> None:
        """Note the end of those whose session ended: nothing crashed, and the broker delivers them again."""
        for identity, message in list(self._started.items()):
            while message.state is State.STALE and message.successor is not None:
                message = message.successor  # it took over
            self._started[identity] = message
            if message.state is State.STALE:
                self.ended(message)

    async def run(self) -> None:
        """Note what has ended, until cancelled."""
        while True:
            await self._bell.wait()
            try:
                await self.flush()
            except (OSError, LedgerError):
                log.warning("the end of a suspect message could not be noted, which is tried again later")

    async def flush(self) -> None:
        """Note what has ended, now.

        Raises:
            OSError: it cannot be noted.
            LedgerError: it cannot be noted now.
        """
        if self._over and self._journal is not None:
            over = set(self._over)
            await self._journal.ended(over)
            self._over -= over
