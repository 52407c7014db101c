"""The ledger itself: it complains of everything that it is there for."""

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pytest

from tests.faults.ledger import Ledger


def ledger(effects: str = "", waiting: str = "", parked: str = "") -> Ledger:
    """Return a ledger of the three messages a, b and c, with a letter for each time that one was seen."""
    sink: Any = SimpleNamespace(effects=Counter(effects))  # only its counts are used
    made = Ledger("", sink, seed="letters")
    made.confirmed = made.attempted = {"a", "b", "c"}
    made.waiting.update(waiting)
    made.parked.update(parked)
    return made


@pytest.mark.parametrize(
    ("counts", "complaint"),
    [
        ({"effects": "ab"}, "lost 1"),
        ({"effects": "abcd"}, "invented"),
        ({"effects": "aabc"}, "1 effects came again, at most 0 may"),
        ({"effects": "abc", "parked": "c"}, "delivered, and still there"),
        ({"effects": "abc", "waiting": "c"}, "delivered, and still there"),
        ({"effects": "ab", "parked": "cc"}, "parked twice"),
    ],
)
def test_what_must_not_be_is_told(counts: dict[str, str], complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        ledger(**counts).check()


def test_every_message_once_is_fine() -> None:
    ledger("a", "b", "c").check()
