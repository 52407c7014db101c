"""Sorts received messages by `partition_key`, so that each partition has one worker and keeps its order."""

import asyncio
from collections.abc import Callable, Hashable, Sequence
from typing import Any
from zlib import crc32

from flow.message import Message, State
from flow.outcome import Unavailable
from flow.stages.bell import Bell
from flow.stages.guard import Guard
from flow.stages.intake import Intake
from flow.stages.turns import Turns

TURN = 64  # messages that are sorted before the rest of the loop may run


class Partitions:
    """Decodes each message, asks for its key once, and puts it into the intake of its partition.

    A key that cannot be had now, as its source is `Unavailable`, holds up its queue: what came after it could
    belong to the same partition.
    """

    def __init__(
        self,
        intakes: Sequence[Intake],
        decode: Callable[[Message[Any]], None],
        key: Callable[[Message[Any]], Hashable],
        unfit: dict[Message[Any], Exception],
        shut: Callable[[str], bool],
        unavailable: Callable[[str, Unavailable], None],
    ) -> None:
        """Take *unfit*, where the error of a message goes that cannot be decoded or has no key.

        *shut* tells of a queue whether nothing of it may start now; *unavailable* is told of a queue why not.
        """
        self.unsorted = Turns(shut)
        self.bell = Bell()
        self._intakes = intakes
        self._decode = decode
        self._key = key
        self._unfit = unfit
        self._unavailable = unavailable

    def put(self, messages: list[Message[Any]]) -> None:
        """Sort *messages* soon; called from the broker's callbacks."""
        self.unsorted.put(messages)
        self.bell.ring()

    async def run(self) -> None:
        """Sort until cancelled."""
        while True:
            for _ in range(TURN):
                message = self.unsorted.take()
                if message is None:
                    await self.bell.wait()
                    break
                if message.state is State.WAITING:
                    self._sort(message)
            else:
                await asyncio.sleep(0)

    def _sort(self, message: Message[Any]) -> None:
        guard = Guard()
        with guard:
            self._decode(message)
            message.partition = partition(self._key(message), len(self._intakes))
        if isinstance(guard.error, Unavailable):
            self.unsorted.put_first(message)
            self._unavailable(message.origin.queue, guard.error)
            return
        if guard.error is not None:  # its worker tells, as of any other error
            self._unfit[message] = guard.error
            message.partition = message.tag % len(self._intakes)
        self._intakes[message.partition or 0].put([message])


def partition(key: Hashable, count: int) -> int:
    """Return which of *count* partitions *key* belongs to, in every process the same."""
    number = key if isinstance(key, int) else crc32(repr(key).encode("utf-8", "surrogatepass"))
    return number % count
