"""Histograms count by upper bounds, included, as Prometheus means them."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flow.histogram import Histogram

VALUES = st.lists(st.floats(min_value=-5, max_value=2000, allow_nan=False))


def test_a_value_on_a_bound_belongs_to_that_bucket() -> None:
    histogram = Histogram((1.0, 2.0))

    for value in (0.5, 1.0, 1.5, 2.0, 2.5):
        histogram.observe(value)

    assert histogram.counts == [2, 2, 1]
    assert histogram.cumulative() == [(1.0, 2), (2.0, 4), (inf, 5)]
    assert (histogram.count, histogram.total) == (5, 7.5)


def test_a_new_histogram_has_all_its_buckets_at_zero() -> None:
    histogram = Histogram((1.0, 2.0))

    assert histogram.cumulative() == [(1.0, 0), (2.0, 0), (inf, 0)]
    assert (histogram.count, histogram.total) == (0, 0.0)


@given(VALUES)
def test_each_bound_has_as_many_values_as_are_not_above_it(values: list[float]) -> None:
    bounds = (0.1, 1.0, 10.0, 1000.0)
    histogram = Histogram(bounds)

    for value in values:
        histogram.observe(value)

    expected = [(bound, sum(value <= bound for value in values)) for bound in (*bounds, inf)]
    assert histogram.cumulative() == expected


@given(st.floats(min_value=-5, max_value=50), st.integers(min_value=0, max_value=40))
def test_many_at_once_count_like_one_by_one(value: float, count: int) -> None:
    at_once, singly = Histogram((1.0, 10.0)), Histogram((1.0, 10.0))

    at_once.observe_many(value, count)
    for _ in range(count):
        singly.observe(value)

    assert at_once.counts == singly.counts
    assert at_once.total == pytest.approx(singly.total)


def test_the_sum_never_falls_when_a_clock_is_ahead() -> None:
    histogram = Histogram((1.0,))
    histogram.observe(0.5)

    histogram.observe(-3.0)
    histogram.observe_many(-3.0, 2)

    assert (histogram.count, histogram.total) == (4, 0.5)


@pytest.mark.parametrize("bounds", [(), (2.0, 1.0), (1.0, 1.0), (1.0, inf), (float("nan"),)])
def test_bounds_that_do_not_ascend_are_refused(bounds: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="must be finite and ascend"):
        Histogram(bounds)
