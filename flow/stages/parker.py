"""Parks hopeless messages: a confirmed copy in the park first, the acknowledgement after."""

import logging
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from flow.errors import BrokerError
from flow.message import Message
from flow.outcome import Decision, Outcome
from flow.stages.bell import Bell

log = logging.getLogger("flow")

Park = Callable[[Message[Any], str], Awaitable[None]]


class Parker:
    """Publishes parked messages, a few at a time; a message that cannot be parked is retried."""

    CONCURRENCY = 8

    def __init__(self, park: Park, settle: Callable[[Message[Any], Decision], None]) -> None:
        """Take *park*, which returns once the broker has confirmed the copy and raises `BrokerError` else."""
        self._park = park
        self._settle = settle
        self._waiting: deque[tuple[Message[Any], Decision]] = deque()
        self._parking: list[Message[Any]] = []
        self._bell = Bell()
        self.open = 0
        """Messages that are not parked yet."""

    def put(self, message: Message[Any], decision: Decision) -> None:
        """Take over *message*; it is settled once its copy is confirmed."""
        self.open += 1
        self._waiting.append((message, decision))
        self._bell.ring()

    def clear(self) -> list[Message[Any]]:
        """Give up what is not parked yet and return it; a copy under way may still arrive in the park."""
        given_up = [*self._parking, *(message for message, _ in self._waiting)]
        self._waiting.clear()
        self.open = 0
        return given_up

    async def run(self, progress: Callable[[], None]) -> None:
        """Park one message after another until cancelled, calling *progress* after each."""
        while True:
            while self._waiting:
                message, decision = self._waiting.popleft()
                self._parking.append(message)
                try:
                    await self._park(message, decision.reason)
                    log.warning("parked %r at attempt %d: %s", message, message.attempt, decision.reason)
                except BrokerError as error:
                    log.error("could not park %r, it goes back to the retry loop: %s", message, error)
                    decision = Decision(Outcome.RETRYING, f"could not be parked: {decision.reason}")
                self._parking.remove(message)
                self.open -= 1
                self._settle(message, decision)
                progress()
            await self._bell.wait()
