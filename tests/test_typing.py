"""The types of the public names, as mypy sees them in the code of users."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDER = Path(__file__).parent / "typing"
ACCEPTED, REFUSED = FOLDER / "accepted.py", FOLDER / "refused.py"
ERROR = re.compile(r"^(?P<file>[^:]+):(?P<line>\d+): error: (?P<text>.*)  \[(?P<code>[a-z-]+)\]$")

Errors = dict[tuple[str, int], set[str]]


@pytest.fixture(scope="module")
def errors() -> Errors:
    """The codes that mypy reports, by file and line; it runs once for all of them."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--no-pretty",
        "--hide-error-context",
    ]
    done = subprocess.run(
        [*command, str(ACCEPTED), str(REFUSED)], cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert not done.stderr, done.stderr
    found: Errors = {}
    for line in done.stdout.splitlines():
        if match := ERROR.match(line):
            found.setdefault((Path(match["file"]).name, int(match["line"])), set()).add(match["code"])
    return found


def expected(path: Path) -> Errors:
    lines = enumerate(path.read_text().splitlines(), 1)
    return {
        (path.name, number): set(line.partition("# E: ")[2].split(", "))
        for number, line in lines
        if "# E: " in line
    }


def test_right_usage_is_accepted(errors: Errors) -> None:
    assert {place: codes for place, codes in errors.items() if place[0] != REFUSED.name} == {}


def test_wrong_usage_is_reported_where_it_is(errors: Errors) -> None:
    assert {place: codes for place, codes in errors.items() if place[0] == REFUSED.name} == expected(REFUSED)


def test_there_is_wrong_usage_to_report() -> None:
    assert len(expected(REFUSED)) > 20
