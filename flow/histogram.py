"""How often values fell between bounds: plain numbers, read when somebody asks."""

from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import inf, isfinite

# The bounds of what flow measures: seconds, numbers of messages, attempts.
CALLBACK = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
SETTLE = (0.001, 0.005, 0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 1800.0)
RECORD = (0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)
SIZE = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
ATTEMPTS = (1.0, 2.0, 3.0, 4.0, 5.0, 7.0, 10.0, 15.0, 20.0)


class Histogram:
    """Counts values by the smallest bound that is not below them."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, buckets: Sequence[float]) -> None:
        """Take the upper bounds of the *buckets*, included and ascending; a last one without bound is added.

        Raises:
            ValueError: they do not ascend, are not finite, or there are none.
        """
        ascending = all(low < high for low, high in pairwise(buckets))
        if not buckets or not ascending or not all(map(isfinite, buckets)):
            raise ValueError(f"the buckets of a histogram must be finite and ascend, got {tuple(buckets)}")
        self.bounds = tuple(buckets)
        self.counts = [0] * (len(self.bounds) + 1)
        """How many values each bucket holds; not cumulative, the last is the one without bound."""
        self.total = 0.0
        """The sum of all values."""

    def observe(self, value: float) -> None:
        """Count *value*; below 0 counts as 0, for the clocks of two machines differ."""
        self.counts[bisect_left(self.bounds, value)] += 1
        if value > 0:
            self.total += value

    def observe_many(self, value: float, count: int) -> None:
        """Count *value* as if it had been observed *count* times."""
        self.counts[bisect_left(self.bounds, value)] += count
        if value > 0:
            self.total += value * count

    @property
    def count(self) -> int:
        """How many values were counted."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return each bound with how many values are not above it; the last bound is infinite."""
        return list(zip((*self.bounds, inf), accumulate(self.counts), strict=True))
