"""The house rules of docs/architecture.md: who may import whom, and how large a file may grow."""

import ast
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FLOORS = [
    {
        "errors",
        "exits",
        "outcome",
        "message",
        "batch",
        "schema",
        "options",
        "annotations",
        "account",
        "clock",
    },
    {
        "retries",
        "ratelimit",
        "breaker",
        "batching",
        "batcher",
        "lane",
        "memory",
        "topology",
        "campaign_server",
        "parking",
        "codec",
        "lifting",
        "reasons",
        "tolerance",
        "crypto",
        "links",
        "ledger",
        "claim",
        "transitions",
    },
    {
        "pipeline",
        "declaration",
        "sizing",
        "settings",
        "misspelt",
        "metrics",
        "prometheus",
        "histogram",
        "report",
    },
    {"stages", "broker", "records"},
    {"plumbing", "targets", "devbroker", "management"},
    {
        "runner",
        "confirmation",
        "deadletters",
        "subscription",
        "service",
        "signals",
        "ops",
        "endpoint",
        "serving",
        "looplag",
        "target",
        "trial",
        "checking",
        "worker",
        "child",
        "supervisor",
        "changes",
    },
    {"cli", "demo", "testing", "verify", "pytest_plugin", "__main__", "__init__"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
WINGS = {"stages", "broker", "records"}  # no doors between them
OUTSIDE = {
    "aiormq": {"broker"},
    "pamqp": {"broker", "devbroker"},
    "prometheus_client": {"prometheus"},
    "sqlalchemy": {"records"},
    "alembic": {"records"},
}
PUBLIC_FOR_PIPELINES = {"flow", "flow.schema", "flow.crypto", "flow.targets"}
FILES = sorted((ROOT / "flow").rglob("*.py"))
PIPELINES = sorted((ROOT / "pipelines").rglob("*.py"))


def room(path: Path) -> str:
    return path.relative_to(ROOT / "flow").parts[0].removesuffix(".py")


def module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def nodes(path: Path) -> list[ast.AST]:
    """Return all that a file says."""
    return list(ast.walk(ast.parse(path.read_text())))


def imported(path: Path) -> Iterator[str]:
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "flow" if node.level else str(node.module)  # relative: refused below


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_rooms_use_only_what_they_may(path: Path) -> None:
    here = room(path)

    for name in imported(path):
        top, _, inside = name.partition(".")
        assert here in OUTSIDE.get(top, {here}), f"{path} must not import {top}"
        if top != "flow":
            continue
        there = inside.split(".")[0]
        assert there, f"{path}: import from the room, not from the front door"
        assert FLOOR[there] <= FLOOR[here], f"{path} looks upstairs at flow.{there}"
        assert there == here or not {there, here} <= WINGS, f"{path} reaches across to flow.{there}"
        assert here != "devbroker" or there == here, f"{path}: devbroker knows nothing of flow"


@pytest.mark.parametrize("path", PIPELINES, ids=name_of)
def test_pipelines_use_only_the_public_names(path: Path) -> None:
    names = [name for name in imported(path) if name.split(".")[0] == "flow"]

    for name in names:
        assert any(name == public or name.startswith(public + ".") for public in PUBLIC_FOR_PIPELINES), name


def test_no_import_cycles() -> None:
    TopologicalSorter({module(path): set(imported(path)) for path in FILES}).prepare()


@pytest.mark.parametrize("path", [*FILES, *PIPELINES], ids=name_of)
def test_files_fit_in_the_head(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 300, f"{path} has grown; split it by noun"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_functions_fit_on_a_screen(path: Path) -> None:
    for node in nodes(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.lineno + 1
            assert length <= 60, f"{path}:{node.lineno} {node.name} has {length} lines"
