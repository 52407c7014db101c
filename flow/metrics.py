"""The numbers of a pipeline, kept as plain integers and lists, and how each is read at a scrape."""

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, get_args

from flow.account import Account
from flow.batch import Trigger
from flow.histogram import ATTEMPTS, CALLBACK, RECORD, SETTLE, SIZE, Histogram
from flow.outcome import Outcome
from flow.prometheus import (
    Families,
    Family,
    Numbers,
    Rows,
    asked,
    asked_keyed,
    exposed,
    keyed,
    single,
)

Reconnect = Literal["lost", "cancelled", "refused", "configuration"]
"""Why a session ended or could not be opened; cancelled: a consumer was, by the broker."""
Published = Literal["confirmed", "returned", "failed"]
"""What became of a published message."""


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


COUNTERS = (
    Family("received", "Deliveries received, those that came again included.", accounts, ("queue",)),
    Family("redelivered", "Deliveries received that came again.", keyed, ("queue",)),
    Family("settled", "Deliveries settled, by the outcome of the message.", outcomes, ("queue", "outcome")),
    Family(
        "returned",
        "Deliveries given back unfinished, at a drain or as their target is down.",
        accounts,
        ("queue",),
    ),
    Family("stale", "Deliveries lost with their session; they come again.", accounts, ("queue",)),
    Family("stale_settles", "Deliveries decided after their session had ended.", single),
    Family(
        "duplicates_skipped",
        "Copies settled without working again, by what is remembered, recorded or claimed.",
        single,
    ),
    Family("retry_early", "Messages retried sooner than asked, as too many were held.", single),
    Family("ledger_refused", "Rows that the ledger does not take.", single),
    Family(
        "handler_errors", "Calls of handle_message or prepare_messages that failed, verdicts aside.", single
    ),
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
FAMILIES = Families(counters=COUNTERS, gauges=GAUGES, histograms=HISTOGRAMS, labels=("pipeline",))


def exposition(
    pipelines: Sequence[PipelineMetrics], accept: str = "", loop_lag: Histogram | None = None
) -> tuple[bytes, str]:
    """Return the numbers of *pipelines* and of this process, and their content type.

    The format is OpenMetrics when the *accept* header names it, else Prometheus text. Run it on the loop's
    thread: nothing is awaited, so the numbers fit each other.
    """
    return exposed(Numbers(FAMILIES, reading(pipelines), loop_lag), accept)


def reading(pipelines: Sequence[PipelineMetrics]) -> Callable[[Family], Rows]:
    """Return what reads a metric of all *pipelines*, with their names as the first label."""

    def rows(family: Family) -> Rows:
        for metrics in pipelines:
            for values, number in family.read(metrics, family.attribute or family.name):
                yield (metrics.pipeline, *values), number

    return rows
