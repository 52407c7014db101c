"""Asks the ledger about redeliveries before they are worked: what was done by whomever is not done again."""

from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flow.ledger import Found, clean, digest
from flow.message import Message, State
from flow.stages.acknowledger import Acknowledger
from flow.stages.bell import Bell
from flow.stages.commit import GroupCommit
from flow.stages.recall import Recall

LARGEST = 500  # redeliveries in one question


class Inquiry:
    """Keeps redeliveries until the ledger has said whether they were done; first the memory is asked."""

    def __init__(
        self,
        pipeline: str,
        commit: GroupCommit,
        recall: Recall,
        acknowledger: Acknowledger,
        receive: Callable[[list[Message[Any]]], None],
        progress: Callable[[], None],
    ) -> None:
        """Take *receive*, which gets what is to be worked; *progress* is called after each answer."""
        self._pipeline = pipeline
        self._commit = commit
        self._recall = recall
        self._acknowledger = acknowledger
        self._receive = receive
        self._progress = progress
        self._bell = Bell()
        self._waiting: deque[Message[Any]] = deque()
        self._asked: list[Message[Any]] = []

    def __len__(self) -> int:
        """Return how many redeliveries wait for an answer."""
        return len(self._waiting) + len(self._asked)

    @property
    def startable(self) -> bool:
        """Whether there will be an answer soon."""
        return bool(len(self)) and self._commit.fault is None

    def queues(self) -> set[str]:
        """Return the queues of which redeliveries wait."""
        return {message.queue for message in (*self._waiting, *self._asked)}

    def receive(self, messages: list[Message[Any]]) -> None:
        """Keep the redeliveries among *messages*, and pass the rest on."""
        fresh = [message for message in messages if not message.redelivered]
        if len(fresh) < len(messages):
            self._waiting.extend(message for message in messages if message.redelivered)
            self._bell.ring()
        if fresh:
            self._receive(fresh)

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Give up the redeliveries of *queue*, or all, and return them."""
        found = [one for one in (*self._asked, *self._waiting) if queue is None or one.queue == queue]
        gone = set(found)
        self._asked = [one for one in self._asked if one not in gone]
        self._waiting = deque(one for one in self._waiting if one not in gone)
        return [one for one in found if one.state is State.WAITING]

    def discard_stale(self) -> None:
        """Drop those whose session ended: they come again."""
        self._waiting = deque(one for one in self._waiting if one.state is State.WAITING)
        self._asked = [one for one in self._asked if one.state is State.WAITING]

    async def run(self) -> None:
        """Ask until cancelled."""
        while True:
            if not self._waiting:
                await self._bell.wait()
            await self._ask()
            self._progress()

    async def _ask(self) -> None:
        while self._waiting and len(self._asked) < LARGEST:
            message = self._waiting.popleft()
            if message.state is State.WAITING and not self._remembered(message):
                self._asked.append(message)
        if not self._asked:
            return
        identities = {message: digest(message.identity()) for message in self._asked}
        rows: defaultdict[bytes, deque[Found]] = defaultdict(deque)
        for queue in sorted({message.queue for message in self._asked}):
            for one in await self._unsettled(queue, identities):
                if one.id not in self._commit.rows:  # else it is another copy, and being settled here
                    rows[one.identity].append(one)
        asked, self._asked = self._asked, []
        unknown = []
        for message in asked:
            if message.state is not State.WAITING:
                continue
            if rows[identities[message]]:
                entry = self._commit.answered(rows[identities[message]].popleft(), message)
                self._acknowledger.repeat(message, entry)
            else:
                unknown.append(message)
        if unknown:
            self._receive(unknown)

    async def _unsettled(self, queue: str, identities: Mapping[Message[Any], bytes]) -> Sequence[Found]:
        name, stored = self._pipeline, clean(queue) or ""
        wanted = list({identity for message, identity in identities.items() if message.queue == queue})
        return await self._commit.ask(lambda ledger: ledger.unsettled(name, stored, wanted))

    def _remembered(self, message: Message[Any]) -> bool:
        """Settle *message* by what this process remembers, if it does."""
        message.state = State.RUNNING
        if self._recall.answers(message):
            return True
        message.state = State.WAITING
        return False
