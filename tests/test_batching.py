"""How messages gather into batches: size, weight, time, flush, keys, turns, starvation."""

from collections.abc import Hashable, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.batch import Batch, Trigger
from flow.batcher import Batcher
from flow.batching import Batching
from flow.errors import ConfigError
from flow.message import Message, State
from tests.messages import MemoryOrigin


def odd_even(value: int) -> str:
    return "odd" if value % 2 else "even"


class Line:
    """A batcher with the values put into it, time as a number."""

    def __init__(self, **options: Any) -> None:
        self.origin = MemoryOrigin()
        self.batcher = Batcher("default", Batching(**options))

    def add(self, values: Sequence[int], key: Hashable = None, now: float = 0.0, weight: int = 0) -> None:
        for value in values:
            message: Message[Any] = self.origin.message(value)
            message.body = value
            message.state = State.BATCHED
            self.batcher.add(message, key(value) if callable(key) else key, now, weight)

    def take(self, now: float = 0.0, *, hold: bool = False) -> tuple[list[int], str] | None:
        batch = self.batcher.take(now)
        if batch is None:
            return None
        if not hold:
            self.batcher.done(batch)
        return batch.bodies, batch.trigger.value

    def all(self, now: float = 0.0) -> list[tuple[list[int], str]]:
        taken = []
        while (one := self.take(now)) is not None:
            taken.append(one)
        return taken


def test_full_batches_go_at_once() -> None:
    """E01: the size trigger."""
    line = Line(size=2)

    line.add([1, 2, 3, 4])

    assert line.all() == [([1, 2], "size"), ([3, 4], "size")]


def test_the_remainder_goes_at_the_timeout() -> None:
    """E02, E05: a partial batch waits for its timeout, and an empty one never goes."""
    line = Line(size=2, timeout=0.2)
    line.add([1, 2, 3, 4, 5])
    line.all()

    early, due = line.all(0.199), line.all(0.2)

    assert early == []
    assert due == [([5], "timeout")]
    assert line.all(10.0) == []
    assert line.batcher.deadline() is None


def test_the_timeout_counts_from_the_first_message() -> None:
    """E03: the timer does not slide."""
    line = Line(size=100, timeout=0.2)
    line.add([1], now=0.0)
    line.add([2], now=0.1)
    line.add([3], now=0.15)

    first = line.all(0.2)
    line.add([4], now=0.25)

    assert first == [([1, 2, 3], "timeout")]
    assert line.all(0.44) == []
    assert line.all(0.45) == [([4], "timeout")]


def test_a_full_batch_clears_its_timer() -> None:
    """E04: the next batch of the key has its own deadline."""
    line = Line(size=2, timeout=0.2)
    line.add([1, 2], now=0.0)
    line.add([3], now=0.15)

    assert line.all(0.2) == [([1, 2], "size")]
    assert line.batcher.deadline() == pytest.approx(0.35)
    assert line.all(0.35) == [([3], "timeout")]


def test_a_batch_tells_what_it_is() -> None:
    """E06: batcher, key, size and trigger."""
    line = Line(size=2)
    line.add([1, 2], key="a")

    batch = line.batcher.take(0.0)

    assert batch is not None
    assert (batch.batcher, batch.key, len(batch), batch.trigger) == ("default", "a", 2, Trigger.SIZE)


def test_keys_gather_apart_with_timers_of_their_own() -> None:
    """E07, E08: odd and even fill and expire independently."""
    line = Line(size=2, timeout=0.2)
    line.add([1, 2, 3, 4], key=odd_even)
    line.add([5], key=odd_even, now=0.1)
    line.add([6], key=odd_even, now=0.15)

    assert line.all(0.0) == [([1, 3], "size"), ([2, 4], "size")]
    assert line.all(0.301) == [([5], "timeout")]
    assert line.all(0.351) == [([6], "timeout")]


