"""The numbers of a pipeline, kept as plain integers and lists, and their form for Prometheus."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from math import inf
from operator import add
from typing import Any, Literal, get_args

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

from flow.account import Account
from flow.batch import Trigger
from flow.histogram import ATTEMPTS, CALLBACK, RECORD, SETTLE, SIZE, Histogram
from flow.outcome import Outcome

Reconnect = Literal["lost", "cancelled", "refused", "configuration"]
"""Why a session ended or could not be opened; cancelled: a consumer was, by the broker."""
Published = Literal["confirmed", "returned", "failed"]
"""What became of a published message."""

OPENMETRICS = "application/openmetrics-text"
LOOP_LAG = "How late timers of the event loop fire; what blocks the loop shows here."


class PipelineMetrics:
    """What one pipeline counts; its stages write here on the loop's thread, a scrape reads there too.

    Each attribute is exposed as `flow_` and its own name; what is named here never holds ids, addresses or
    bodies.
    """

    def __init__(self, pipeline: str, batchers: Sequence[str] = ()) -> None:
        """Start every number at 0 for the named *pipeline* and its *batchers*."""
        self.pipeline = pipeline
        self.accounts: dict[str, Account] = {}
        self.redelivered: dict[str, int] = {}
        self.consumer_up: dict[str, bool] = {}
        self.connected = False
        self.handler_seconds = Histogram(CALLBACK)
        self.handler_errors = 0
        self.batch_seconds = {batcher: Histogram(CALLBACK) for batcher in batchers}
        self.batch_size = {batcher: Histogram(SIZE) for batcher in batchers}
        self.batch_wait_seconds = {batcher: Histogram(CALLBACK) for batcher in batchers}
        self.batch_triggers = {(batcher, trigger): 0 for batcher in batchers for trigger in Trigger}
        self.batch_errors = 0
        self.circuit_open = dict.fromkeys(batchers, False)
        self.settle_seconds = Histogram(SETTLE)
        """From receiving a message to settling it."""
        self.record_seconds = Histogram(RECORD)
        """From the record's own time to settling the message about it."""
        self.attempts = Histogram(ATTEMPTS)
        """Which attempt a settled message was on."""
        self.reconnects: dict[Reconnect, int] = dict.fromkeys(get_args(Reconnect), 0)
        self.published: dict[Published, int] = dict.fromkeys(get_args(Published), 0)
        self.stale_settles = 0
        self.duplicates_skipped = 0
        """Copies that were settled without working again."""
        self.retry_early = 0
        self.ledger_up = True
        self.ledger_write_seconds = Histogram(CALLBACK)
        self.ledger_refused = 0
        self.rate_limit_wait_seconds_total = 0.0
        self.last_success_at = 0.0  # unix seconds
        self.in_progress: Callable[[], int] = int
        self.buffered: Callable[[], Mapping[str, int]] = dict
        """How many messages wait in each stage."""
        self.oldest_seconds: Callable[[], float] = float
        self.unsettled: Callable[[], Mapping[str, int]] = self._still_open
        """How many deliveries of each queue are unsettled."""

    def account(self, queue: str) -> Account:
        """Return the account of *queue*; from the first time on, its counters show, at 0."""
        if queue not in self.accounts:
            self.accounts[queue] = Account()
            self.redelivered[queue] = 0
            self.consumer_up[queue] = False
        return self.accounts[queue]

    def _still_open(self) -> Mapping[str, int]:
        return {queue: account.open for queue, account in self.accounts.items()}


Rows = Iterable[tuple[tuple[str, ...], Any]]
"""The values of the labels after `pipeline`, and a number or a histogram."""


def single(metrics: PipelineMetrics, name: str) -> Rows:
    """Read an attribute that is the number."""
    return (((), getattr(metrics, name)),)


def keyed(metrics: PipelineMetrics, name: str) -> Rows:
    """Read an attribute that maps the label to the number."""
    return (((key,), value) for key, value in getattr(metrics, name).items())


def asked(metrics: PipelineMetrics, name: str) -> Rows:
    """Read an attribute that is called for the number."""
    return (((), getattr(metrics, name)()),)


def asked_keyed(metrics: PipelineMetrics, name: str) -> Rows:
    """Read an attribute that is called for what maps the label to the number."""
    return (((key,), value) for key, value in getattr(metrics, name)().items())


def accounts(metrics: PipelineMetrics, name: str) -> Rows:
    """Read a number of every queue's account."""
    return (((queue,), getattr(account, name)) for queue, account in metrics.accounts.items())


def outcomes(metrics: PipelineMetrics, name: str) -> Rows:
    """Read the four outcomes of every queue's account."""
    for outcome in Outcome:
        for queue, account in metrics.accounts.items():
            yield (queue, outcome.value), getattr(account, outcome.value)


def triggers(metrics: PipelineMetrics, name: str) -> Rows:
    """Read the closed batches by batcher and trigger."""
    return (((batcher, trigger.value), n) for (batcher, trigger), n in metrics.batch_triggers.items())


@dataclass(frozen=True, slots=True)
class Family:
    """One metric: its name without prefix, its help text, its labels after `pipeline`, how it is read."""

    name: str
    text: str
    read: Callable[[PipelineMetrics, str], Rows]
    labels: tuple[str, ...] = ()
    attribute: str = ""
    """What is read; "" is the attribute of the metric's own name."""
    together: Callable[[float, float], float] = add
    """How the numbers of two workers become one."""


