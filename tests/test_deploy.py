"""What is in deploy/ asks for what exists: metrics, labels, outcomes, commands, flags and folders."""

import re
import shlex
import shutil
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import click
import pytest
import yaml

from flow.outcome import Outcome

DEPLOY = Path(__file__).parent.parent / "deploy"
UNITS = sorted(DEPLOY.glob("*.service"))
RULES = yaml.safe_load((DEPLOY / "alerts.yml").read_text())["groups"][0]["rules"]
METRIC = re.compile(r"^\| `(flow_\w+)` \| (counter|gauge|histogram) \| ([^|]*) \|", re.MULTILINE)
PROMETHEUS = {"up", "process_start_time_seconds"}
SCRAPED = {"job", "instance"}
FUNCTIONS = {"rate", "increase", "sum", "histogram_quantile", "time", "and", "on", "ignoring", "by"}
VALUES = {"outcome": {one.value for one in Outcome}, "job": {"flow"}}
"""What a label may be compared with."""


def labels() -> dict[str, set[str]]:
    """Return the labels of each metric that Prometheus has of flow; test_docs.py proves these tables."""
    found = dict.fromkeys(PROMETHEUS, SCRAPED)
    for name, kind, own in METRIC.findall((DEPLOY.parent / "docs" / "operations.md").read_text()):
        names = {*re.findall(r"\w+", own), *SCRAPED}
        if kind == "histogram":
            found[f"{name}_bucket"] = names | {"le"}
        else:
            found[name] = names
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_asks_for_what_exists(rule: dict[str, str | dict[str, str]]) -> None:
    """Every word of the expression is a function, a metric, or a label that the metric has."""
    known, expression = labels(), str(rule["expr"])
    grouped = re.findall(r"\b(?:on|ignoring|by) ?\(([^)]*)\)", expression)
    rest = re.sub(r"\b(on|ignoring|by) ?\([^)]*\)", r"\1", expression)
    words = re.findall(r"[a-z_]\w*", re.sub(r"\{[^}]*\}|\[\w+\]", "", rest))
    metrics = [word for word in words if word not in FUNCTIONS]

    assert metrics
    assert set(metrics) <= set(known), set(metrics) - set(known)
    for metric, selected in re.findall(r"(\w+)\{([^}]*)\}", rest):
        for name, value in re.findall(r'(\w+)="([^"]*)"', selected):
            assert name in known[metric]
            assert value in VALUES[name]
    everything = set[str]().union(*(known[metric] for metric in metrics))
    shown = re.findall(r"\$labels\.(\w+)", str(rule["annotations"]))
    assert {name.strip() for group in grouped for name in group.split(",")} | set(shown) <= everything
    assert set(rule) - {"for"} == {"alert", "expr", "annotations"}


def test_the_ledger_and_the_target_have_alerts() -> None:
    expressions = [rule["expr"] for rule in RULES]

    assert "flow_ledger_up == 0" in expressions
    assert "flow_circuit_open == 1" in expressions


def settings(unit: Path) -> dict[str, list[str]]:
    """Return what a unit says, by its names."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_runs_a_command_that_exists(unit: Path) -> None:
    said = settings(unit)
    program, name, *arguments = shlex.split(said["ExecStart"][0])

    main = import_module("flow.cli").main
    command = main.get_command(click.Context(main), name)
    assert Path(program).name == "flow"
    assert command is not None
    command.make_parser(click.Context(command)).parse_args(arguments)  # raises for an unknown flag
    assert said["RestartPreventExitStatus"] == ["2 78"]
    environment = dict(
        word.split("=", 1) for line in said.get("Environment", []) for word in shlex.split(line)
    )
    if folder := said.get("StateDirectory"):
        assert environment["FLOW_STATE_DIR"] == f"%S/{folder[0]}"
    else:
        assert name != "run"
    credentials = {one.split(":")[0] for one in said.get("LoadCredential", [])}
    assert {value for value in environment.values() if value.startswith("%d/")} == {
        f"%d/{one}" for one in credentials
    }


@pytest.mark.slow  # --quick needs no program of the machine
@pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux")
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_reads_a_unit_without_complaint(unit: Path, tmp_path: Path) -> None:
    text = unit.read_text().replace("/opt/flow/.venv/bin/flow", "/bin/true").replace("/opt/flow", "/")
    place = tmp_path / unit.name.replace("@", "@webhook")
    place.write_text(text)

    done = subprocess.run(
        ["systemd-analyze", "verify", str(place)], capture_output=True, text=True, timeout=60, check=False
    )

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is for Linux")
def test_a_program_that_is_missing_is_named_with_its_package(tmp_path: Path) -> None:
    """No test is left out in silence: `make test` ends where what it needs cannot be installed."""
    (tmp_path / "uname").symlink_to(shutil.which("uname") or "uname")

    done = subprocess.run(
        [DEPLOY / "need.sh", "systemd"],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    sentence = (
        "systemd is not installed: install the package systemd (version 250 or newer), then try again.\n"
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", sentence)
