"""When a target that does not work is called again: time as a number."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.breaker import Breaker, Position


def breaker(slots: int = 10) -> Breaker:
    """Make a breaker that is closed and whose waits are not shortened."""
    return Breaker(slots, random=lambda: 0.0)


def opened(slots: int = 10, now: float = 0.0) -> Breaker:
    made = breaker(slots)
    made.open("503", None, now)
    return made


def run(one: Breaker, how: str, now: float) -> None:
    """Let one call start and end."""
    assert one.may_start(now)
    epoch = one.start()
    end(one, how, epoch, now)


def end(one: Breaker, how: str, epoch: int, now: float) -> Any:
    if how == "succeeded":
        return one.succeeded(epoch)
    if how == "abandoned":
        return one.abandoned(epoch)
    return one.failed(epoch, "ConnectError", now)


def test_five_failures_in_a_row_open_it() -> None:
    one = breaker()

    down = [one.failed(one.start(), f"error {number}", 7.0) for number in range(5)]

    assert down == [False, False, False, False, True]
    assert (one.position, one.reason, one.opened_at) == (Position.OPEN, "error 4", 7.0)


def test_a_success_or_a_verdict_between_failures_counts_anew() -> None:
    one = breaker()

    for how in ("failed", "failed", "failed", "failed", "succeeded") * 3:
        run(one, how, 0.0)

    assert one.closed


def test_a_cancelled_call_between_failures_changes_nothing() -> None:
    one = breaker()

    for how in ("failed", "failed", "abandoned", "failed", "abandoned", "failed", "failed"):
        run(one, how, 0.0)

    assert one.position is Position.OPEN


def test_unavailable_opens_it_at_once() -> None:
    one = breaker()

    one.open("maintenance", 20.0, 100.0)

    assert [one.may_start(now) for now in (100.0, 119.9, 120.0)] == [False, False, True]
    assert one.reason == "maintenance"


def test_without_a_time_the_waits_double_from_one_second_to_sixty() -> None:
    one = breaker()
    now, waits = 0.0, []

    for _ in range(9):
        one.open("503", None, now)
        waits.append(one.retry_at - now)
        now = one.retry_at
        one.start()

    assert waits == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


@given(st.floats(0, 1, exclude_max=True), st.integers(1, 2000))
def test_jitter_shortens_a_wait_by_up_to_half(number: float, times: int) -> None:
    one = Breaker(1, random=lambda: number)
    now = 0.0
    for _ in range(times):
        one.open("503", None, now)
        wait = one.retry_at - now
        now = one.retry_at
        one.start()

    whole = min(60.0, 2.0 ** (min(times, 20) - 1))
    assert whole / 2 - 1e-6 <= wait <= whole + 1e-6


@pytest.mark.parametrize("after", [0, -5.0])
def test_a_target_that_asks_for_no_pause_gets_one(after: float) -> None:
    """`Retry-After: 0` from a target that does not work must not make a hot loop."""
    one = breaker()

    one.open("503", after, 10.0)

    assert one.retry_at == 11.0


def test_one_call_probes_with_one_message() -> None:
    one = opened()

    assert one.may_start(1.0)
    assert one.single
    one.start()

    assert one.position is Position.PROBING
    assert not one.may_start(1.0)
    assert not one.may_start(10_000.0), "a second probe must not start while the first runs"


def test_a_failed_probe_waits_twice_as_long() -> None:
    one = opened()

    assert one.failed(one.start(), "ConnectError", 1.0)

    assert (one.position, one.retry_at) == (Position.OPEN, 3.0)
    assert one.opened_at == 0.0, "it is down since the first failure"


def test_a_probe_that_is_told_to_wait_waits_as_told() -> None:
    one = opened()
    one.start()

    one.open("maintenance", 45.0, 1.0)

    assert one.retry_at == 46.0


def test_a_cancelled_probe_leaves_it_open_for_the_next() -> None:
    one = opened()

    one.abandoned(one.start())

    assert one.position is Position.OPEN
    assert one.may_start(1.0)


def test_it_closes_gradually() -> None:
    """After the probe two may run at once, and one more with each success."""
    one = opened(slots=4)
    run(one, "succeeded", 1.0)
    at_once = []

    while not one.closed:
        epochs = []
        while one.may_start(2.0):
            epochs.append(one.start())
        at_once.append(len(epochs))
        for epoch in epochs[:-1]:
            one.abandoned(epoch)
        one.succeeded(epochs[-1])

    assert at_once == [2, 3, 4]
    assert one.opened_at is None


@pytest.mark.parametrize(("slots", "successes"), [(1, 1), (2, 2), (10, 10)])
def test_as_many_successes_close_it_as_there_are_slots(slots: int, successes: int) -> None:
    one = opened(slots)

    for number in range(successes):
        assert not one.closed, number
        run(one, "succeeded", 1.0)

    assert one.closed


def test_one_failure_while_closing_opens_it_again() -> None:
    one = opened()
    run(one, "succeeded", 1.0)
    run(one, "succeeded", 1.0)

    assert one.failed(one.start(), "ConnectError", 2.0)

    assert (one.position, one.retry_at) == (Position.OPEN, 4.0), (
        "the wait goes on doubling until it is closed"
    )


def test_waits_begin_at_one_second_again_after_it_was_closed() -> None:
    one = opened(slots=1)
    run(one, "succeeded", 1.0)

    one.open("503", None, 5.0)

    assert (one.retry_at, one.opened_at) == (6.0, 5.0)


def test_calls_from_before_it_opened_prove_nothing() -> None:
    """Ten calls were under way: their ends neither close it nor lengthen the wait."""
    one = breaker()
    epochs = [one.start() for _ in range(10)]
    for epoch in epochs[:5]:
        end(one, "failed", epoch, 0.0)

    down = [one.failed(epoch, "ConnectError", 0.5) for epoch in epochs[5:8]]
    one.succeeded(epochs[8])
    one.abandoned(epochs[9])

    assert down == [True, True, True], "their messages are kept as well"
    assert (one.position, one.retry_at) == (Position.OPEN, 1.0)


def test_a_call_from_before_does_not_end_the_probe() -> None:
    one = breaker()
    before = one.start()
    one.open("503", None, 0.0)
    probe = one.start()

    positions = [one.position]
    for epoch in (before, probe):
        one.succeeded(epoch)
        positions.append(one.position)

    assert positions == [Position.PROBING, Position.PROBING, Position.CLOSING]


def test_a_late_call_that_names_a_longer_pause_is_heard() -> None:
    one = opened()

    one.open("maintenance", 0.5, 0.0)
    assert one.retry_at == 1.0
    one.open("maintenance", 30.0, 0.2)

    assert (one.retry_at, one.reason) == (30.2, "maintenance")


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["start", "succeeded", "failed", "abandoned", "open"]),
        st.integers(0, 50),
        st.floats(0, 5),
    ),
    max_size=200,
)


@given(ACTS, st.integers(1, 5))
def test_it_never_lets_more_start_than_it_may_and_never_stays_shut(
    acts: list[tuple[str, int, float]], slots: int
) -> None:
    """Whatever happens: nothing starts before its time, one probe at most, and in the end it closes."""
    one = Breaker(slots)
    now = 0.0
    running: list[int] = []
    for act, which, pause in acts:
        now += pause
        if act == "start":
            if len(running) < slots and one.may_start(now):
                assert one.position is not Position.OPEN or now >= one.retry_at
                assert one.position is not Position.PROBING
                running.append(one.start())
        elif act == "open":
            one.open("503", None, now)
        elif running:
            end(one, act, running.pop(which % len(running)), now)

    for epoch in running:
        end(one, "abandoned", epoch, now)
    for _ in range(slots + 1):
        now = max(now, one.retry_at)
        run(one, "succeeded", now)

    assert one.closed
