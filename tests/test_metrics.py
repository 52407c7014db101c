"""The exposition: complete from the start, consistent, and named as `promtool check metrics` asks."""

import re
import shutil
import subprocess
from collections import defaultdict
from dataclasses import dataclass, field

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from flow.batch import Trigger
from flow.histogram import Histogram
from flow.metrics import PipelineMetrics, exposition

ACCEPT_OF_PROMETHEUS = (
    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.4,*/*;q=0.1"
)
LABELS = {"pipeline", "queue", "outcome", "batcher", "stage", "trigger", "reason"}
CALLED = {"account", "pipeline"}  # public attributes that are no numbers


def crm() -> PipelineMetrics:
    metrics = PipelineMetrics("crm", ["thank_you", "confirm"])
    metrics.account("wrk.1.crm")
    metrics.buffered = lambda: {"process": 0, "batch": 0}
    return metrics


def text(*pipelines: PipelineMetrics) -> str:
    return exposition(pipelines, loop_lag=Histogram((0.1, 1.0)))[0].decode()


def samples(*pipelines: PipelineMetrics) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Return the values by name of the series and sorted labels; a series twice is a failure."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = defaultdict(dict)
    for family in parse_text(text(*pipelines)):
        for sample in family.samples:
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in found[sample.name], f"{sample.name}{labels} appears twice"
            found[sample.name][labels] = sample.value
    return found


def value(found: dict[str, dict[tuple[tuple[str, str], ...], float]], name: str, **labels: str) -> float:
    return found[name][tuple(sorted({"pipeline": "crm", **labels}.items()))]


@dataclass
class Family:
    """One metric as the text says it."""

    name: str
    kind: str = "untyped"
    text: str = ""
    labels: set[str] = field(default_factory=set)


def families(exposed: str) -> list[Family]:
    """Read names, types, help and labels out of the text format, as they stand."""
    found: dict[str, Family] = {}
    for line in exposed.splitlines():
        if line.startswith("# HELP "):
            name, _, words = line[len("# HELP ") :].partition(" ")
            found.setdefault(name, Family(name)).text = words
        elif line.startswith("# TYPE "):
            name, _, kind = line[len("# TYPE ") :].partition(" ")
            found.setdefault(name, Family(name)).kind = kind
        elif line and not line.startswith("#"):
            name = re.split(r"[{ ]", line, maxsplit=1)[0]
            base = re.sub(r"_(bucket|sum|count)$", "", name)
            family = found.get(base if found.get(base, Family("")).kind == "histogram" else name)
            family = family or found.setdefault(name, Family(name))
            labels = set(re.findall(r'(\w+)="', line))
            family.labels |= labels - {"le"} if family.kind == "histogram" else labels
    return list(found.values())


UNITS = r"(minute|hour|day|week|bit|inch|mile|yard|pound|ounce|calorie|fahrenheit|rankine|kelvin)"
PREFIXES = r"(pico|nano|micro|milli|centi|deci|deca|hecto|kilo|kibi|mega|mibi|giga|gibi|tera|tebi|peta|pebi)"
RULES = {
    # promlint's rules, github.com/prometheus/client_golang/tree/main/prometheus/testutil/promlint
    "no help text": lambda f: not f.text.strip(),
    "counters end with _total": lambda f: f.kind == "counter" and not f.name.endswith("_total"),
    "only counters end with _total": lambda f: (
        f.kind not in ("counter", "untyped") and f.name.endswith("_total")
    ),
    "not a base unit": lambda f: any(
        re.fullmatch(rf"{UNITS}e?s|{PREFIXES}(seconds|bytes|meters|metres|grams|volts|joules|amperes)", word)
        for word in f.name.split("_")
    ),
    "abbreviated unit": lambda f: re.search(r"_(s|ms|us|ns|sec|b|kb|mb|gb|tb|pb|m|h|d)(_|$)", f.name),
    "type in the name": lambda f: re.search(
        r"_(counter|gauge|summary|histogram|gauge_histogram)(_|$)", f.name
    ),
    "colon in the name": lambda f: ":" in f.name,
    "camelCase": lambda f: any(re.search(r"[a-z][A-Z]", name) for name in (f.name, *f.labels)),
    "suffix of a histogram": lambda f: f.kind != "histogram" and re.search(r"_(bucket|count|sum)$", f.name),
    "label of a histogram": lambda f: f.labels & {"le", "quantile"},
    "no type": lambda f: f.kind == "untyped",
    "reserved label": lambda f: any(label.startswith("__") for label in f.labels),
}


def lint(exposed: str) -> list[str]:
    return [f"{f.name}: {rule}" for f in families(exposed) for rule, broken in RULES.items() if broken(f)]


def test_names_types_and_help_pass_the_lint_of_prometheus() -> None:
    assert lint(text(crm())) == []


def head(name: str, kind: str) -> str:
    return f"# HELP {name} Help.\n# TYPE {name} {kind}\n"


@pytest.mark.parametrize(
    ("exposed", "problem"),
    [
        ("# TYPE flow_x gauge\nflow_x 1\n", "flow_x: no help text"),
        ("# HELP flow_x Help.\nflow_x 1\n", "flow_x: no type"),
        (head("flow_x", "counter") + "flow_x 1\n", "flow_x: counters end with _total"),
        (head("flow_x_total", "gauge") + "flow_x_total 1\n", "flow_x_total: only counters end with _total"),
        (head("flow_milliseconds", "gauge"), "flow_milliseconds: not a base unit"),
        (head("flow_wait_hours", "gauge"), "flow_wait_hours: not a base unit"),
        (head("flow_wait_ms", "gauge"), "flow_wait_ms: abbreviated unit"),
        (head("flow_gauge_x", "gauge"), "flow_gauge_x: type in the name"),
        (head("flow:x", "gauge"), "flow:x: colon in the name"),
        (head("flow_openBatches", "gauge"), "flow_openBatches: camelCase"),
        (head("flow_x", "gauge") + 'flow_x{queueName="a"} 1\n', "flow_x: camelCase"),
        (head("flow_x_count", "gauge"), "flow_x_count: suffix of a histogram"),
        (head("flow_x", "gauge") + 'flow_x{le="1"} 1\n', "flow_x: label of a histogram"),
        (head("flow_x", "gauge") + 'flow_x{__name="1"} 1\n', "flow_x: reserved label"),
    ],
)
def test_the_lint_finds_what_it_is_there_for(exposed: str, problem: str) -> None:
    assert lint(exposed) == [problem]


def test_promtool_has_nothing_to_say() -> None:
    """Where it is installed; its rules as written above have the say elsewhere."""
    if shutil.which("promtool") is None:
        assert lint(text(crm())) == []
        return

    result = subprocess.run(
        ["promtool", "check", "metrics"],
        input=text(crm()),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")


def test_labels_are_the_agreed_ones() -> None:
    for family in families(text(crm())):
        if family.name.startswith("flow_") and family.name not in (
            "flow_build_info",
            "flow_loop_lag_seconds",
        ):
            assert "pipeline" in family.labels, family.name
            assert family.labels <= LABELS, family.name


def test_everything_that_stages_count_is_exposed() -> None:
    exposed = {family.name for family in families(text(crm()))}
    counted = (
        {name for name in vars(crm()) if not name.startswith("_")} - CALLED - {"accounts", "last_success_at"}
    )

    for name in counted:
        assert exposed & {f"flow_{name}", f"flow_{name}_total"}, f"{name} is counted and not exposed"
    assert {"flow_received_total", "flow_settled_total", "flow_last_success_timestamp_seconds"} <= exposed


def test_counters_start_at_zero_for_known_queues_outcomes_and_batchers() -> None:
    found = samples(crm())

    for outcome in ("delivered", "skipped", "retrying", "parked"):
        assert value(found, "flow_settled_total", queue="wrk.1.crm", outcome=outcome) == 0
    for name in ("flow_received_total", "flow_redelivered_total", "flow_returned_total", "flow_stale_total"):
        assert value(found, name, queue="wrk.1.crm") == 0
    for reason in ("lost", "cancelled", "refused", "configuration"):
        assert value(found, "flow_reconnects_total", reason=reason) == 0
    for outcome in ("confirmed", "returned", "failed"):
        assert value(found, "flow_published_total", outcome=outcome) == 0
    for batcher in ("thank_you", "confirm"):
        assert value(found, "flow_circuit_open", batcher=batcher) == 0
        assert value(found, "flow_batch_size_count", batcher=batcher) == 0
        for trigger in Trigger:
            assert value(found, "flow_batch_triggers_total", batcher=batcher, trigger=trigger.value) == 0


def test_every_number_arrives_under_its_name() -> None:
    metrics = crm()
    metrics.stale_settles, metrics.duplicates_skipped, metrics.retry_early = 1, 2, 3
    metrics.handler_errors, metrics.batch_errors = 4, 5
    metrics.rate_limit_wait_seconds_total, metrics.last_success_at = 6.5, 1760000000.0
    metrics.connected = metrics.consumer_up["wrk.1.crm"] = metrics.circuit_open["confirm"] = True
    metrics.redelivered["wrk.1.crm"] = 7
    metrics.reconnects["lost"], metrics.published["confirmed"] = 8, 9
    metrics.batch_triggers["confirm", Trigger.STARVED] = 10
    metrics.handler_seconds.observe(0.003)
    metrics.record_seconds.observe_many(90000.0, 2)

    found = samples(metrics)

    assert value(found, "flow_stale_settles_total") == 1
    assert value(found, "flow_duplicates_skipped_total") == 2
    assert value(found, "flow_retry_early_total") == 3
    assert value(found, "flow_handler_errors_total") == 4
    assert value(found, "flow_batch_errors_total") == 5
    assert value(found, "flow_rate_limit_wait_seconds_total") == 6.5
    assert value(found, "flow_last_success_timestamp_seconds") == 1760000000.0
    assert value(found, "flow_connected") == 1
    assert value(found, "flow_consumer_up", queue="wrk.1.crm") == 1
    assert value(found, "flow_circuit_open", batcher="confirm") == 1
    assert value(found, "flow_circuit_open", batcher="thank_you") == 0
    assert value(found, "flow_redelivered_total", queue="wrk.1.crm") == 7
    assert value(found, "flow_reconnects_total", reason="lost") == 8
    assert value(found, "flow_published_total", outcome="confirmed") == 9
    assert value(found, "flow_batch_triggers_total", batcher="confirm", trigger="starved") == 10
    assert value(found, "flow_handler_seconds_bucket", le="0.0025") == 0
    assert value(found, "flow_handler_seconds_bucket", le="0.005") == 1
    assert value(found, "flow_handler_seconds_bucket", le="+Inf") == 1
    assert value(found, "flow_handler_seconds_sum") == 0.003
    assert value(found, "flow_record_seconds_count") == 2
    assert value(found, "flow_record_seconds_sum") == 180000.0


def test_counters_are_consistent() -> None:
    """M07: received = delivered + skipped + retrying + parked, and nothing is unsettled at the end."""
    metrics = crm()
    account = metrics.account("wrk.1.crm")
    account.received = 100
    account.delivered, account.skipped, account.retrying = 60, 5, 7

    half_way = samples(metrics)
    account.delivered, account.parked = 85, 3
    at_the_end = samples(metrics)

    assert value(half_way, "flow_unsettled", queue="wrk.1.crm") == 28
    assert value(at_the_end, "flow_unsettled", queue="wrk.1.crm") == 0
    settled = at_the_end["flow_settled_total"]
    assert sum(settled.values()) == value(at_the_end, "flow_received_total", queue="wrk.1.crm") == 100
    assert {dict(labels)["outcome"]: count for labels, count in settled.items()} == {
        "delivered": 85,
        "skipped": 5,
        "retrying": 7,
        "parked": 3,
    }


def test_depth_and_age_are_asked_for_at_the_scrape() -> None:
    """M08: gauges of what waits in each stage, what runs, what is unsettled, and how old the oldest is."""
    metrics, now = crm(), {"waiting": 3}
    metrics.in_progress = lambda: 2
    metrics.buffered = lambda: {"process": now["waiting"], "batch": 40}
    metrics.oldest_seconds = lambda: 12.5
    metrics.unsettled = lambda: {"wrk.1.crm": 45}

    first = samples(metrics)
    now["waiting"] = 0
    second = samples(metrics)

    assert value(first, "flow_in_progress") == 2
    assert value(first, "flow_buffered", stage="process") == 3
    assert value(first, "flow_buffered", stage="batch") == 40
    assert value(first, "flow_oldest_seconds") == 12.5
    assert value(first, "flow_unsettled", queue="wrk.1.crm") == 45
    assert value(second, "flow_buffered", stage="process") == 0


def test_two_pipelines_share_each_metric_without_mixing() -> None:
    other = PipelineMetrics("sqs")
    other.account("wrk.1.sqs").received = 4
    other.handler_errors = 1

    found = samples(crm(), other)

    assert value(found, "flow_received_total", pipeline="sqs", queue="wrk.1.sqs") == 4
    assert value(found, "flow_received_total", pipeline="crm", queue="wrk.1.crm") == 0
    assert value(found, "flow_handler_errors_total", pipeline="sqs") == 1
    assert value(found, "flow_handler_errors_total", pipeline="crm") == 0


def test_an_account_is_made_once() -> None:
    metrics = PipelineMetrics("crm")

    metrics.account("wrk.1.crm").received = 5
    metrics.redelivered["wrk.1.crm"] = 2

    assert metrics.account("wrk.1.crm").received == 5
    assert metrics.redelivered == {"wrk.1.crm": 2}


def test_names_of_queues_are_escaped() -> None:
    metrics = PipelineMetrics("crm")
    metrics.account('a"b\\c\nd').received = 1

    assert value(samples(metrics), "flow_received_total", queue='a"b\\c\nd') == 1


@pytest.mark.parametrize("accept", ["", "*/*", "text/html,*/*;q=0.8", "text/plain;version=0.0.4"])
def test_the_text_format_is_what_others_get(accept: str) -> None:
    body, content_type = exposition([crm()], accept)

    assert content_type.startswith("text/plain; version=")
    assert b"# EOF" not in body


def test_openmetrics_is_served_to_who_asks() -> None:
    body, content_type = exposition([crm()], ACCEPT_OF_PROMETHEUS, Histogram((0.1,)))

    found = {family.name: family for family in parse_openmetrics(body.decode())}  # this parser is strict

    assert content_type == "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert (found["flow_settled"].type, found["flow_settle_seconds"].unit) == ("counter", "seconds")


def test_the_process_and_the_version_are_known() -> None:
    found = samples(crm())

    assert found["process_resident_memory_bytes"][()] > 0
    assert [dict(labels).keys() for labels in found["flow_build_info"]] == [{"version"}]