def test_any_hashable_is_a_key() -> None:
    """E09: None, text, tuples and numbers."""
    line = Line(size=10, timeout=0.2)
    for key in (None, "x", ("x", 1), 1):
        line.add([1], key=key)

    assert len(line.all(0.2)) == 4


def test_batchers_have_their_own_settings() -> None:
    """E11: size 2 and size 3."""
    two, three = Line(size=2), Line(size=3)
    two.add(range(6))
    three.add(range(6))

    assert len(two.all()) == 3
    assert len(three.all()) == 2


def test_size_one_needs_no_timer() -> None:
    """E12: three batches of one, at once."""
    line = Line(size=1, timeout=60.0)
    line.add([1, 2, 3])

    assert line.all() == [([1], "size"), ([2], "size"), ([3], "size")]
    assert line.batcher.deadline() is None


def test_full_batches_wait_for_a_slot_and_are_never_merged() -> None:
    """E20: one slot, three batches of two."""
    line = Line(size=2, concurrency=1)
    line.add([1, 2, 3, 4, 5, 6])
    batch = line.batcher.take(0.0)
    assert batch is not None

    meanwhile = line.take(0.3)
    line.batcher.done(batch)

    assert meanwhile is None
    assert line.all(0.3) == [([3, 4], "size"), ([5, 6], "size")]


def test_a_due_batch_grows_until_a_slot_is_free() -> None:
    """E21: it goes as soon as the slot is free, with all that came meanwhile."""
    line = Line(size=100, timeout=0.05, concurrency=1)
    line.add([1], now=0.0)
    batch = line.batcher.take(0.05)
    assert batch is not None
    for step in range(1, 30):
        line.add([step], now=0.05 + step / 100)
        assert line.take(0.05 + step / 100) is None

    line.batcher.done(batch)

    assert line.take(0.35) == (list(range(1, 30)), "timeout")


def test_two_batches_of_one_key_run_at_once() -> None:
    """E18: without `ordered`."""
    line = Line(size=2, concurrency=2)
    line.add([1, 2, 3, 4])

    assert line.take(hold=True) == ([1, 2], "size")
    assert line.take(hold=True) == ([3, 4], "size")


def test_ordered_keys_run_one_batch_at_a_time() -> None:
    """E19: the other keys run meanwhile."""
    line = Line(size=2, concurrency=3, ordered=True)
    line.add([1, 3, 5, 7, 2, 4], key=odd_even)

    first = line.batcher.take(0.0)
    second = line.take(hold=True)

    assert first is not None
    assert first.bodies == [1, 3]
    assert second == ([2, 4], "size")
    assert line.take() is None
    line.batcher.done(first)
    assert line.take() == ([5, 7], "size")


def test_a_key_leaves_a_slot_to_the_others() -> None:
    """A hot key holds at most all slots but one while another key waits; keys take turns."""
    line = Line(size=1, concurrency=3)
    line.add([1, 3, 5, 7, 9, 2, 4], key=odd_even)

    order = [line.take(hold=True) for _ in range(3)]

    assert order == [([1], "size"), ([2], "size"), ([3], "size")]


def test_the_heaviest_batch_stays_below_the_limit() -> None:
    """E27: 4 + 4 + 4 under a limit of 10."""
    line = Line(size=100, timeout=0.2, weight=lambda message: 4, max_weight=10)
    line.add([1, 2, 3], weight=4)

    assert line.all(0.0) == [([1, 2], "weight")]
    assert line.all(0.2) == [([3], "timeout")]


def test_one_message_above_the_weight_limit_goes_alone() -> None:
    line = Line(size=100, weight=lambda message: 1, max_weight=10)
    line.add([1], weight=3)
    line.add([2], weight=30)

    assert line.all() == [([1], "weight"), ([2], "weight")]


