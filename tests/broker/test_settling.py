"""What is settled reaches the broker once, with the right verb, in few frames, and never wrongly."""

from collections.abc import Callable
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pamqp.commands import Basic

from flow.broker.settling import Settler
from flow.errors import DecodeError
from flow.message import Message
from tests.broker.wire import Delivery
from tests.examples import examples

VERBS = ("ack", "reject", "release")


def frames(written: bytes) -> list[tuple[int, Any]]:
    """Return channel and method of every frame that was written."""
    found = []
    while written:
        size, channel, method = pamqp.frame.unmarshal(written)
        found.append((channel, method))
        written = written[size:]
    return found


class ModelBroker:
    """One channel of a broker: what it holds unacknowledged, and what it was told of each delivery."""

    def __init__(self) -> None:
        self.unacked: dict[int, str] = {}  # tag and consumer, in the order of delivery
        self.told: dict[int, str] = {}
        self._tag = 0

    def deliver(self, consumer: str) -> int:
        self._tag += 1
        self.unacked[self._tag] = consumer
        return self._tag

    def process(self, channel: int, method: Any) -> None:
        assert channel == 5
        tag = method.delivery_tag
        assert tag in self.unacked, f"406 PRECONDITION_FAILED - unknown delivery tag {tag}"
        if isinstance(method, Basic.Ack):
            tags = [one for one in self.unacked if one <= tag] if method.multiple else [tag]
            verb = "ack"
        elif isinstance(method, Basic.Reject):
            tags, verb = [tag], "release" if method.requeue else "reject"
            assert not method.requeue
        else:
            assert isinstance(method, Basic.Nack)
            assert (method.multiple, method.requeue) == (False, True)
            tags, verb = [tag], "release"
        for one in tags:
            del self.unacked[one]
            assert one not in self.told
            self.told[one] = verb


class Channel:
    """A settler with two consumers, and the writes it makes."""

    def __init__(self, *prefetches: int) -> None:
        self.writes: list[bytes] = []
        self.turns: list[Callable[[], None]] = []
        self.settler = Settler(5, self.writes.append, self.turns.append)
        self.consumers = [
            self.settler.consumer(f"queue {number}", f"tag {number}", prefetch)
            for number, prefetch in enumerate(prefetches or (100,))
        ]
        self._header = Delivery(1).header()

    def deliver(self, tag: int, consumer: int = 0) -> Message[Any]:
        origin = self.consumers[consumer]
        message: Message[Any] = Message(origin, tag, False, b"\0\0", self._header, b"{}", 0.0)
        self.settler.outstanding[tag] = message
        origin.outstanding += 1
        return message

    def delivered(self, count: int) -> list[Message[Any]]:
        return [self.deliver(tag) for tag in range(1, count + 1)]

    def turn(self) -> list[Any]:
        """End this turn of the loop; return what was written in it."""
        before = len(self.writes)
        turns, self.turns[:] = list(self.turns), []
        for turn in turns:
            turn()
        assert len(self.writes) - before <= 1
        return [described(method) for write in self.writes[before:] for _, method in frames(write)]


def described(method: Any) -> tuple[str, int] | tuple[str, int, str]:
    verb = {Basic.Ack: "ack", Basic.Reject: "reject", Basic.Nack: "release"}[type(method)]
    if getattr(method, "multiple", False):
        return verb, method.delivery_tag, "and all before"
    return verb, method.delivery_tag


def settle(messages: list[Message[Any]], **verbs: list[int]) -> None:
    """Settle the messages with the given tags, in the order of the arguments."""
    by_tag = {message.tag: message for message in messages}
    for verb, tags in verbs.items():
        for tag in tags:
            getattr(by_tag[tag].origin, verb)(by_tag[tag])


TURNS = {
    "one": ({"ack": [1]}, [("ack", 1)]),
    "all": ({"ack": [1, 2, 3, 4, 5, 6]}, [("ack", 6, "and all before")]),
    "in another order": ({"ack": [3, 1, 2]}, [("ack", 3, "and all before")]),
    "with a gap": ({"ack": [1, 2, 4, 6]}, [("ack", 2, "and all before"), ("ack", 4), ("ack", 6)]),
    "one, then a gap": ({"ack": [1, 3]}, [("ack", 1), ("ack", 3)]),
    "not the oldest": ({"ack": [6, 4]}, [("ack", 6), ("ack", 4)]),
    "rejected": ({"reject": [2]}, [("reject", 2)]),
    "released": ({"release": [2, 1]}, [("release", 2), ("release", 1)]),
    "a rejected one within": (
        {"ack": [1, 3], "reject": [2]},
        [("reject", 2), ("ack", 3, "and all before")],
    ),
    "a released one at the end": (
        {"ack": [1, 2], "release": [3]},
        [("release", 3), ("ack", 2, "and all before")],
    ),
    "a rejected one at the beginning": ({"reject": [1], "ack": [2]}, [("reject", 1), ("ack", 2)]),
}


