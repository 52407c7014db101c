"""tests/BEHAVIOUR.md and the tests agree: every rule is listed once, with the tests that prove it."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
LIST = ROOT / "tests" / "BEHAVIOUR.md"
LAST = {"A": 25, "B": 18, "C": 8, "D": 6, "E": 30, "F": 7, "G": 11, "H": 12, "I": 8, "J": 11, "K": 12}
LAST |= {"L": 6, "M": 9, "N": 8, "R": 42}
RULES = [f"{section}{number:02}" for section, last in LAST.items() for number in range(1, last + 1)]
# Of the second table. F01 to F07 are rules as well; the faults of these numbers are "Fault F01" and so on.
FAULTS = [f"Fault F{number:02}" for number in range(1, 8)] + [f"F{number:02}" for number in range(8, 51)]

ID = r"(?:Fault F0|[A-Z]\d)\d"
ROW = re.compile(rf"\| ({ID}) \| ([^|]+) \| ([^|]+) \|")
TEST = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")
CLAIM = re.compile(rf"({ID}(?:, {ID})*)[:.]")


def rows() -> Iterator[tuple[str, str, str]]:
    """Yield ID, name and proof of every row."""
    for line in LIST.read_text().splitlines():
        if found := ROW.fullmatch(line):
            yield found[1], found[2], found[3]


def listed() -> set[tuple[str, str]]:
    """Return every ID with each of the tests listed for it."""
    return {(name, f"{file}::{test}") for name, _, proof in rows() for file, test in TEST.findall(proof)}


@cache
def every_test() -> list[tuple[str, str]]:
    """Return every test with its docstring."""
    found = []
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                found.append((f"{path.relative_to(ROOT)}::{node.name}", ast.get_docstring(node) or ""))
    return found


def claimed() -> set[tuple[str, str]]:
    """Return every test with each of the IDs at the beginning of its docstring."""
    found = ((test, CLAIM.match(text)) for test, text in every_test())
    return {(name, test) for test, match in found if match for name in match[1].split(", ")}


def test_every_rule_is_listed_once() -> None:
    counted = Counter(name for name, _, _ in rows())

    assert len(RULES) == 213
    assert [name for name in RULES if counted[name] != 1] == []
    assert sorted(counted) == sorted({*RULES, *counted} & {*RULES, *FAULTS})


def test_every_rule_has_a_name_and_a_proof_or_a_reason() -> None:
    for name, title, proof in rows():
        assert 3 <= len(title.split()) <= 8, f"{name}: {title}"
        assert TEST.search(proof) or proof.startswith(("later: ", "not here: ")), f"{name}: {proof}"


def test_every_listed_test_exists() -> None:
    known = {test for test, _ in every_test()}

    assert {test for _, test in listed()} - known == set()


def test_list_and_docstrings_name_the_same_tests() -> None:
    assert listed() - claimed() == set(), "listed, but the docstring does not begin with the ID"
    assert claimed() - listed() == set(), "claimed in a docstring, but not listed"


def test_no_two_tests_of_a_file_have_one_name() -> None:
    """The second would replace the first, and the rule would be unproven."""
    counted = Counter(test for test, _ in every_test())

    assert [test for test, count in counted.items() if count > 1] == []