def test_many_keys_leave_nothing_behind() -> None:
    """E30: 10 000 keys of one message each."""
    line = Line(size=100, timeout=0.2)
    for value in range(10_000):
        line.add([value], key=value)

    batches = line.all(0.2)

    assert len(batches) == 10_000
    assert {trigger for _, trigger in batches} == {"timeout"}
    assert line.batcher.waiting == 0
    assert not line.batcher._lanes
    assert not line.batcher._deadlines


def test_flush_takes_along_what_waits() -> None:
    """F01, F02: everything open goes, in order, and its timer with it."""
    line = Line(size=100, timeout=60.0)
    line.add([1, 2, 3])

    line.batcher.flush()

    assert line.all() == [([1, 2, 3], "flush")]
    assert line.batcher.deadline() is None


def test_a_key_that_is_released_leaves_the_others() -> None:
    """F03, F07: the other key waits for its own timeout, a new batch of the released key for a new one."""
    line = Line(size=100, timeout=0.4)
    line.add([1], key="a", now=0.0)
    line.add(range(2, 7), key="b", now=0.0)

    line.batcher.starve("numbers", 1)

    assert line.all(0.1) == [([2, 3, 4, 5, 6], "starved")]
    line.add([7], key="b", now=0.2)
    assert line.all(0.4) == [([1], "timeout")]
    assert line.all(0.601) == [([7], "timeout")]


def test_what_comes_after_a_flush_goes_at_once() -> None:
    """F04, F05: no batch above its size, nothing waits for the timeout."""
    line = Line(size=2, timeout=60.0)
    line.batcher.flush()

    line.add([1, 2, 3, 4, 5])

    batches = line.all()
    assert [value for bodies, _ in batches for value in bodies] == [1, 2, 3, 4, 5]
    assert max(len(bodies) for bodies, _ in batches) == 2


def test_size_wins_over_flush() -> None:
    """F06: a batch that is full is full."""
    line = Line(size=2, timeout=60.0)
    line.add([1])
    line.batcher.flush()
    line.add([2])

    assert line.all() == [([1, 2], "size")]


def test_starvation_releases_the_largest_until_enough() -> None:
    """Half of the window is freed by the largest batches, the oldest first among equals."""
    line = Line(size=100, timeout=60.0)
    for key, count in (("a", 1), ("b", 30), ("c", 20), ("d", 5)):
        line.add(range(count), key=key)

    released = line.batcher.starve("numbers", 45)

    assert released == 50
    assert [len(bodies) for bodies, trigger in line.all() if trigger == "starved"] == [30, 20]


def test_starvation_releases_also_what_is_not_much_smaller() -> None:
    """Batches of about one size go together, as they would split the acknowledgements of the others."""
    line = Line(size=100, timeout=60.0)
    for key, count in (("a", 2), ("b", 12), ("c", 3), ("d", 8), ("e", 7)):
        line.add(range(count), key=key)

    released = line.batcher.starve("numbers", 15)

    assert released == 30
    assert [len(bodies) for bodies, trigger in line.all() if trigger == "starved"] == [12, 8, 7, 3]


def test_isolated_messages_do_not_join_a_batch() -> None:
    line = Line(size=100, timeout=0.2)
    line.add([1, 2])
    lonely: Message[Any] = line.origin.message(3)
    lonely.body = 3

    line.batcher.add_alone(lonely, None)

    assert line.all(0.0) == [([3], "size")]
    assert line.all(0.2) == [([1, 2], "timeout")]


def test_messages_of_a_lost_session_leave_their_batches() -> None:
    """R29: open and full ones alike; nothing empty is handed out."""
    line = Line(size=2, timeout=0.2)
    line.add([1, 2, 3])
    line.add([4], key="other")
    for message in [*line.batcher._lanes[None].messages, *line.batcher._lanes[None].closed[0][0]]:
        message.state = State.STALE

    line.batcher.discard_stale()

    assert line.batcher.waiting == 1
    assert line.all(1.0) == [([4], "timeout")]


