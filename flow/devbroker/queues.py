"""Queues: what is ready, who consumes it, and when it must go."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from heapq import merge
from itertools import chain
from operator import attrgetter
from typing import Protocol

from flow.devbroker.arguments import Terms
from flow.devbroker.clock import Alarm, Clock
from flow.devbroker.message import Entry, Message
from flow.devbroker.tables import Table, short

by_place = attrgetter("place")


class Taker(Protocol):
    """The channel of a consumer."""

    @property
    def writable(self) -> bool:
        """Whether its connection takes more at this time."""

    def deliver(self, consumer: "Consumer", entry: Entry) -> None:
        """Send *entry* to the client."""

    def dismiss(self, consumer: "Consumer") -> None:
        """Tell the client that *consumer* is no more, and forget it."""


class Consumer:
    """One consumer of a queue."""

    def __init__(
        self, channel: Taker, queue: "Queue", tag: str, *, no_ack: bool, exclusive: bool, prefetch: int
    ) -> None:
        """Make it for *channel*; *prefetch* unacknowledged messages at most, 0: any number."""
        self.channel = channel
        self.queue = queue
        self.tag = tag
        self.no_ack = no_ack
        self.exclusive = exclusive
        self.prefetch = 0 if no_ack else prefetch
        self.unacked = 0  # without acknowledgements nobody looks at it
        self.blocked = False  # not among the queue's active consumers; written by the queue only
        self.head = b"\x00\x3c\x00\x3c" + short(tag)  # how each basic.deliver begins

    def can_take(self) -> bool:
        """Whether it may get another message."""
        return (not self.prefetch or self.unacked < self.prefetch) and self.channel.writable


class Queue:
    """Messages in the order in which they came, given to consumers in turn."""

    def __init__(
        self, name: str, terms: Terms, clock: Clock, bury: Callable[["Queue", Entry, str], None]
    ) -> None:
        """Make an empty queue; *bury* gets what dies here, with the reason."""
        self.name = name
        self.terms = terms
        self.arguments: Table = {}
        self.durable = False
        self.auto_delete = False
        self.owner: object | None = None  # the connection of an exclusive queue
        self.gone = False
        self.consumers: dict[tuple[Taker, str], Consumer] = {}
        self._clock = clock
        self._bury = bury
        self._ready: deque[Entry] = deque()
        self._returned: deque[Entry] = deque()  # quorum queues only: goes first, as it came back
        self._active: deque[Consumer] = deque()
        self._bytes = 0
        self._place = 0
        self._alarm: Alarm | None = None
        self._times = terms.ttl is not None  # whether there is anything that could expire
        self._drops_anyway = terms.quorum and terms.overflow == "reject-publish-dlx"
        self._limits = terms.max_length is not None or terms.max_bytes is not None

    def __len__(self) -> int:
        return len(self._ready) + len(self._returned)

    def __iter__(self) -> Iterator[Message]:
        """Yield what is ready, in the order in which it would be delivered."""
        return (entry.message for entry in chain(self._returned, self._ready))

    def publish(self, message: Message, ttl: float | None) -> bool:
        """Take *message*, for *ttl* seconds at most; return False when the queue is full and refuses it."""
        if self._limits and self._refuses(message):
            return False
        if self.terms.ttl is not None:
            ttl = self.terms.ttl if ttl is None else min(ttl, self.terms.ttl)
        self._place += 1
        deadline = None
        if ttl is not None:
            deadline = self._clock.now() + ttl
            self._times = True
        entry = Entry(message, self._place, deadline)
        if self._active and not len(self) and (consumer := self._next_consumer()):
            self._give(consumer, entry)
            return True
        self._ready.append(entry)
        self._bytes += len(message.body)
        if self._limits or self._times:
            self._tidy()
        return True

    def take(self) -> Entry | None:
        """Take the first message, or None."""
        if self._times:
            self._expire()
        if not self._ready and not self._returned:
            return None
        entry = self._pop()
        if self._times:
            self._expire()  # the rule of the head holds for the next one now
        return entry

    def requeue(self, entries: Sequence[Entry], *, asked: bool) -> None:
        """Take back what was delivered: the client *asked* for it, or it has gone."""
        limit = self.terms.delivery_limit
        kept = []
        for entry in entries:
            entry.returns += 1
            if limit is not None and entry.returns > limit:
                self._bury(self, entry, "delivery_limit")
            else:
                kept.append(entry)
                self._bytes += len(entry.message.body)
        if self.terms.quorum and asked and limit is None:
            self._ready.extend(kept)  # without a limit the log must get shorter: they go to the end
        elif self.terms.quorum:
            self._returned.extend(kept)
        else:
            self._put_back(sorted(kept, key=by_place))
        self._tidy()
        self.run()

    def _put_back(self, entries: list[Entry]) -> None:
        """Put *entries* where they were."""
        earlier = []
        while self._ready and entries and self._ready[0].place < entries[-1].place:
            earlier.append(self._ready.popleft())
        self._ready.extendleft(reversed(list(merge(earlier, entries, key=by_place))))

    def reject(self, entry: Entry) -> None:
        """Let *entry*, which was delivered, die here."""
        self._bury(self, entry, "rejected")

    def purge(self) -> int:
        """Drop what is ready; return how much it was."""
        count = len(self)
        self._ready.clear()
        self._returned.clear()
        self._bytes = 0
        return count

    def run(self) -> None:
        """Deliver what can be delivered."""
        if self._times:
            self._expire()
        while (self._ready or self._returned) and (consumer := self._next_consumer()):
            self._give(consumer, self._pop())
            if self._times:
                self._expire()

    def _next_consumer(self) -> Consumer | None:
        """Return the consumer whose turn it is, among those that can take a message."""
        active = self._active
        while active:
            consumer = active.popleft()
            if consumer.can_take():
                active.append(consumer)
                return consumer
            consumer.blocked = True
        return None

    def _give(self, consumer: Consumer, entry: Entry) -> None:
        consumer.channel.deliver(consumer, entry)
        if self.terms.quorum and not consumer.can_take():
            self._active.pop()  # a classic queue notices only at the next message
            consumer.blocked = True

    def add(self, consumer: Consumer) -> None:
        """Let *consumer* take part."""
        self.consumers[consumer.channel, consumer.tag] = consumer
        self._active.append(consumer)

    def remove(self, consumer: Consumer) -> None:
        """Let *consumer* take part no more."""
        del self.consumers[consumer.channel, consumer.tag]
        if not consumer.blocked:
            self._active.remove(consumer)

    def wake(self, consumer: Consumer) -> None:
        """See whether *consumer* may get messages again."""
        if consumer.blocked and consumer.can_take() and (consumer.channel, consumer.tag) in self.consumers:
            consumer.blocked = False
            self._active.append(consumer)
            self.run()

    def delete(self) -> int:
        """Be gone, with everything in it; return how many messages were ready."""
        self.gone = True
        if self._alarm is not None:
            self._alarm.cancel()
        for consumer in list(self.consumers.values()):
            self.remove(consumer)
            consumer.channel.dismiss(consumer)
        return self.purge()

    def _pop(self) -> Entry:
        entry = (self._returned or self._ready).popleft()
        self._bytes -= len(entry.message.body)
        return entry

    def _refuses(self, message: Message) -> bool:
        """Whether the queue is full and does not make room by dropping its head."""
        overflow = self.terms.overflow
        if overflow == "drop-head":
            return False
        if self.terms.quorum:  # notices only after it has become too long, and knows no reject-publish-dlx
            return overflow == "reject-publish" and self._exceeded(0, 0)
        full = self._exceeded(1, len(message.body))
        if full and overflow == "reject-publish-dlx":
            self._bury(self, Entry(message, 0, None), "maxlen")
        return full

    def _exceeded(self, more: int, bytes_more: int) -> bool:
        """Whether the queue would be too long with *more* messages of *bytes_more* octets."""
        longest, most = self.terms.max_length, self.terms.max_bytes
        return (longest is not None and len(self) + more > longest) or (
            most is not None and self._bytes + bytes_more > most
        )

    def _tidy(self) -> None:
        """Let go from the head what is too much, and what is too old."""
        if self._limits and (self.terms.overflow == "drop-head" or self._drops_anyway):
            while len(self) and self._exceeded(0, 0):
                self._bury(self, self._pop(), "maxlen")
        if self._times:
            self._expire()

    def _expire(self) -> None:
        """Let go from the head what is too old; what stands behind a younger head waits."""
        now = self._clock.now()
        while self._returned or self._ready:
            deadline = (self._returned or self._ready)[0].deadline
            if deadline is None:
                return
            if deadline > now:
                self._watch(deadline)
                return
            self._bury(self, self._pop(), "expired")

    def _watch(self, deadline: float) -> None:
        if self._alarm is None or self._alarm.when > deadline:
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm = self._clock.at(deadline, self._ring)

    def _ring(self) -> None:
        self._alarm = None
        self._expire()
