"""Metrics in the form of Prometheus, read when somebody scrapes: counting costs nothing but adding."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from operator import add
from typing import Any

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from flow.histogram import Histogram

OPENMETRICS = "application/openmetrics-text"
LOOP_LAG = "How late timers of the event loop fire; what blocks the loop shows here."

Rows = Iterable[tuple[tuple[str, ...], Any]]
"""The values of the labels after the common ones, and a number or a histogram."""


def single(metrics: Any, name: str) -> Rows:
    """Read an attribute that is the number."""
    return (((), getattr(metrics, name)),)


def keyed(metrics: Any, name: str) -> Rows:
    """Read an attribute that maps the label, or all of several, to the number."""
    return ((key if isinstance(key, tuple) else (key,), n) for key, n in getattr(metrics, name).items())


def asked(metrics: Any, name: str) -> Rows:
    """Read an attribute that is called for the number."""
    return (((), getattr(metrics, name)()),)


def asked_keyed(metrics: Any, name: str) -> Rows:
    """Read an attribute that is called for what maps the label to the number."""
    return (((key,), value) for key, value in getattr(metrics, name)().items())


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name without prefix, its help, its labels after the common ones, how it is read."""

    name: str
    text: str
    read: Callable[[Any, str], Rows]
    labels: tuple[str, ...] = ()
    attribute: str = ""
    """What is read; "" is the attribute of the metric's own name."""
    together: Callable[[float, float], float] = add
    """How the numbers of two workers become one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Families:
    """All metrics of one kind of process."""

    counters: Sequence[Family]
    gauges: Sequence[Family]
    histograms: Sequence[Family]
    labels: tuple[str, ...] = ()
    """The labels that all of them have first."""

    def __iter__(self) -> Iterator[Family]:
        yield from (*self.counters, *self.gauges, *self.histograms)


def exposed(numbers: Collector, accept: str) -> tuple[bytes, str]:
    """Return *numbers* and those of this process in the format that the *accept* header asks for."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(numbers)
    # Versions and escapings that a client may wish for change nothing about names like ours.
    encode, content_type = choose_encoder(OPENMETRICS if OPENMETRICS in accept else "")
    return encode(registry), content_type


class Numbers(Collector):
    """Reads all metrics of a process at the moment of a scrape."""

    def __init__(
        self,
        families: Families,
        rows: Callable[[Family], Rows],
        loop_lag: Histogram | None,
        more: Iterable[Metric] = (),
    ) -> None:
        """Read *families* by *rows*, and *loop_lag* (seconds) if there is one; *more* come after them."""
        self._families = families
        self._rows = rows
        self.loop_lag = loop_lag
        self.more = more

    def collect(self) -> Iterator[Metric]:
        """Make every metric anew."""
        yield InfoMetricFamily("flow_build", "The version of flow that runs.", {"version": installed()})
        for family in self._families.counters:
            yield self._filled(family, CounterMetricFamily)
        for family in self._families.gauges:
            yield self._filled(family, GaugeMetricFamily)
        for family in self._families.histograms:
            yield self._spread(family)
        if self.loop_lag is not None:
            lag = HistogramMetricFamily("flow_loop_lag_seconds", LOOP_LAG, labels=(), unit="seconds")
            lag.add_metric((), buckets(self.loop_lag), self.loop_lag.total)
            yield lag
        yield from self.more

    def _filled(self, family: Family, kind: type[CounterMetricFamily | GaugeMetricFamily]) -> Metric:
        metric = kind(f"flow_{family.name}", family.text, labels=self._labels(family), unit=unit(family))
        for values, number in self._rows(family):
            metric.add_metric(values, number)
        return metric

    def _spread(self, family: Family) -> Metric:
        labels = self._labels(family)
        metric = HistogramMetricFamily(f"flow_{family.name}", family.text, labels=labels, unit=unit(family))
        for values, histogram in self._rows(family):
            metric.add_metric(values, buckets(histogram), histogram.total)
        return metric

    def _labels(self, family: Family) -> tuple[str, ...]:
        return (*self._families.labels, *family.labels)


def of_workers(running: int, restarts: int) -> Iterator[Metric]:
    """Make the metrics that a supervisor has beside those of its workers."""
    yield GaugeMetricFamily("flow_workers", "Workers that run.", running)
    yield CounterMetricFamily("flow_worker_restarts", "Workers that ended and were started again.", restarts)


def buckets(histogram: Histogram) -> list[tuple[str, float]]:
    """Return the cumulative counts under the names that Prometheus gives to bounds."""
    return [("+Inf" if bound == inf else str(bound), count) for bound, count in histogram.cumulative()]


def unit(family: Family) -> str:
    """Return the unit that the name ends with, or ""."""
    return "seconds" if family.name.removesuffix("_total").endswith("_seconds") else ""


def installed() -> str:
    """Return the installed version of flow, or "unknown" when it runs from a bare folder."""
    try:
        return version("proca-flow")
    except PackageNotFoundError:
        return "unknown"
