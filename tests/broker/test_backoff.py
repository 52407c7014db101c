"""The delays between two tries to reach the broker."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from flow.broker.backoff import Backoff

seeds = st.integers(0, 2**32)


def steps(backoff: Backoff, count: int) -> list[float]:
    return [backoff.next() for _ in range(count)]


@given(seeds, st.floats(0.01, 10), st.floats(1, 100))
def test_every_delay_lies_between_least_and_most(seed: int, least: float, factor: float) -> None:
    """R23: 20 steps, whatever the bounds."""
    backoff = Backoff(Random(seed), least=least, most=least * factor)

    delays = steps(backoff, 20)

    assert all(least <= delay <= least * factor for delay in delays)


@given(seeds)
def test_delays_double_up_to_the_most(seed: int) -> None:
    """R21: with 10 as the least, the delays are about 10, 20, 40, 80, then 100."""
    backoff = Backoff(Random(seed), least=10.0, most=100.0)

    delays = steps(backoff, 6)

    bounds = [(10, 20), (20, 40), (40, 80), (50, 100), (50, 100), (50, 100)]
    assert all(low <= delay <= high for delay, (low, high) in zip(delays, bounds, strict=True))


@given(seeds, st.integers(0, 20))
def test_delays_begin_at_the_least_again_after_a_reset(seed: int, before: int) -> None:
    """R22: after success the next failure starts with the first step."""
    backoff = Backoff(Random(seed), least=10.0, most=100.0)
    steps(backoff, before)

    backoff.reset()

    assert 10 <= backoff.next() <= 20


def test_delays_of_two_workers_differ() -> None:
    one, other = Backoff(Random(1)), Backoff(Random(2))

    assert set(steps(one, 10)).isdisjoint(steps(other, 10))


def test_least_and_most_may_be_equal() -> None:
    assert steps(Backoff(Random(1), least=3.0, most=3.0), 3) == [3.0, 3.0, 3.0]


def test_defaults_are_half_a_second_and_half_a_minute() -> None:
    delays = steps(Backoff(Random(7)), 50)

    assert 0.5 <= delays[0] <= 1
    assert max(delays) <= 30
    assert min(delays[10:]) >= 15
