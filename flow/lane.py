"""What waits under one key of a batcher."""

from collections import deque
from collections.abc import Hashable
from typing import Any

from flow.batch import Trigger
from flow.message import Message


class Lane:
    """What waits under one key: an open batch that still grows, and closed ones in order."""

    __slots__ = (
        "closed",
        "due",
        "key",
        "late_since",
        "messages",
        "opened",
        "partition",
        "place",
        "queue",
        "queued",
        "running",
        "weight",
    )

    def __init__(self, place: Hashable, key: Hashable, message: Message[Any]) -> None:
        """Begin with *message* the lane that the batcher finds by its *place*."""
        self.place = place
        self.key = key
        self.queue = message.origin.queue
        self.partition = message.partition
        self.messages: list[Message[Any]] = []
        self.weight = 0
        self.opened = 0  # how many batches were opened: tells an old deadline from the present one
        self.due: Trigger | None = None  # why the open batch may be taken
        self.closed: deque[tuple[list[Message[Any]], Trigger]] = deque()
        self.running = 0
        self.queued = False  # waits for its turn
        self.late_since: float | None = None  # since when its turn waits for the rate limit
