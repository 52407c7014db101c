"""Messages whose claims somebody else has, on the clock of the test."""

from flow.message import Message
from flow.stages.elsewhere import LOOK, SOON, Elsewhere
from tests.messages import ManualClock, MemoryOrigin


def test_those_of_one_queue_can_be_given_back() -> None:
    clock, looked = ManualClock(), list[Message]()
    elsewhere = Elsewhere(clock, 100.0)
    one, other = MemoryOrigin("one").message(1), MemoryOrigin("other").message(1)
    for message in (one, other):
        elsewhere.keep(message, 100.0, looked.append)

    given = elsewhere.clear("one")
    clock.advance(LOOK)

    assert (given, looked, len(elsewhere)) == ([one], [other], 0)


def test_a_claim_is_looked_at_when_it_has_ended() -> None:
    clock, looked = ManualClock(), list[Message]()
    elsewhere = Elsewhere(clock, 100.0)
    message = MemoryOrigin().message(1)
    for left in (0.0, 2.0):
        elsewhere.keep(message, left, looked.append)
        clock.advance(left + SOON - 0.1)
        before = len(looked)
        clock.advance(0.1)
        assert (before, looked) == (0, [message])
        looked.clear()
