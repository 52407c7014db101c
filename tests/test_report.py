"""Reports of workers: nothing is lost on the way, and several add up to one."""

import re

import msgspec
import pytest

from flow.histogram import Histogram
from flow.metrics import FAMILIES, PipelineMetrics, exposition
from flow.prometheus import Numbers, exposed
from flow.report import NOTHING, Figures, ended, figures_of, together

LAG = (0.1, 1.0)


def metrics(received: int, delivered: int = 0, **gauges: float) -> PipelineMetrics:
    made = PipelineMetrics("crm", ["default"])
    account = made.account("q")
    account.received, account.delivered = received, delivered
    made.connected = made.consumer_up["q"] = True
    made.handler_seconds.observe_many(0.3, received)
    made.batch_triggers[next(iter(made.batch_triggers))] = received
    for name, value in gauges.items():
        setattr(made, name, value)
    return made


def lag(*values: float) -> Histogram:
    made = Histogram(LAG)
    for value in values:
        made.observe(value)
    return made


def sent(*pipelines: PipelineMetrics, late: Histogram | None = None) -> Figures:
    """Return the figures of *pipelines* as they arrive."""
    encoded = msgspec.json.encode(figures_of(pipelines, late or lag()))
    return msgspec.json.decode(encoded, type=Figures)


def text(figures: Figures) -> str:
    return flow_lines(exposed(Numbers(FAMILIES, figures.rows, figures.lag[0].histogram()), "")[0])


def flow_lines(body: bytes) -> str:
    return "\n".join(line for line in body.decode().splitlines() if re.match(r"flow_|# \w+ flow_", line))


def value(figures: Figures, sample: str) -> float:
    found = re.search(rf"^{re.escape(sample)} (\S+)$", text(figures), re.MULTILINE)
    assert found, text(figures)
    return float(found[1])


def test_one_worker_shows_what_it_would_show_by_itself() -> None:
    made, late = metrics(7, 5), lag(0.05, 2.0)

    assert text(together([NOTHING, sent(made, late=late)])) == flow_lines(exposition([made], "", late)[0])


def test_counters_and_histograms_are_added() -> None:
    both = together([sent(metrics(7, 5), late=lag(0.5)), sent(metrics(3, 1), late=lag(0.05, 3.0))])

    assert value(both, 'flow_received_total{pipeline="crm",queue="q"}') == 10
    assert value(both, 'flow_settled_total{outcome="delivered",pipeline="crm",queue="q"}') == 6
    assert value(both, 'flow_handler_seconds_bucket{le="0.5",pipeline="crm"}') == 10
    assert value(both, 'flow_handler_seconds_sum{pipeline="crm"}') == pytest.approx(3.0)
    assert value(both, "flow_loop_lag_seconds_count") == 3
    assert value(both, 'flow_loop_lag_seconds_bucket{le="0.1"}') == 1


@pytest.mark.parametrize(
    ("sample", "one", "two", "both"),
    [
        ('flow_connected{pipeline="crm"}', {"connected": False}, {}, 0),
        ('flow_in_progress{pipeline="crm"}', {"in_progress": lambda: 2}, {"in_progress": lambda: 3}, 5),
        ('flow_oldest_seconds{pipeline="crm"}', {"oldest_seconds": lambda: 9.0}, {}, 9),
        (
            'flow_last_success_timestamp_seconds{pipeline="crm"}',
            {"last_success_at": 5.0},
            {"last_success_at": 8.0},
            8,
        ),
        ('flow_ledger_up{pipeline="crm"}', {"ledger_up": False}, {}, 0),
        ('flow_circuit_open{batcher="default",pipeline="crm"}', {"circuit_open": {"default": True}}, {}, 1),
    ],
)
def test_gauges_say_what_is_true_of_both(
    sample: str, one: dict[str, float], two: dict[str, float], both: float
) -> None:
    assert value(together([sent(metrics(1, **one)), sent(metrics(1, **two))]), sample) == both


def test_what_an_ended_worker_had_not_settled_is_stale() -> None:
    last = ended(sent(metrics(7, 5)))

    account = last.accounts()["crm"]
    assert (account.received, account.delivered, account.stale, account.open) == (7, 5, 2, 0)
    assert 'flow_connected{pipeline="crm"}' not in text(last)
    assert 'flow_unsettled{pipeline="crm",queue="q"}' not in text(last)


def test_counters_do_not_fall_when_a_worker_is_replaced() -> None:
    before = [sent(metrics(7, 5)), sent(metrics(3, 3))]
    after = [ended(before[0]), before[1], sent(metrics(0))]

    one, two = text(together(before)), text(together(after))
    assert counters(two).keys() == counters(one).keys()
    assert all(count >= counters(one)[name] for name, count in counters(two).items())


def counters(exposition: str) -> dict[str, float]:
    return {
        name: float(number)
        for name, number in re.findall(
            r"^(\w+(?:_total|_count|_sum|_bucket)(?:{.*})?) (\S+)$", exposition, re.M
        )
    }


def test_the_accounts_of_several_pipelines_stay_apart() -> None:
    mail = PipelineMetrics("mail")
    mail.account("a").received, mail.account("b").received = 1, 2

    accounts = together([sent(metrics(7), mail), sent(metrics(3), mail)]).accounts()

    assert {name: account.received for name, account in accounts.items()} == {"crm": 10, "mail": 6}
