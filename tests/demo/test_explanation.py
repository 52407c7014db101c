"""The account at the end finds what is missing, doubled, or where it should not be."""

from typing import Any

import pytest

from flow.demo.cast import Role, Sent
from flow.demo.explanation import Evidence, Explanation

SENT = {
    one.id: one
    for one in (
        Sent("action-1", 1, Role.SIGNER),
        Sent("action-2", 2, Role.BUSY),
        Sent("action-3", 3, Role.TESTER),
        Sent("action-4", 4, Role.REFUSED),
        Sent("poison-1", 1, Role.POISON),
    )
}
GOOD: dict[str, Any] = {
    "told": {"action-1": 1, "action-2": 1},
    "skipped": {"action-3": "a test action"},
    "parked": {"action-4": ["invalid"], "poison-1": ["the body is empty"]},
    "retried": {"action-2": 2},
}


def explained(**changed: Any) -> Explanation:
    return Explanation(SENT, Evidence(**GOOD | changed))


def lines(explanation: Explanation) -> list[list[str]]:
    """Return the lines word by word."""
    return [line.split() for line in explanation.lines()]


def test_each_message_is_explained_by_where_it_ended() -> None:
    found = explained()

    assert found.complete
    assert list(found.lines()) == [
        "  published            5   4 signatures, 1 unreadable",
        "  delivered once       2   1 of them after more than one attempt",
        "  skipped              1   a test action",
        "  parked               1   invalid",
        "  parked               1   the body is empty",
        "  told twice           0",
        "  unexplained          0",
    ]


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"told": {"action-1": 1}}, "unexplained 1 action-2"),
        ({"parked": {}}, "unexplained 2 action-4, poison-1"),
        ({"skipped": {"action-3": "", "action-1": ""}}, "unexplained 1 action-1"),
        ({"told": {"action-1": 1, "action-2": 1, "action-9": 1}}, "unexplained 1 action-9"),
        ({"told": {"action-1": 2, "action-2": 1}}, "told twice 1"),
        ({"told": {"action-1": 1, "action-2": 1, "action-3": 1}, "skipped": {}}, "unexpected 1 action-3"),
    ],
    ids=[
        "lost",
        "lost from the park",
        "in two places",
        "never published",
        "told twice",
        "in the wrong place",
    ],
)
def test_what_is_not_explained_is_told_and_named(changed: dict[str, Any], line: str) -> None:
    found = explained(**changed)

    assert not found.complete
    assert line.split() in lines(found)


def test_what_was_published_twice_may_be_told_twice() -> None:
    found = explained(told={"action-1": 2, "action-2": 1}, again=frozenset({"action-1"}))

    assert found.complete
    assert ["published", "twice", "1"] in [line[:3] for line in lines(found)]


def test_a_second_copy_in_the_park_is_no_second_message() -> None:
    found = explained(parked={"action-4": ["invalid", "invalid"], "poison-1": ["the body is empty"]})

    assert found.complete
    assert ["parked", "twice", "1"] in [line[:3] for line in lines(found)]
    assert ["parked", "1", "invalid"] in lines(found)
