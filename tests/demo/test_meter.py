"""Figures while it runs: rates are of the last second, and read from what flow counts."""

from flow.batch import Trigger
from flow.demo.meter import Figure, Meter, batch_note, figures_of
from flow.metrics import PipelineMetrics


class Watch:
    """A clock that is turned, and a total that grows."""

    def __init__(self) -> None:
        self.now = 100.0
        self.total = 0
        self.meter = Meter(
            lambda: [Figure("delivered", None, self.total, main=True), Figure("in acme.crm", 3)],
            lambda: ("consuming", True),
            lambda: ["a note"],
            clock=lambda: self.now,
        )

    def turn(self, seconds: float, more: int) -> float | None:
        self.now += seconds
        self.total += more
        return self.meter.read().rows[0].rate


def test_rates_are_of_the_last_second() -> None:
    watch = Watch()

    rates = [
        watch.turn(0.0, 0),
        watch.turn(0.5, 50),
        watch.turn(0.5, 150),
        watch.turn(1.0, 0),
        watch.turn(1.0, 0),
    ]

    assert rates == [0.0, 100.0, 200.0, 0.0, 0.0]


def test_a_reading_tells_the_time_and_what_it_was_told() -> None:
    watch = Watch()
    watch.turn(2.5, 10)

    reading = watch.meter.read()

    assert (reading.seconds, reading.state, reading.well, reading.notes) == (
        2.5,
        "consuming",
        True,
        ["a note"],
    )
    assert (reading.rows[1].figure.now, reading.rows[1].rate) == (3, None)


def test_a_trend_has_a_point_for_each_half_second() -> None:
    watch = Watch()
    for _ in range(8):
        watch.turn(0.25, 10)

    assert watch.meter.read().rows[0].trend == (40.0, 40.0, 40.0, 40.0)


def test_figures_are_those_of_flow_and_the_broker() -> None:
    metrics = PipelineMetrics("crm", ["default"])
    account = metrics.account("acme.crm")
    account.received, account.delivered, account.skipped, account.retrying, account.parked = 9, 4, 3, 2, 1
    metrics.buffered = lambda: {"processor": 5, "held": 1, "parker": 0, "batcher default": 6}
    ready = {"acme.crm": 7, "system.retry": 8, "system.dead": 1}

    found = figures_of(metrics, 16, ready, "acme.crm", "the CRM")

    assert [(one.name, one.now, one.total) for one in found] == [
        ("published", None, 16),
        ("in acme.crm", 7, None),
        ("received", 5, 9),
        ("in open batches", 6, None),
        ("delivered to the CRM", None, 4),
        ("skipped", None, 3),
        ("retried", 9, 2),
        ("parked", 1, 1),
    ]


def test_batches_are_told_in_one_line() -> None:
    metrics = PipelineMetrics("crm", ["default"])
    assert batch_note(metrics) == "batches: none closed yet; 0.0 messages, 0 ms each"

    metrics.batch_triggers["default", Trigger.SIZE] = 2
    metrics.batch_triggers["default", Trigger.TIMEOUT] = 1
    metrics.batch_size["default"].observe_many(100, 2)
    metrics.batch_size["default"].observe(40)
    metrics.batch_seconds["default"].observe_many(0.02, 3)

    assert batch_note(metrics) == "batches: 2 by size, 1 by timeout; 80.0 messages, 20 ms each"