@pytest.mark.parametrize(("settled", "written"), TURNS.values(), ids=list(TURNS))
def test_what_is_settled_in_one_turn_leaves_as_one_write(settled: dict[str, list[int]], written: Any) -> None:
    channel = Channel()
    messages = channel.delivered(6)

    settle(messages, **settled)

    assert channel.writes == []
    assert channel.turn() == written
    assert channel.turn() == []


def test_what_was_settled_in_earlier_turns_does_not_stand_in_the_way() -> None:
    channel = Channel()
    messages = channel.delivered(6)
    settle(messages, reject=[1], ack=[3, 4])
    channel.turn()

    settle(messages, ack=[2, 5])

    assert channel.turn() == [("ack", 5, "and all before")]


def test_a_write_is_scheduled_once_per_turn() -> None:
    channel = Channel()

    settle(channel.delivered(3), ack=[1, 2], reject=[3])

    assert len(channel.turns) == 1


def test_a_message_is_settled_once() -> None:
    """I03: settling again changes nothing, now or later."""
    channel = Channel()
    messages = channel.delivered(2)

    settle(messages, ack=[1, 1], reject=[1], release=[1])
    first = channel.turn()
    settle(messages, ack=[1], reject=[1])

    assert first == [("ack", 1)]
    assert channel.turn() == []
    assert channel.consumers[0].outstanding == 1


def test_a_settled_message_is_no_longer_outstanding_before_it_is_written() -> None:
    channel = Channel(10, 10)
    first, second = channel.deliver(1, 0), channel.deliver(2, 1)

    first.origin.ack(first)

    assert [consumer.outstanding for consumer in channel.consumers] == [0, 1]
    assert channel.settler.outstanding == {2: second}


def test_a_consumer_tells_where_it_consumes() -> None:
    channel = Channel(10, 20)

    consumer = channel.settler.consumers[b"tag 1"]

    assert (consumer.queue, consumer.consumer_tag, consumer.prefetch) == ("queue 1", "tag 1", 20)
    assert (consumer.outstanding, consumer.alive) == (0, True)


def test_a_consumer_decodes_properties() -> None:
    (consumer,) = Channel().consumers

    assert consumer.properties(Delivery(1, message_id="x").header()).message_id == "x"
    with pytest.raises(DecodeError, match="unreadable properties"):
        consumer.properties(b"")


# The end


def test_flush_writes_at_once() -> None:
    channel = Channel()
    settle(channel.delivered(2), ack=[1, 2])

    channel.settler.flush()

    assert len(channel.writes) == 1
    assert channel.turn() == []


def test_after_the_end_nothing_is_written_or_settled() -> None:
    """R27: what comes late is dropped and counted."""
    channel = Channel()
    messages = channel.delivered(3)
    settle(messages, ack=[1])

    channel.settler.end()
    settle(messages, ack=[2], reject=[3])
    channel.settler.flush()

    assert channel.turn() == []
    assert channel.writes == []
    assert list(channel.settler.outstanding) == [2, 3]
    assert channel.consumers[0].outstanding == 2
    assert channel.settler.dropped == 2
    assert not channel.consumers[0].alive


def test_a_consumer_added_after_the_end_is_dead() -> None:
    channel = Channel()
    channel.settler.end()

    assert not channel.settler.consumer("queue", "late", 1).alive


# What the broker may not know


def unconfirmed(channel: Channel) -> list[int]:
    return [message.tag for message in channel.settler.unconfirmed()]


def test_settled_messages_are_unconfirmed_until_the_window_proves_otherwise() -> None:
    channel = Channel(4)
    messages = channel.delivered(4)
    settle(messages, ack=[1, 2])
    channel.turn()
    before = unconfirmed(channel)

    channel.deliver(5)  # the broker has processed one of the two

    assert before == [1, 2]
    assert unconfirmed(channel) == [2]


def test_a_full_window_proves_all_settled() -> None:
    channel = Channel(4)
    settle(channel.delivered(4), ack=[1, 2])
    channel.turn()

    channel.deliver(5), channel.deliver(6)

    assert unconfirmed(channel) == []


def test_what_is_settled_and_not_written_is_unconfirmed_too() -> None:
    channel = Channel()
    messages = channel.delivered(3)

    settle(messages, ack=[1], reject=[2])
    now = unconfirmed(channel)
    channel.settler.end()
    channel.turn()

    assert sorted(now) == sorted(unconfirmed(channel)) == [1, 2]


def test_released_messages_are_not_remembered_as_settled() -> None:
    channel = Channel()
    settle(channel.delivered(3), release=[1], reject=[2], ack=[3])
    now = unconfirmed(channel)

    channel.turn()

    assert now == unconfirmed(channel) == [2, 3]


def test_what_left_first_is_known_to_the_broker_first() -> None:
    """One acknowledgement for the oldest overtakes those that were settled before it."""
    channel = Channel(3)
    settle(channel.delivered(3), ack=[3, 1])
    assert channel.turn() == [("ack", 1), ("ack", 3)]

    channel.deliver(4)  # the broker has processed the first of the two

    assert unconfirmed(channel) == [3]


