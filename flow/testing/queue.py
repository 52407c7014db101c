"""A queue in memory that delivers, like a broker, what its window grants."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from flow.message import Message
from flow.testing.messages import Unsent
from flow.testing.origin import MemoryOrigin

Settled = Callable[[int, Unsent, Message[Any]], None]


class MemoryQueue(MemoryOrigin):
    """Messages on their way to a pipeline, each known by its number."""

    def __init__(
        self,
        name: str,
        prefetch: int,
        max_body: int,
        *,
        receive: Callable[[list[Message[Any]]], None],
        settled: Settled,
        now: Callable[[], float],
    ) -> None:
        """Take *receive*, called with what one turn delivers, and *settled*, for each in the end."""
        super().__init__(name, prefetch, max_body)
        self._receive = receive
        self._settled_by = settled
        self._now = now
        self._backlog: deque[tuple[int, Unsent]] = deque()
        self._sent: dict[Message[Any], tuple[int, Unsent]] = {}
        self._turning = False

    def put(self, number: int, unsent: Unsent) -> None:
        """Add *unsent* at the end."""
        self._backlog.append((number, unsent))
        self._turn_soon()

    def _settle(self, message: Message[Any], verb: list[Message[Any]]) -> None:
        super()._settle(message, verb)
        self._settled_by(*self._sent.pop(message), message)
        self._turn_soon()

    def _turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            asyncio.get_running_loop().call_soon(self._turn)

    def _turn(self) -> None:
        self._turning = False
        burst = []
        while self._backlog and self.outstanding < self.prefetch:
            number, unsent = self._backlog.popleft()
            message = unsent.deliver(self, self._now())
            self._sent[message] = number, unsent
            burst.append(message)
        if burst:
            self._receive(burst)
