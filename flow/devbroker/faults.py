"""What goes wrong on purpose: at a counted moment, at once, or by a seeded schedule that can be repeated."""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol, get_args

import anyio

from flow.devbroker.clock import Clock
from flow.devbroker.confirming import Late
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal, Hangup

Moment = Literal["before ack", "after ack", "delivery", "publish"]
"""A frame that settles (ack, nack, reject), before or after its effect; a delivery sent; a publish routed."""
LOST, DUPLICATE = "lost ack", "duplicate"
IN_WORDS = {
    "before ack": "before an ack",
    "after ack": "after an ack",
    "delivery": "at a delivery",
    "publish": "at a publish",
    LOST: "",
    DUPLICATE: "",
}
MOMENTS: tuple[Moment, ...] = get_args(Moment)
WHILE = 5.0  # seconds of the broker's clock for which a state of a schedule lasts
PIECE = 7  # octets of the segments of a schedule
JUMP = 60.0  # seconds by which a schedule moves the clock


class Line(Protocol):
    """A connection, as far as faults touch it."""

    def doom(self, error: Exception) -> None:
        """Let it fail with *error* when the present burst of frames is done."""

    def cancel_consumers(self, queue: str | None) -> None:
        """Cancel the consumers of *queue* (None: of all), as when the queue is gone."""

    def tell_blocked(self, reason: str | None) -> None:
        """Tell the client that the broker is blocked for *reason*, or (None) no more."""


@dataclass
class _Armed:
    """Strikes when *left* moments have passed."""

    moment: str
    left: int
    text: str
    make: Callable[[], Exception] | None = None
    do: Callable[[], None] | None = None  # without both only the answer of `strike` counts