def test_not_more_than_the_window_is_kept_in_memory() -> None:
    channel = Channel(4)

    for tag in range(1, 100):
        settle([channel.deliver(tag)], ack=[tag])
        channel.turn()

    assert len(channel.settler._unconfirmed) <= 4


# All of it together, against a model


class Consuming(RuleBasedStateMachine):
    """A broker that is as slow as it likes, and a client that settles in any order, twice, and at once."""

    @initialize(prefetches=st.lists(st.integers(1, 6), min_size=1, max_size=3))
    def begin(self, prefetches: list[int]) -> None:
        self.channel = Channel(*prefetches)
        self.broker = ModelBroker()
        self.window = sum(prefetches)
        self.messages: dict[int, Message[Any]] = {}
        self.verbs: dict[int, str] = {}
        self.under_way: list[tuple[int, Any]] = []
        self.read = 0

    @rule(wanted=st.integers(1, 6), consumer=st.integers(0, 2))
    def the_broker_delivers(self, wanted: int, consumer: int) -> None:
        consumer %= len(self.channel.consumers)
        origin = self.channel.consumers[consumer]
        for _ in range(wanted):
            if list(self.broker.unacked.values()).count(origin.consumer_tag) < origin.prefetch:
                tag = self.broker.deliver(origin.consumer_tag)
                self.messages[tag] = self.channel.deliver(tag, consumer)

    @rule(verb=st.sampled_from([*VERBS, "ack"]), picks=st.lists(st.integers(0, 20), max_size=8))
    def messages_are_settled(self, verb: str, picks: list[int]) -> None:
        for pick in picks:
            if self.messages:
                recent = list(self.messages.values())[-20:]
                message = recent[pick % len(recent)]
                getattr(message.origin, verb)(message)
                self.verbs.setdefault(message.tag, verb)

    @rule(count=st.integers(1, 6))
    def the_oldest_are_acknowledged(self, count: int) -> None:
        for message in list(self.channel.settler.outstanding.values())[:count]:
            message.origin.ack(message)
            self.verbs[message.tag] = "ack"

    @rule()
    def the_turn_ends(self) -> None:
        self.channel.turn()
        self._look()

    @rule(processed=st.integers(0, 4))
    def the_broker_reads(self, processed: int) -> None:
        for channel, method in self.under_way[:processed]:
            self.broker.process(channel, method)
        del self.under_way[:processed]

    @precondition(lambda self: self.under_way)
    @rule()
    def the_broker_reads_all(self) -> None:
        self.the_broker_reads(len(self.under_way))

    def _look(self) -> None:
        for write in self.channel.writes[self.read :]:
            self.under_way += frames(write)
        self.read = len(self.channel.writes)

    @invariant()
    def what_the_broker_was_told_is_what_was_decided_first(self) -> None:
        for tag, verb in self.broker.told.items():
            assert self.verbs[tag] == verb

    @invariant()
    def what_the_broker_does_not_know_is_unconfirmed(self) -> None:
        settler = self.channel.settler
        found = {message.tag for message in settler.unconfirmed()}
        unknown = {
            tag for tag, verb in self.verbs.items() if tag in self.broker.unacked and verb != "release"
        }
        assert unknown <= found
        assert len(found) == len(settler.unconfirmed()) <= self.window - len(settler.outstanding)

    @invariant()
    def counts_agree(self) -> None:
        settler = self.channel.settler
        assert set(settler.outstanding) == set(self.messages) - set(self.verbs)
        assert list(settler.outstanding) == sorted(settler.outstanding)
        for consumer in self.channel.consumers:
            own = [one for one in settler.outstanding.values() if one.origin is consumer]
            assert consumer.outstanding == len(own) <= consumer.prefetch

    def teardown(self) -> None:
        if not hasattr(self, "broker"):
            return
        self.the_turn_ends()
        self.the_broker_reads(len(self.under_way))
        assert self.broker.told == self.verbs
        assert set(self.broker.unacked) == set(self.channel.settler.outstanding)


class TestConsuming(Consuming.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=examples(200), stateful_step_count=40, deadline=None)


@given(st.permutations(range(1, 13)), st.lists(st.integers(1, 5), min_size=1, max_size=12))
def test_acknowledging_in_any_order_never_takes_more_frames_than_messages(
    order: list[int], turns: list[int]
) -> None:
    channel, broker = Channel(12), ModelBroker()
    messages = {broker.deliver("tag 0"): message for message in channel.delivered(12)}

    written = 0
    while order:
        size = turns.pop() if turns else len(order)
        taken, order = order[:size], order[size:]
        for tag in taken:
            messages[tag].origin.ack(messages[tag])
        before = len(channel.writes)
        channel.turn()
        for write in channel.writes[before:]:
            for number, method in frames(write):
                written += 1
                broker.process(number, method)

    assert broker.told == dict.fromkeys(range(1, 13), "ack")
    assert written <= 12
