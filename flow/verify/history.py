"""What happened in one run, in its order: to messages, at the target, and the faults between."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from flow.devbroker.message import Message as Stored
from flow.devbroker.message import Settling
from flow.errors import DecodeError
from flow.message import Message
from flow.outcome import Decision


class Ending(Enum):
    """How a call of the target ended."""

    TAKEN = "taken"
    """It had effect, and the pipeline was told so."""
    UNTOLD = "took it and broke off"
    """It had effect, and the pipeline cannot know."""
    REFUSED = "refused"
    """It had no effect."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One call that speaks of messages."""

    number: int
    """Counted from 1."""
    about: set[int]
    place: str
    """Method and path; it may hold values, and is not shown."""
    optional: bool = False
    """Whether it may fail: it delivers nothing."""
    fault: str = ""
    """What was done to it on purpose, in words."""
    began: int
    """The time of its begin, as a place in the history."""
    ended: int | None = None
    ending: Ending | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """A delivery was settled at the broker."""

    when: int
    number: int
    how: Settling
    decision: Decision | None
    """What flow had decided of it by then."""


@dataclass(frozen=True, slots=True)
class Struck:
    """A fault of the broker."""

    when: int
    text: str


@dataclass
class History:
    """Takes notes of one run. Time is a number that grows with each note."""

    names: dict[str, int]
    """The number of each message by its AMQP message id."""
    faults: list[str]
    """What has struck so far; the broker adds to it."""
    now: int = 0
    calls: list[Call] = field(default_factory=list)
    settlings: list[Settled] = field(default_factory=list)
    struck: list[Struck] = field(default_factory=list)
    others: int = 0
    """Calls that speak of no message."""
    answers: dict[str, str] = field(default_factory=dict)
    """By method how an answer looks when nothing goes wrong."""
    received: dict[int, list[Message[Any]]] = field(default_factory=dict)
    acknowledged: set[int] = field(default_factory=set)
    duplicated: set[int] = field(default_factory=set)
    """What the broker delivered twice on purpose."""

    def tick(self) -> int:
        """Return the time of what happens now, after the faults that struck before it."""
        for text in self.faults[len(self.struck) :]:
            self.now += 1
            self.struck.append(Struck(self.now, text))
        self.now += 1
        return self.now

    def take(self, messages: Sequence[Message[Any]]) -> None:
        """Note that the pipeline received *messages*."""
        self.tick()
        for message in messages:
            number = self._number(message)
            if number is not None:
                self.received.setdefault(number, []).append(message)

    def settle(self, _: str, message: Stored, how: Settling) -> None:
        """Note that a delivery was settled; called by the broker."""
        number = self.names.get(message.message_id or "")
        if number is None:
            return
        if how == "duplicate":
            self.duplicated.add(number)
            return
        decisions = [one.decision for one in self.received.get(number, ()) if one.decision is not None]
        when = self.tick()
        self.settlings.append(Settled(when, number, how, decisions[-1] if decisions else None))
        if how == "ack":
            self.acknowledged.add(number)

    def begin(self, about: set[int], place: str) -> Call:
        """Note that a call arrived."""
        call = Call(number=len(self.calls) + 1, about=about, place=place, began=self.tick())
        self.calls.append(call)
        return call

    def end(self, call: Call, ending: Ending) -> None:
        """Note how *call* ends, before its answer is sent."""
        call.ended, call.ending = self.tick(), ending

    def _number(self, message: Message[Any]) -> int | None:
        try:
            return self.names.get(message.message_id or "")
        except DecodeError:
            return None
