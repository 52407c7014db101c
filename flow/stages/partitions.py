"""Sorts received messages by `partition_key`, so that each partition has one worker and keeps its order."""

import asyncio
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from zlib import crc32

from flow.message import Message, State
from flow.stages.bell import Bell
from flow.stages.guard import Guard
from flow.stages.intake import Intake

TURN = 64  # messages that are sorted before the rest of the loop may run


class Partitions:
    """Decodes each message, asks for its key once, and puts it into the intake of its partition."""

    def __init__(
        self,
        intakes: Sequence[Intake],
        decode: Callable[[Message[Any]], None],
        key: Callable[[Message[Any]], Hashable],
        unfit: dict[Message[Any], Exception],
    ) -> None:
        """Take *unfit*, where the error of a message goes that cannot be decoded or has no key."""
        self.unsorted: deque[Message[Any]] = deque()
        self._intakes = intakes
        self._decode = decode
        self._key = key
        self._unfit = unfit
        self._bell = Bell()

    def put(self, messages: list[Message[Any]]) -> None:
        """Sort *messages* soon; called from the broker's callbacks."""
        self.unsorted.extend(messages)
        self._bell.ring()

    async def run(self) -> None:
        """Sort until cancelled."""
        while True:
            for _ in range(min(TURN, len(self.unsorted))):
                message = self.unsorted.popleft()
                if message.state is State.WAITING:
                    self._sort(message)
            if self.unsorted:
                await asyncio.sleep(0)
            else:
                await self._bell.wait()

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Take what is of *queue*, or all, and return it."""
        taken = [one for one in self.unsorted if queue is None or one.origin.queue == queue]
        self.unsorted = deque(one for one in self.unsorted if queue is not None and one.origin.queue != queue)
        return taken

    def _sort(self, message: Message[Any]) -> None:
        guard = Guard()
        with guard:
            self._decode(message)
            message.partition = partition(self._key(message), len(self._intakes))
        if guard.error is not None:  # its worker tells, as of any other error
            self._unfit[message] = guard.error
            message.partition = message.tag % len(self._intakes)
        self._intakes[message.partition or 0].put([message])


def partition(key: Hashable, count: int) -> int:
    """Return which of *count* partitions *key* belongs to, in every process the same."""
    number = key if isinstance(key, int) else crc32(repr(key).encode("utf-8", "surrogatepass"))
    return number % count
