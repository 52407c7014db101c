"""Messages that are held here for another attempt."""

from typing import Any

import pytest

from flow.message import Message, State
from flow.stages.holder import LONGEST, Holder
from tests.messages import ManualClock, MemoryOrigin

RETRY_DELAY = 30.0


class Held:
    """A holder, and what it said."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.again: list[Message[Any]] = []
        self.rejected: list[Message[Any]] = []
        self.early = 0
        self.holder = Holder(
            self.clock, RETRY_DELAY, again=self.again.append, reject=self.rejected.append, early=self._early
        )

    def _early(self) -> None:
        self.early += 1


@pytest.fixture
def held() -> Held:
    return Held()


def test_a_quarter_of_each_window_is_held(held: Held) -> None:
    """What one queue has in hand takes nothing from another."""
    one, other = MemoryOrigin("one", 8), MemoryOrigin("other", 8)

    first = [held.holder.hold(one.message(n), 60.0) for n in range(3)]
    second = [held.holder.hold(other.message(n), 60.0) for n in range(3)]

    assert first == second == [True, True, False]
    assert (held.holder.held, held.early) == (4, 2)


def test_what_is_held_no_longer_makes_room(held: Held) -> None:
    origin = MemoryOrigin("one", 4)
    for let_go in (held.holder.let_go, lambda message: held.holder.release("one")):
        message = origin.message(1)
        assert held.holder.hold(message, 60.0)
        assert not held.holder.hold(origin.message(2), 60.0)
        let_go(message)
        held.holder.let_go(message)
    for after in (RETRY_DELAY + 5.0, 5.0):
        assert held.holder.hold(origin.message(3), after)
        held.clock.advance(5.0)
    held.holder.keep(origin.message(4))
    assert not held.holder.hold(origin.message(5), 60.0)
    held.holder.drain()
    assert held.holder.hold(origin.message(5), 60.0)

    assert (len(held.again), len(held.rejected)) == (1, 2)


def test_what_asks_for_the_delay_of_the_loop_is_rejected_at_once(held: Held) -> None:
    assert not held.holder.hold(MemoryOrigin().message(1), RETRY_DELAY)
    assert held.early == 0


@pytest.mark.parametrize(
    ("after", "held_here"), [(RETRY_DELAY + LONGEST, True), (RETRY_DELAY + LONGEST + 1, False)]
)
def test_nothing_is_held_for_longer_than_ten_minutes(held: Held, after: float, held_here: bool) -> None:
    message = MemoryOrigin().message(1)

    assert held.holder.hold(message, after) is held_here
    held.clock.advance(LONGEST)

    assert held.rejected == [message] * held_here
    assert held.early == (not held_here)


def test_what_is_tried_again_here_counts_as_an_attempt(held: Held) -> None:
    message = MemoryOrigin().message(1)
    held.holder.hold(message, 5.0)
    assert message.state is State.HELD

    held.clock.advance(5.0)

    assert (held.again, message.attempt, message.state) == ([message], 2, State.WAITING)