class Faults:
    """The faults of one broker. Counting begins when a fault is set, over all connections."""

    def __init__(self, lines: Iterable[Line], clock: Clock) -> None:
        """Act on *lines*, the connections of each moment; what lasts a while lasts by *clock*."""
        self.armed = False  # whether there is anything to count; read on the hot path
        self.struck: list[str] = []
        """What has happened so far, in words."""
        self.confirm_delay = 0.0
        self.confirms_withheld = False
        self.segment: int | None = None
        self.reading = opened()
        """Waited for before what a socket brought is looked at."""
        self.unblocked = opened()
        self.blocked: str | None = None
        self._lines = lines
        self._clock = clock
        self._armed: list[_Armed] = []
        self._logins_refused = 0
        self._late = Late(clock)

    def drop_connection(self, when: Moment = "after ack", number: int = 1) -> None:
        """Close the socket without a word at the *number*-th moment from now."""
        self._arm(when, number, "connection dropped", Hangup)

    def close_connection(
        self, when: Moment = "after ack", number: int = 1, code: int = 320, text: str = "a fault"
    ) -> None:
        """Close the connection with *code* at the *number*-th moment from now."""
        error = ConnectionRefusal(code, text)
        self._arm(when, number, f"connection closed with {code}", lambda: error)

    def close_channel(
        self, when: Moment = "after ack", number: int = 1, code: int = 406, text: str = "a fault"
    ) -> None:
        """Close the channel with *code* at the *number*-th moment from now (not at a delivery).

        Raises:
            ValueError: the moment is a delivery, which belongs to no call of the channel.
        """
        if when == "delivery":
            raise ValueError("close_channel strikes before ack, after ack or at a publish")
        error = ChannelRefusal(code, text)
        self._arm(when, number, f"channel closed with {code}", lambda: error)

    def lose_ack(self, number: int = 1) -> None:
        """Forget the *number*-th ack from now: its messages are delivered again, marked redelivered."""
        self._arm(LOST, number, "an ack lost")

    def duplicate_delivery(self, number: int = 1) -> None:
        """Send the *number*-th delivery from now once more, marked redelivered: a message in the queue twice.

        The copy has a delivery tag of its own, and comes over the prefetch.
        """
        self._arm(DUPLICATE, number, "a delivery duplicated")

    def cancel_consumers(self, queue: str | None = None) -> None:
        """Cancel all consumers of *queue* now; None: of every queue."""
        self.struck.append(f"consumers of {queue or 'all queues'} cancelled")
        self._cancel_consumers(queue)

    def drop_connections(self) -> None:
        """Close all sockets now."""
        self.struck.append("all connections dropped")
        for line in list(self._lines):
            line.doom(Hangup())

    def close_connections(self, code: int = 320, text: str = "a fault") -> None:
        """Close all connections with *code* now, as an operator does."""
        self.struck.append(f"all connections closed with {code}")
        for line in list(self._lines):
            line.doom(ConnectionRefusal(code, text))

    def block(self, reason: str = "low on memory") -> None:
        """Tell all clients that the broker is blocked, and read no more from those that publish."""
        self.blocked = reason
        self.unblocked = anyio.Event()
        for line in list(self._lines):
            line.tell_blocked(reason)

    def unblock(self) -> None:
        """End `block`; otherwise nothing happens."""
        if self.blocked is None:
            return
        self.blocked = None
        self.unblocked.set()
        for line in list(self._lines):
            line.tell_blocked(None)

    def delay(self, confirm: Callable[[], None]) -> None:
        """Call *confirm* when it may come: late, or never."""
        if not self.confirms_withheld:
            self._late.add(self.confirm_delay, confirm)

    def stop_reading(self) -> None:
        """Read nothing more from any socket, until `read_again`."""
        self.reading = anyio.Event()

    def read_again(self) -> None:
        """End `stop_reading`."""
        self.reading.set()

    def refuse_logins(self, count: int = 1) -> None:
        """Refuse the next *count* logins with 403."""
        self._logins_refused = count

    def refuses_login(self) -> bool:
        """Whether this login is to be refused; counts it."""
        if not self._logins_refused:
            return False
        self._logins_refused -= 1
        self.struck.append("login refused")
        return True

    def schedule(self, seed: int, *, number: int = 5, within: int = 100) -> list[str]:
        """Set *number* faults, each at one of the next *within* moments; the same *seed* gives the same.

        Return them in words.
        """
        chosen = random.Random(seed)
        texts = []
        for _ in range(number):
            draw = chosen.choice(DRAWN)
            when: Moment = chosen.choice(MOMENTS[:2])
            count = chosen.randint(1, within)
            draw(self, when, count)
            texts.append(f"{self._armed[-1].text} {IN_WORDS[self._armed[-1].moment]} {count}")
        return texts

    def clear(self) -> None:
        """Take back everything that has not happened, and let everything go on: late confirms come now."""
        self._armed = []
        self.armed = False
        self.confirm_delay, self.confirms_withheld, self.segment = 0.0, False, None
        self._logins_refused = 0
        self._late.come()
        self.read_again()
        self.unblock()

    def _cancel_later(self, number: int) -> None:
        """Cancel all consumers when the *number*-th delivery is through."""
        later = partial(self._soon, partial(self._cancel_consumers, None))
        self._arm("delivery", number, "consumers cancelled", do=later)

    def _jump(self, when: Moment, number: int) -> None:
        """Move the clock on after the *number*-th moment."""
        later = partial(self._soon, partial(self._clock.advance, JUMP))
        self._arm(when, number, f"the clock moved on by {JUMP:.0f} s", do=later)

    def _for_a_while(
        self, when: Moment, number: int, text: str, begin: Callable[[], None], end: Callable[[], None]
    ) -> None:
        """Let something *begin* at the *number*-th moment, and *end* some seconds later."""

        def both() -> None:
            begin()
            self._clock.at(self._clock.now() + WHILE, end)

        self._arm(when, number, text, do=both)

    def _set(self, name: str, value: Any) -> Callable[[], None]:
        return lambda: setattr(self, name, value)

    def _soon(self, call: Callable[[], None]) -> None:
        """Call when what is fed now has been taken."""
        self._clock.at(self._clock.now(), call)

    def _cancel_consumers(self, queue: str | None) -> None:
        for line in list(self._lines):
            line.cancel_consumers(queue)

    def strike(self, moment: str, line: Line) -> bool:
        """Count a *moment* of *line*; return whether a fault struck that raises nothing.

        Raises:
            Exception: the fault that is due.
        """
        due = []
        for fault in self._armed:
            if fault.moment == moment:
                fault.left -= 1
                if not fault.left:
                    due.append(fault)
        for fault in due:
            self._armed.remove(fault)
            self.struck.append(f"{fault.text} {IN_WORDS[moment]}".strip())
        self.armed = bool(self._armed)
        for fault in due:
            if fault.do is not None:
                fault.do()
        for fault in due:
            if fault.make is not None and moment == "delivery":
                line.doom(fault.make())  # what is fed now may be another connection
            elif fault.make is not None:
                raise fault.make()
        return bool(due)

    def _arm(
        self,
        moment: str,
        number: int,
        text: str,
        make: Callable[[], Exception] | None = None,
        do: Callable[[], None] | None = None,
    ) -> None:
        if number < 1:
            raise ValueError(f"a fault strikes at a moment counted from 1, got {number}")
        self._armed.append(_Armed(moment, number, text, make, do))
        self.armed = True


Draw = Callable[[Faults, Moment, int], None]
DRAWN: tuple[Draw, ...] = (
    lambda faults, when, number: faults.drop_connection(when, number),
    lambda faults, when, number: faults.close_connection(when, number),
    lambda faults, when, number: faults.close_channel(when, number),
    lambda faults, _, number: faults.drop_connection("delivery", number),
    lambda faults, _, number: faults.lose_ack(number),
    lambda faults, _, number: faults.duplicate_delivery(number),
    lambda faults, _, number: faults._cancel_later(number),
    lambda faults, when, number: faults._jump(when, number),
    lambda faults, _, number: faults._for_a_while(
        "publish",
        number,
        "confirms late",
        faults._set("confirm_delay", WHILE),
        faults._set("confirm_delay", 0.0),
    ),
    lambda faults, _, number: faults._for_a_while(
        "publish", number, "publishers blocked", faults.block, faults.unblock
    ),
    lambda faults, _, number: faults._for_a_while(
        "delivery", number, "tiny segments", faults._set("segment", PIECE), faults._set("segment", None)
    ),
)
"""What a schedule draws from. Withheld confirms and refused logins are not in it: they cost real time."""


def opened() -> anyio.Event:
    """Make an event that has happened."""
    event = anyio.Event()
    event.set()
    return event
