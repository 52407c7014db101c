"""What is remembered of the deliveries of a lost session."""

from typing import Any

from flow.memory import DeliveryMemory
from flow.message import Message, Properties, State, plain_header
from flow.outcome import DELIVERED
from tests.messages import MemoryOrigin


def finished(origin: MemoryOrigin, body: object) -> Message[Any]:
    message: Message[Any] = origin.message(body)
    message.decision = DELIVERED
    message.state = State.DECIDED
    return message


def test_a_decision_answers_one_redelivery() -> None:
    """A multiset: each match uses one entry up."""
    memory, first, second = DeliveryMemory(), MemoryOrigin(), MemoryOrigin()
    memory.remember(finished(first, {"n": 1}))
    memory.remember(finished(first, {"n": 1}))

    answers = [memory.recall(second.message({"n": 1}, redelivered=True)) for _ in range(3)]

    assert answers == [DELIVERED, DELIVERED, None]
    assert len(memory) == 0


def test_a_running_message_is_returned_itself_and_by_its_decision_once_it_has_one() -> None:
    memory, first, second = DeliveryMemory(), MemoryOrigin(), MemoryOrigin()
    running: list[Message[Any]] = [first.message({"n": number}) for number in (1, 2, 3)]
    for message in running:
        message.state = State.RUNNING
        memory.remember(message)
    running[1].decision = DELIVERED
    running[2].state = State.STALE

    answers = [memory.recall(second.message({"n": number})) for number in (1, 2, 3)]

    assert answers == [running[0], DELIVERED, None]


def test_identity_is_the_message_id_and_the_body() -> None:
    """Publishers give one id to several messages; the body of one that is too large is not here."""
    origin = MemoryOrigin()
    given = [origin.message(body) for body in (b"x", b"x", b"y")]
    for message in given:
        message.header += b"1"
        origin.given[message.header] = Properties(message_id="m-1")
    large = [origin.message(b"") for _ in range(2)]
    large[0].header = plain_header(2 << 20)

    assert given[0].identity() == given[1].identity()
    assert given[0].identity() != given[2].identity()
    assert given[0].identity() != origin.message(b"x").identity()
    assert origin.message(b"x").identity() == origin.message(b"x").identity()
    assert origin.message(b"x").identity() != origin.message(b"y").identity()
    assert large[0].identity() != large[1].identity()


def test_another_attempt_or_queue_is_another_message() -> None:
    origin = MemoryOrigin()

    identities = {
        origin.message(b"x").identity(),
        origin.message(b"x", attempt=2).identity(),
        MemoryOrigin("others").message(b"x").identity(),
    }

    assert len(identities) == 3


def test_holding_a_message_does_not_change_its_identity() -> None:
    """Its redelivery knows nothing of the hold."""
    origin = MemoryOrigin()
    message: Message[Any] = origin.message(b"x")
    before = message.identity()

    message.held = 2

    assert message.identity() == before
    assert message.attempt == 3


def test_the_oldest_are_forgotten_first() -> None:
    memory, origin = DeliveryMemory(limit=2), MemoryOrigin()
    for number in (1, 2, 3):
        memory.remember(finished(origin, {"n": number}))

    assert memory.recall(origin.message({"n": 1})) is None
    assert memory.recall(origin.message({"n": 3})) == DELIVERED
    assert len(memory) == 1
