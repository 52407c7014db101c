"""How messages gather into batches, and whose turn it is; pure: time comes in as a number."""

from collections import deque
from collections.abc import Callable, Hashable
from typing import Any

from flow.batch import Batch, Trigger
from flow.batching import Batching
from flow.lane import Lane
from flow.message import Message, State

# What is left of keys that are about equally frequent would split the acknowledgements.
MUCH_SMALLER = 4  # times


class Batcher:
    """Gathers messages by key and hands out batches in turn.

    A batch is of one queue, one key and one partition, and those of a partition are handed out one after
    another.
    """

    def __init__(self, name: str, options: Batching, *, apart: bool = False) -> None:
        """Gather for *options*; *apart* says that there are several queues or partitions."""
        self.name = name
        self.options = options
        self._apart = apart
        self._partitions: set[int] = set()  # those of which a batch was taken and is not done
        self.waiting = 0
        """Messages that are in batches not taken yet."""
        self.running = 0
        """Batches that were taken and are not done."""
        self._lanes: dict[Hashable, Lane] = {}
        self._turns: deque[Lane] = deque()
        # Insertion order is deadline order, as every batch waits equally long.
        self._deadlines: deque[tuple[float, Lane, int]] = deque()
        self._flushing = False

    def add(self, message: Message[Any], key: Hashable, now: float, weight: int = 0) -> bool:
        """Put *message* into the open batch of *key*; tell whether a batch was opened or closed by it."""
        options = self.options
        place = (message.origin.queue, message.partition, key) if self._apart else key
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(place, key, message)
        self.waiting += 1
        limit = options.max_weight
        if limit is not None and lane.messages and lane.weight + weight > limit:
            self._close(lane, Trigger.WEIGHT)
        messages = lane.messages
        messages.append(message)
        if len(messages) >= options.size:
            self._close(lane, Trigger.SIZE)
            return True
        if limit is not None:
            lane.weight += weight
            if lane.weight >= limit:
                self._close(lane, Trigger.WEIGHT)
                return True
        if len(messages) > 1:
            return False
        lane.opened += 1
        self._deadlines.append((now + options.timeout, lane, lane.opened))
        if self._flushing:
            self._ready(lane, Trigger.FLUSH)
        return True

    def add_alone(self, message: Message[Any], key: Hashable) -> None:
        """Make *message* a batch of its own, so that it cannot spoil its neighbours."""
        place = (message.origin.queue, message.partition, key) if self._apart else key
        lane = self._lanes.get(place)
        if lane is None:
            lane = self._lanes[place] = Lane(place, key, message)
        self.waiting += 1
        lane.closed.append(([message], Trigger.SIZE))
        self._queue(lane)

    def take(
        self,
        now: float,
        shut: Callable[[str], bool] | None = None,
        late: Callable[[Lane, list[Message[Any]]], bool] | None = None,
    ) -> Batch[Any] | None:
        """Return the next batch whose turn it is, or None; `done` follows for each.

        *shut* tells of a queue whether nothing of it may go now; None: everything may. *late* tells of the
        next messages of a lane whether they have to wait for something, in which they keep their turn; when
        they have not, they are taken.
        """
        if self.running >= self.options.concurrency:
            return None
        self._expire(now)
        passed: list[Lane] = []
        taken = self._next(shut, late, passed)
        self._turns.extendleft(reversed(passed))
        return None if taken is None else self._taken(taken)

    def _next(
        self,
        shut: Callable[[str], bool] | None,
        late: Callable[[Lane, list[Message[Any]]], bool] | None,
        passed: list[Lane],
    ) -> Lane | None:
        """Return the lane whose turn it is, out of the line; those that are *late* before it are *passed*."""
        for _ in range(len(self._turns)):
            lane = self._turns.popleft()
            if not lane.closed and lane.due is None:
                lane.queued = False
                continue
            if (
                lane.running >= self._share(len(self._turns) + len(passed) + 1)
                or lane.partition in self._partitions
                or (shut is not None and shut(lane.queue))
            ):
                self._turns.append(lane)
            elif late is not None and late(lane, lane.closed[0][0] if lane.closed else lane.messages):
                passed.append(lane)
            else:
                return lane
        return None

    def done(self, batch: Batch[Any]) -> None:
        """Free the delivery slot of *batch*."""
        self.running -= 1
        lane = self._lane(batch)
        lane.running -= 1
        self._partitions.discard(-1 if lane.partition is None else lane.partition)
        self._forget(lane)

    def put_back(self, batch: Batch[Any]) -> None:
        """Make *batch* the first of its key again, as if it had not been taken; `done` follows as usual."""
        lane = self._lane(batch)
        lane.closed.appendleft((batch.messages, batch.trigger))
        self.waiting += len(batch)
        self._queue(lane)

    def put_last(self, batch: Batch[Any]) -> None:
        """Make each message of *batch* the last of its key, alone; `done` follows as usual.

        In their partition too they have lost their place.
        """
        lane = self._lane(batch)
        if lane.messages:
            self._close(lane, lane.due or Trigger.TIMEOUT)
        lane.closed.extend(([message], batch.trigger) for message in batch)
        self.waiting += len(batch)
        self._queue(lane)

    def flush(self) -> None:
        """Let every batch go at its next turn, now and from now on."""
        self._flushing = True
        for lane in list(self._lanes.values()):
            if lane.messages:
                self._ready(lane, Trigger.FLUSH)

    def starve(self, queue: str, enough: int) -> int:
        """Let the largest open batches of *queue* go, until *enough* messages are released.

        With them go all that are not much smaller; the oldest goes first among equals. Returns how many
        messages are released.
        """
        sizes = {
            lane: len(lane.messages)
            for lane in self._lanes.values()
            if lane.messages and lane.due is None and lane.queue == queue
        }
        released = smallest = 0
        for lane in sorted(sizes, key=sizes.__getitem__, reverse=True):
            size = sizes[lane]
            if released < enough:
                smallest = size
            if size * MUCH_SMALLER <= smallest:
                break
            released += size
            self._ready(lane, Trigger.STARVED)
        return released

    def queues(self) -> set[str]:
        """Return the queues whose messages wait in batches."""
        return {lane.queue for lane in self._lanes.values() if lane.messages or lane.closed}

    @property
    def ready(self) -> bool:
        """Whether a batch waits for its turn."""
        return bool(self._turns) and self.running < self.options.concurrency

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Empty the batches of *queue*, or all, that were not taken, and return their messages."""
        messages: list[Message[Any]] = []
        for lane in [one for one in self._lanes.values() if queue in (None, one.queue)]:
            for closed, _ in lane.closed:
                messages += closed
            messages += lane.messages
            lane.closed.clear()
            self._reopen(lane)
            self._forget(lane)
        self.waiting -= len(messages)
        return messages

    def deadline(self) -> float | None:
        """Return when the next open batch becomes due, or None."""
        self._prune()
        return self._deadlines[0][0] if self._deadlines else None

    def oldest(self, queue: str) -> float | None:
        """Return the receive time of the oldest message of *queue* that waits, or None.

        Looks at the first of each key.
        """
        firsts = [
            messages[0].received_at
            for lane in self._lanes.values()
            if lane.queue == queue
            for messages in (lane.messages, *(closed for closed, _ in lane.closed))
            if messages
        ]
        return min(firsts, default=None)

    def discard_stale(self) -> None:
        """Drop the messages whose session ended: the broker delivers them again."""
        for lane in list(self._lanes.values()):
            before = len(lane.messages) + sum(len(messages) for messages, _ in lane.closed)
            lane.messages[:] = [m for m in lane.messages if m.state is not State.STALE]
            kept = [([m for m in ms if m.state is not State.STALE], trigger) for ms, trigger in lane.closed]
            lane.closed = deque((messages, trigger) for messages, trigger in kept if messages)
            self.waiting -= before - len(lane.messages) - sum(len(messages) for messages, _ in lane.closed)
            if not lane.messages:
                lane.due, lane.weight = None, 0
                lane.opened += 1
            self._forget(lane)

    def _share(self, keys: int) -> int:
        """Return how many slots one key may hold while *keys* keys wait: one stays free for the others."""
        if self.options.ordered:
            return 1
        concurrency = self.options.concurrency
        return max(1, concurrency - 1) if keys > 1 else concurrency

    def _taken(self, lane: Lane) -> Batch[Any]:
        lane.queued = False
        if lane.closed:
            messages, trigger = lane.closed.popleft()
        else:
            messages, trigger = lane.messages, lane.due or Trigger.TIMEOUT
            self._reopen(lane)
        self.waiting -= len(messages)
        self.running += 1
        lane.running += 1
        if lane.partition is not None:
            self._partitions.add(lane.partition)
        if lane.closed or lane.due is not None:
            self._queue(lane)
        return Batch(messages, lane.key, self.name, trigger, queue=lane.queue, partition=lane.partition)

    def _lane(self, batch: Batch[Any]) -> Lane:
        return self._lanes[(batch.queue, batch.partition, batch.key) if self._apart else batch.key]

    def _close(self, lane: Lane, trigger: Trigger) -> None:
        lane.closed.append((lane.messages, trigger))
        self._reopen(lane)
        self._queue(lane)

    def _reopen(self, lane: Lane) -> None:
        lane.messages, lane.weight, lane.due = [], 0, None
        lane.opened += 1

    def _ready(self, lane: Lane, trigger: Trigger) -> None:
        if lane.due is None:
            lane.due = trigger
        self._queue(lane)

    def _queue(self, lane: Lane) -> None:
        if not lane.queued:
            lane.queued = True
            self._turns.append(lane)

    def _expire(self, now: float) -> None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][0] <= now:
            _, lane, opened = deadlines.popleft()
            if lane.opened == opened and lane.messages:
                self._ready(lane, Trigger.TIMEOUT)

    def _prune(self) -> None:
        deadlines = self._deadlines
        while deadlines and deadlines[0][1].opened != deadlines[0][2]:
            deadlines.popleft()

    def _forget(self, lane: Lane) -> None:
        if not (lane.messages or lane.closed or lane.running):
            self._lanes.pop(lane.place, None)
            if lane.queued:
                lane.queued = False
                self._turns.remove(lane)
