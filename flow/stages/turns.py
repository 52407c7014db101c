"""Messages that wait to be worked, by queue; the queues take turns."""

from collections import deque
from collections.abc import Callable
from typing import Any

from flow.message import Message, State


class Turns:
    """A line of messages for each queue; a queue whose target is down waits, and the others go on."""

    def __init__(self, shut: Callable[[str], bool]) -> None:
        """Take *shut*, which tells of a queue whether nothing of it may start now."""
        self._shut = shut
        self._lines: dict[str, deque[Message[Any]]] = {}  # those that are not empty, in turn
        self._count = 0

    def __len__(self) -> int:
        """Return how many messages wait."""
        return self._count

    def put(self, messages: list[Message[Any]]) -> None:
        """Let *messages* wait, each at the end of its queue's line."""
        lines = self._lines
        for message in messages:
            queue = message.origin.queue
            if queue in lines:
                lines[queue].append(message)
            else:
                lines[queue] = deque((message,))
        self._count += len(messages)

    def put_first(self, message: Message[Any]) -> None:
        """Let *message* be the next one of its queue."""
        self._lines.setdefault(message.origin.queue, deque()).appendleft(message)
        self._count += 1

    def take(self) -> Message[Any] | None:
        """Return the next message that may start, or None."""
        lines = self._lines
        for queue in lines:
            if self._shut(queue):
                continue
            line = lines[queue]
            message = line.popleft()
            self._count -= 1
            if not line:
                del lines[queue]
            elif len(lines) > 1:
                lines[queue] = lines.pop(queue)  # to the end
            return message
        return None

    def queues(self) -> list[str]:
        """Return the queues of which messages wait."""
        return list(self._lines)

    def oldest(self, queue: str) -> float | None:
        """Return the receive time of the first message of *queue*, or None."""
        line = self._lines.get(queue)
        return line[0].received_at if line else None

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Empty the line of *queue*, or all of them, and return the messages."""
        queues = self.queues() if queue is None else [queue]
        messages = [message for name in queues for message in self._lines.pop(name, ())]
        self._count -= len(messages)
        return messages

    def discard_stale(self) -> None:
        """Drop what cannot be started any more, as its session ended."""
        self.put([message for message in self.clear() if message.state is State.WAITING])