def test_a_batch_that_was_due_before_its_session_ended_makes_no_other_one_due() -> None:
    line = Line(size=10, timeout=1.0, concurrency=2)
    line.add([1])
    assert line.take(1.0, hold=True) == ([1], "timeout")  # keeps its key known
    line.add([2], now=1.0)
    line.batcher.starve("numbers", 1)
    line.batcher._lanes[None].messages[0].state = State.STALE
    line.batcher.discard_stale()

    line.add([3], now=2.0)

    assert line.take(2.5) is None
    assert line.take(3.0) == ([3], "timeout")


def test_what_is_late_keeps_its_turn_and_holds_up_nobody() -> None:
    line = Line(size=1, concurrency=10)
    for key in "abc":
        line.add([ord(key)], key=key)
    late = {"a", "c"}

    def taken() -> str:
        batch = line.batcher.take(0.0, None, lambda lane, messages: lane.key in late)
        return "" if batch is None else str(batch.key)

    meanwhile = taken()
    late.clear()

    assert meanwhile == "b"
    assert [taken() for _ in range(3)] == ["a", "c", ""]


def test_what_is_put_last_comes_after_what_gathered_meanwhile() -> None:
    """So that another message is the next probe."""
    line = Line(size=2, timeout=1.0)
    line.add([1, 2])
    batch = line.batcher.take(0.0)
    assert batch is not None
    line.add([3])

    line.batcher.put_last(batch)
    line.batcher.done(batch)

    assert line.all(0.0) == [([3], "timeout"), ([1], "size"), ([2], "size")]


@given(
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 3)), max_size=60),
    st.integers(1, 5),
    st.integers(1, 3),
    st.booleans(),
)
def test_every_message_comes_out_once_in_order_of_its_key(
    steps: list[tuple[int, int]], size: int, concurrency: int, ordered: bool
) -> None:
    """Whatever is added, taken and done in whatever order: nothing is lost, merged above size or twice."""
    line = Line(size=size, timeout=1.0, concurrency=concurrency, ordered=ordered)
    running: list[Batch[Any]] = []
    out: dict[int, list[int]] = {}
    now, value = 0.0, 0
    for key, action in [*steps, *[(0, 4)] * 200]:
        if action <= 1:
            value += 1
            line.add([value], key=key, now=now)
        if action == 2:
            now += 0.3
        if action == 4:
            line.batcher.flush()
        if action >= 2:
            batch = line.batcher.take(now)
            if batch is not None:
                assert 1 <= len(batch) <= size
                out.setdefault(batch.key, []).extend(batch.bodies)  # type: ignore[call-overload]
                running.append(batch)
            elif running:
                line.batcher.done(running.pop(0))
        assert len(running) <= concurrency

    values = [value for bodies in out.values() for value in bodies]
    assert sorted(values) == list(range(1, value + 1))
    assert all(bodies == sorted(bodies) for bodies in out.values())
    assert line.batcher.waiting == 0


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"size": 0}, "Batching.size must be a whole number of at least 1, got 0"),
        ({"size": -1}, "Batching.size must be a whole number of at least 1, got -1"),
        ({"size": "x"}, "Batching.size must be a whole number of at least 1, got 'x'"),
        ({"size": True}, "Batching.size must be a whole number of at least 1, got True"),
        ({"timeout": 0}, "Batching.timeout must be a number of seconds above 0, got 0"),
        ({"concurrency": 0}, "Batching.concurrency must be a whole number of at least 1, got 0"),
        ({"ordered": 1}, "Batching.ordered must be True or False, got 1"),
        ({"max_weight": 5}, "Batching.weight and Batching.max_weight go together: give both or neither"),
        ({"sise": 5}, "Batching has no option sise; did you mean size?"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options: dict[str, Any], sentence: str) -> None:
    """A01, A02, A03: names, types and ranges."""
    with pytest.raises(ConfigError) as caught:
        Batching(**options)

    assert str(caught.value) == sentence
