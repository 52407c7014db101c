"""What one or several workers take their messages from."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from flow.message import Message
from flow.stages.bell import Bell
from flow.stages.turns import Turns


class Intake:
    """Messages that were received, some of them prepared, and the bell for the workers that take them."""

    def __init__(self, shut: Callable[[str], bool]) -> None:
        """Take *shut*, which tells of a queue whether nothing of it may start."""
        self.received = Turns(shut)
        self.prepared = Turns(shut)
        self.bell = Bell()
        self.rung = False
        """A worker was woken and has not run yet."""

    def __len__(self) -> int:
        """Return how many messages wait."""
        return len(self.received) + len(self.prepared)

    def queues(self) -> list[str]:
        """Return the queues of which messages wait."""
        return [*self.prepared.queues(), *self.received.queues()]

    def oldest(self, queue: str) -> float | None:
        """Return the receive time of the oldest message of *queue*, or None."""
        times = [line.oldest(queue) for line in (self.prepared, self.received)]
        return min((time for time in times if time is not None), default=None)

    def put(self, messages: list[Message[Any]]) -> None:
        """Let *messages* wait, and wake a worker."""
        self.received.put(messages)
        self.wake()

    def wake(self) -> None:
        """Wake one worker: it wakes the next one while there is more to do.

        So a burst that one worker handles without waiting does not wake all of them.
        """
        self.rung = self.bell.waiting > 0
        self.bell.ring()

    def chunk(self, most: int) -> Iterator[Message[Any]]:
        """Take the share of one worker of what is received, at *most* so many: idle ones get theirs, too."""
        share = math.ceil(len(self.received) / (self.bell.waiting + 1))
        for _ in range(min(most, share)):
            message = self.received.take()
            if message is None:
                return
            yield message

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Empty the lines of *queue*, or all of them, and return the messages."""
        return [*self.prepared.clear(queue), *self.received.clear(queue)]

    def discard_stale(self) -> None:
        """Drop what was not started and whose session ended: the broker delivers it again."""
        self.prepared.discard_stale()
        self.received.discard_stale()