COUNTERS = (
    Family("received", "Deliveries received, those that came again included.", accounts, ("queue",)),
    Family("redelivered", "Deliveries received that came again.", keyed, ("queue",)),
    Family("settled", "Deliveries settled, by the outcome of the message.", outcomes, ("queue", "outcome")),
    Family("returned", "Deliveries given back unfinished at a drain.", accounts, ("queue",)),
    Family("stale", "Deliveries lost with their session; they come again.", accounts, ("queue",)),
    Family("stale_settles", "Deliveries decided after their session had ended.", single),
    Family(
        "duplicates_skipped",
        "Copies settled without working again, by what is remembered, recorded or claimed.",
        single,
    ),
    Family("retry_early", "Messages retried sooner than asked, as too many were held.", single),
    Family("ledger_refused", "Rows that the ledger does not take.", single),
    Family("handler_errors", "Calls of handle_message that failed, verdicts aside.", single),
    Family("batch_errors", "Calls of handle_batch that failed, verdicts aside.", single),
    Family("batch_triggers", "Batches closed, by what closed them.", triggers, ("batcher", "trigger")),
    Family("rate_limit_wait_seconds_total", "Time that deliveries waited for the rate limit.", single),
    Family("reconnects", "Sessions replaced, and attempts to open one that failed.", keyed, ("reason",)),
    Family("published", "Messages published, by what the broker made of them.", keyed, ("outcome",)),
)
GAUGES = (
    Family("connected", "Whether the pipeline has a session with the broker (1 or 0).", single, together=min),
    Family("ledger_up", "Whether the ledger works, if there is one (1 or 0).", single, together=min),
    Family("consumer_up", "Whether the queue is being consumed (1 or 0).", keyed, ("queue",), together=min),
    Family(
        "circuit_open",
        "Whether work waits for an unavailable target (1 or 0).",
        keyed,
        ("batcher",),
        together=max,
    ),
    Family("in_progress", "Callbacks running now.", asked),
    Family("buffered", "Messages waiting, by stage.", asked_keyed, ("stage",)),
    Family("unsettled", "Deliveries received and not settled yet.", asked_keyed, ("queue",)),
    Family("oldest_seconds", "Age of the oldest unsettled delivery, or 0.", asked, together=max),
    Family(
        "last_success_timestamp_seconds",
        "When a message was last delivered, in unix time; 0 before the first.",
        single,
        attribute="last_success_at",
        together=max,
    ),
)
HISTOGRAMS = (
    Family("handler_seconds", "Duration of handle_message.", single),
    Family("batch_seconds", "Duration of handle_batch.", keyed, ("batcher",)),
    Family("batch_size", "Messages in a batch.", keyed, ("batcher",)),
    Family("batch_wait_seconds", "Age of a batch when its delivery starts.", keyed, ("batcher",)),
    Family("ledger_write_seconds", "Duration of one write into the ledger.", single),
    Family("settle_seconds", "Time from receiving a message to settling it.", single),
    Family("record_seconds", "Time from the record's own time to settling the message.", single),
    Family("attempts", "Which attempt a settled message was on, from 1.", single),
)


def exposition(
    pipelines: Sequence[PipelineMetrics], accept: str = "", loop_lag: Histogram | None = None
) -> tuple[bytes, str]:
    """Return the numbers of *pipelines* and of this process, and their content type.

    The format is OpenMetrics when the *accept* header names it, else Prometheus text. Run it on the loop's
    thread: nothing is awaited, so the numbers fit each other.
    """
    return exposed(Numbers(reading(pipelines), loop_lag), accept)


def reading(pipelines: Sequence[PipelineMetrics]) -> Callable[[Family], Rows]:
    """Return what reads a metric of all *pipelines*, with their names as the first label."""

    def rows(family: Family) -> Rows:
        for metrics in pipelines:
            for values, number in family.read(metrics, family.attribute or family.name):
                yield (metrics.pipeline, *values), number

    return rows


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
    """Reads what pipelines counted at the moment of a scrape, so that counting costs nothing but adding."""

    def __init__(
        self, rows: Callable[[Family], Rows], loop_lag: Histogram | None, more: Iterable[Metric] = ()
    ) -> None:
        """Read metrics by *rows*, and *loop_lag* (seconds) if there is one; *more* come after them."""
        self._rows = rows
        self.loop_lag = loop_lag
        self.more = more

    def collect(self) -> Iterator[Metric]:
        """Make every metric anew."""
        yield InfoMetricFamily("flow_build", "The version of flow that runs.", {"version": installed()})
        for family in COUNTERS:
            yield self._filled(family, CounterMetricFamily)
        for family in GAUGES:
            yield self._filled(family, GaugeMetricFamily)
        for family in HISTOGRAMS:
            yield self._spread(family)
        if self.loop_lag is not None:
            lag = HistogramMetricFamily("flow_loop_lag_seconds", LOOP_LAG, labels=(), unit="seconds")
            lag.add_metric((), buckets(self.loop_lag), self.loop_lag.total)
            yield lag
        yield from self.more

    def _filled(self, family: Family, kind: type[CounterMetricFamily | GaugeMetricFamily]) -> Metric:
        metric = kind(
            f"flow_{family.name}", family.text, labels=("pipeline", *family.labels), unit=unit(family)
        )
        for labels, number in self._rows(family):
            metric.add_metric(labels, number)
        return metric

    def _spread(self, family: Family) -> Metric:
        labels = ("pipeline", *family.labels)
        metric = HistogramMetricFamily(f"flow_{family.name}", family.text, labels=labels, unit=unit(family))
        for values, histogram in self._rows(family):
            metric.add_metric(values, buckets(histogram), histogram.total)
        return metric


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
