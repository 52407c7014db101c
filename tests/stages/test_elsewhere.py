"""Messages whose claims somebody else has, on the clock of the test."""

from typing import Any

import pytest

from flow.message import Message
from flow.stages.elsewhere import LOOK, SOON, Elsewhere
from tests.messages import ManualClock, MemoryOrigin


def test_those_of_one_queue_can_be_given_back() -> None:
    clock, looked = ManualClock(), list[Message]()
    elsewhere = Elsewhere("postcards", clock, 100.0)
    one, other = MemoryOrigin("one").message(1), MemoryOrigin("other").message(1)
    for message in (one, other):
        elsewhere.keep(message, 100.0, looked.append)

    given = elsewhere.clear("one")
    clock.advance(LOOK)

    assert (given, looked, len(elsewhere)) == ([one], [other], 0)


def test_a_claim_is_looked_at_when_it_has_ended() -> None:
    clock, looked = ManualClock(), list[Message]()
    elsewhere = Elsewhere("postcards", clock, 100.0)
    message = MemoryOrigin().message(1)
    for left in (0.0, 2.0):
        elsewhere.keep(message, left, looked.append)
        clock.advance(left + SOON - 0.1)
        before = len(looked)
        clock.advance(0.1)
        assert (before, looked) == (0, [message])
        looked.clear()


def test_what_waits_for_another_worker_is_told_once_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    """Else nobody knows for what messages of a killed worker wait."""
    caplog.set_level("INFO", "flow")
    clock, origin = ManualClock(), MemoryOrigin()
    elsewhere = Elsewhere("postcards", clock, 200.0)
    ends = clock.now() + 170.5

    def keep(message: Message[Any]) -> None:
        elsewhere.keep(message, max(0.0, ends - clock.now()), keep)

    for number in range(18):
        keep(origin.message(number))
    elsewhere.keep(origin.message(18), 0.0, keep)  # another copy is worked here
    clock.advance(SOON)
    told = list(caplog.messages)
    clock.advance(100.0)

    assert told == [
        "postcards: messages wait for claims that another worker holds: 18, for 170 s at most",
    ]
    assert len(caplog.messages) == 2
    assert caplog.messages[1].endswith(": 19, for 110 s at most")


def test_a_claim_that_ends_soon_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "flow")
    clock = ManualClock()
    elsewhere = Elsewhere("postcards", clock, 200.0)
    message = MemoryOrigin().message(1)

    elsewhere.keep(message, 0.0, lambda _: None)
    elsewhere.keep(MemoryOrigin().message(2), 100.0, lambda _: None)
    elsewhere.clear()
    clock.advance(100.0)

    assert caplog.messages == []
