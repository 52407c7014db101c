"""What a worker reports to its supervisor, and how the figures of several workers become one."""

from collections.abc import Iterable, Sequence

import msgspec

from flow.account import Account
from flow.histogram import Histogram
from flow.metrics import COUNTERS, GAUGES, HISTOGRAMS, PipelineMetrics, reading
from flow.prometheus import Family, Rows

Labels = tuple[str, ...]


class Spread(msgspec.Struct, frozen=True, array_like=True):
    """A histogram on its way."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float

    def histogram(self) -> Histogram:
        """Return it as a histogram."""
        made = Histogram(self.bounds)
        made.counts[:] = self.counts
        made.total = self.total
        return made

    def plus(self, other: "Spread") -> "Spread":
        """Return both together; their bounds are the same."""
        counts = tuple(one + two for one, two in zip(self.counts, other.counts, strict=True))
        return Spread(self.bounds, counts, self.total + other.total)


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """Every metric by its name; the first label is the pipeline."""

    numbers: dict[str, list[tuple[Labels, float]]]
    spreads: dict[str, list[tuple[Labels, Spread]]]
    lag: list[Spread]
    """The one of the event loop, if there is one."""

    def rows(self, family: Family) -> Rows:
        """Return the rows of one metric."""
        if family in HISTOGRAMS:
            return ((labels, spread.histogram()) for labels, spread in self.spreads.get(family.name, ()))
        return self.numbers.get(family.name, ())

    def accounts(self) -> dict[str, Account]:
        """Return the account of each pipeline."""
        found: dict[str, Account] = {}
        for (pipeline, _), account in by_queue(self).items():
            found.setdefault(pipeline, Account()).add(account)
        return found


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One report of a worker."""

    live: str | None
    """Why it should be restarted."""
    ready: str | None
    """Why not all of its pipelines consume."""
    pipelines: dict[str, bool]
    """Whether each consumes."""
    figures: Figures


NOTHING = Figures(numbers={}, spreads={}, lag=[])


def figures_of(pipelines: Sequence[PipelineMetrics], lag: Histogram) -> Figures:
    """Return what *pipelines* counted so far, and how late the event loop was."""
    rows = reading(pipelines)
    return Figures(
        numbers={one.name: [(key, float(n)) for key, n in rows(one)] for one in (*COUNTERS, *GAUGES)},
        spreads={
            one.name: [(key, spread_of(histogram)) for key, histogram in rows(one)] for one in HISTOGRAMS
        },
        lag=[spread_of(lag)],
    )


def spread_of(histogram: Histogram) -> Spread:
    """Return *histogram* as it stands."""
    return Spread(histogram.bounds, tuple(histogram.counts), histogram.total)


def together(figures: Iterable[Figures]) -> Figures:
    """Return the figures of several workers as those of one."""
    numbers: dict[str, dict[Labels, float]] = {one.name: {} for one in (*COUNTERS, *GAUGES)}
    spreads: dict[str, dict[Labels, Spread]] = {one.name: {} for one in HISTOGRAMS}
    lag: list[Spread] = []
    for one in figures:
        for family in (*COUNTERS, *GAUGES):
            into = numbers[family.name]
            for labels, number in one.numbers.get(family.name, ()):
                into[labels] = family.together(into[labels], number) if labels in into else number
        for family in HISTOGRAMS:
            sums = spreads[family.name]
            for labels, spread in one.spreads.get(family.name, ()):
                sums[labels] = sums[labels].plus(spread) if labels in sums else spread
        lag = [lag[0].plus(one.lag[0])] if lag and one.lag else lag or one.lag
    return Figures(
        numbers={name: list(rows.items()) for name, rows in numbers.items()},
        spreads={name: list(rows.items()) for name, rows in spreads.items()},
        lag=lag,
    )


def ended(figures: Figures) -> Figures:
    """Return what stays of the last *figures* of a worker that has ended.

    What it had not settled is stale: the broker delivers it again, to others.
    """
    kept = {one.name: figures.numbers.get(one.name, []) for one in COUNTERS}
    kept["stale"] = [(key, float(one.stale + one.open)) for key, one in by_queue(figures).items()]
    return Figures(numbers=kept, spreads=figures.spreads, lag=figures.lag)


def by_queue(figures: Figures) -> dict[tuple[str, str], Account]:
    """Return the account of each pipeline and queue."""
    accounts: dict[tuple[str, str], Account] = {}
    for name in ("received", "returned", "stale"):
        for (pipeline, queue), number in figures.numbers.get(name, ()):
            setattr(accounts.setdefault((pipeline, queue), Account()), name, int(number))
    for (pipeline, queue, outcome), number in figures.numbers.get("settled", ()):
        setattr(accounts.setdefault((pipeline, queue), Account()), outcome, int(number))
    return accounts
