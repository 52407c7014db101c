"""What was finished or still runs when a session ended, so that its redelivery is not worked again; pure."""

from collections import OrderedDict, deque
from collections.abc import Hashable
from typing import Any

from flow.ledger import Entry
from flow.message import Message, State
from flow.outcome import Decision

Answer = Decision | Entry
"""What became of a message; with a ledger, its entry there."""
Remembered = Message[Any] | Answer


class DeliveryMemory:
    """A bounded multiset of the identities of deliveries whose session ended.

    Each entry answers one delivery that is marked redelivered: with the decision that was made, or with the
    message that still runs.
    """

    def __init__(self, limit: int = 10_000) -> None:
        """Remember at most *limit* deliveries; the oldest are forgotten first."""
        self._limit = limit
        self._entries: OrderedDict[Hashable, deque[Remembered]] = OrderedDict()
        self._count = 0

    def __len__(self) -> int:
        """Return how many deliveries are remembered."""
        return self._count

    def remember(self, message: Message[Any]) -> None:
        """Remember *message* by its decision, or itself while it has none."""
        entry: Remembered = message if message.decision is None else message.entry or message.decision
        self._entries.setdefault(message.identity(), deque()).append(entry)
        self._count += 1
        while self._count > self._limit:
            identity = next(iter(self._entries))
            self._take(identity)

    def recall(self, message: Message[Any]) -> Remembered | None:
        """Return what is remembered of the redelivered *message*, using that entry up, or None.

        A message is returned while it runs; the answer when it was decided.
        """
        identity = message.identity()
        while identity in self._entries:
            entry = self._take(identity)
            if not isinstance(entry, Message):
                return entry
            if entry.decision is not None:
                return entry.entry or entry.decision
            if entry.state is State.RUNNING:
                return entry
        return None

    def _take(self, identity: Hashable) -> Remembered:
        entries = self._entries[identity]
        entry = entries.popleft()
        self._count -= 1
        if not entries:
            del self._entries[identity]
        return entry
