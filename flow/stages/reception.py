"""Where received messages wait for the workers: one intake for all of them, or one for each partition."""

from collections.abc import Callable
from typing import Any

from flow.message import Message, State
from flow.outcome import Unavailable
from flow.pipeline import Pipeline
from flow.stages.intake import Intake
from flow.stages.partitions import Partitions
from flow.stages.turns import Turns


class Reception:
    """Takes over what the broker delivers, keeps it in order, and gives back what is not started."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        decode: Callable[[Message[Any]], None],
        give_back: Callable[[Message[Any]], None],
        shut: Callable[[str], bool],
        unavailable: Callable[[str, Unavailable], None],
    ) -> None:
        """Take *give_back*, which returns a message to its queue.

        *shut* tells of a queue whether nothing of it may start now; *unavailable* is told why not when it
        comes out while messages are sorted.
        """
        self.closed = False
        self.unfit: dict[Message[Any], Exception] = {}
        """Messages that ended before their turn, and why: their worker tells."""
        parted = type(pipeline).partition_key is not Pipeline.partition_key
        count = pipeline.concurrency if parted else 1
        self.intakes = [Intake(shut) for _ in range(count)]
        self.partitions: Partitions | None = None
        if parted:
            self.partitions = Partitions(
                self.intakes, decode, pipeline.partition_key, self.unfit, shut, unavailable
            )
        self._lines: list[Turns | Intake] = [*self.intakes]
        if self.partitions is not None:
            self._lines.append(self.partitions.unsorted)
        self._give_back = give_back

    def __len__(self) -> int:
        """Return how many messages have not been started."""
        return sum(map(len, self._lines))

    def queues(self) -> set[str]:
        """Return the queues of which messages wait."""
        return {queue for line in self._lines for queue in line.queues()}

    def oldest(self, queue: str) -> float | None:
        """Return the receive time of the oldest message of *queue* that was not started, or None."""
        times = [line.oldest(queue) for line in self._lines]
        return min((time for time in times if time is not None), default=None)

    def receive(self, messages: list[Message[Any]]) -> None:
        """Take over *messages*; they are given back at once when nothing is started any more."""
        if self.closed:
            for message in messages:
                self._give_back(message)
        elif self.partitions is None:
            self.intakes[0].put(messages)
        else:
            self.partitions.put(messages)

    def keep(self, messages: list[Message[Any]], *, first: bool) -> None:
        """Let *messages* that were started wait again: first, or else last, so that another one probes."""
        for message in reversed(self.waiting_again(messages)):
            received = self.intakes[message.partition or 0].received
            if first:
                received.put_first(message)
            else:
                received.put([message])

    def waiting_again(self, messages: list[Message[Any]]) -> list[Message[Any]]:
        """Return those of *messages*, or their redeliveries, that can be started; all may be given back."""
        running = [message for message in messages if message.state is State.RUNNING]
        living = [one for message in running if (one := message.living()) is not None]
        for message in living:
            message.state = State.WAITING
            if self.closed:
                self._give_back(message)
        return [] if self.closed else living

    def give_back(self, queue: str | None = None) -> None:
        """Give back what has not been started, of *queue* or all."""
        for message in [one for line in self._lines for one in line.clear(queue)]:
            self.unfit.pop(message, None)
            self._give_back(message)

    def discard_stale(self) -> None:
        """Drop what was not started and whose session ended: the broker delivers it again."""
        for line in self._lines:
            line.discard_stale()
        for message in [one for one in self.unfit if one.state is not State.WAITING]:
            del self.unfit[message]

    def close(self) -> None:
        """Let nothing start any more, and give back what waits."""
        self.closed = True
        self.give_back()

    def wake_all(self) -> None:
        """Let all workers look again."""
        for intake in self.intakes:
            intake.bell.ring_all()
        if self.partitions is not None:
            self.partitions.bell.ring_all()
