"""Parks hopeless messages: a confirmed copy in the park first, the acknowledgement after."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from flow.clock import Clock
from flow.errors import AccessDenied, BrokerError, NotFound
from flow.message import Message
from flow.outcome import Decision, Outcome
from flow.stages.bell import Bell

log = logging.getLogger("flow")

Park = Callable[[Message[Any], str], Awaitable[None]]


class Parker:
    """Publishes parked messages, a few at a time; a message that cannot be parked is retried.

    Without a park, or without the permission to publish there, all of them are retried: they stay in the
    retry loop until somebody sees to it.
    """

    CONCURRENCY = 8
    CLOSED = 60.0  # seconds until a park that does not exist, or may not be used, is tried again

    def __init__(
        self, park: Park, settle: Callable[[Message[Any], Decision], None], clock: Clock, *, loop: bool
    ) -> None:
        """Take *park*, which returns once the broker has confirmed the copy and raises `BrokerError` else.

        With *loop* it is never called.
        """
        self._park = park
        self._settle = settle
        self._now = clock.now
        self._loop = loop
        self._closed_until = 0.0
        self._warned = False
        self._waiting: deque[Message[Any]] = deque()
        self._decisions: dict[Message[Any], Decision] = {}  # of all that is not parked yet
        self._bell = Bell()

    @property
    def open(self) -> int:
        """How many messages are not parked yet."""
        return len(self._decisions)

    def put(self, message: Message[Any], decision: Decision) -> None:
        """Take over *message*; it is settled once its copy is confirmed. A second time changes nothing."""
        if message in self._decisions:
            return
        if self._loop:
            self._settle(message, retrying(decision))
            return
        self._decisions[message] = decision
        self._waiting.append(message)
        self._bell.ring()

    def clear(self) -> list[Message[Any]]:
        """Give up what is not parked yet and return it; a copy under way may still arrive in the park."""
        given_up = list(self._decisions)
        self._waiting.clear()
        self._decisions.clear()
        return given_up

    async def run(self, progress: Callable[[], None]) -> None:
        """Park one message after another until cancelled, calling *progress* after each."""
        while True:
            while self._waiting:
                message = self._waiting.popleft()
                decision = await self._parked(message, self._decisions[message])
                self._decisions.pop(message, None)
                self._settle(message, decision)
                progress()
            await self._bell.wait()

    async def _parked(self, message: Message[Any], decision: Decision) -> Decision:
        """Park *message*; return what became of it."""
        if self._now() < self._closed_until:
            return retrying(decision)
        try:
            await self._park(message, decision.reason)
        except (AccessDenied, NotFound) as error:
            self._closed_until = self._now() + self.CLOSED
            if not self._warned:
                self._warned = True
                log.warning("nothing can be parked, hopeless messages stay in the retry loop: %s", error)
            return retrying(decision)
        except BrokerError as error:
            log.error("could not park %r, it goes back to the retry loop: %s", message, error)
            return retrying(decision)
        self._warned = False
        return decision


def retrying(decision: Decision) -> Decision:
    """Return what becomes of a message that should be parked and cannot be."""
    return Decision(Outcome.RETRYING, f"could not be parked: {decision.reason}")
