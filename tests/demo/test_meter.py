"""Figures while it runs: rates are of the last second, and read from what flow counts."""

from flow.demo.meter import Figure, Meter


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
