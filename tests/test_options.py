"""Options: every wrong name or value is answered with one sentence."""

import dataclasses
from typing import Any

import pytest

from flow.batching import Batching
from flow.errors import ConfigError
from flow.message import Message
from flow.options import option, seconds, suggestion, whole
from flow.ratelimit import RateLimit
from flow.retries import Retries


@option
class Tea:
    """An option class."""

    minutes: float = 3.0
    sort: str

    def __post_init__(self) -> None:
        seconds("Tea.minutes", self.minutes)


def size(message: Message[Any]) -> int:
    return len(message.raw)


def refused(make: Any, *values: Any, **options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        make(*values, **options)
    return str(caught.value)


def test_an_unknown_option_is_told_with_the_one_that_was_meant() -> None:
    """A01: the sentence names the bad name and the valid one, or all valid ones."""
    assert refused(Batching, szie=10) == "Batching has no option szie; did you mean size?"
    assert refused(Tea, colour="red", sort="x") == "Tea has no option colour; known are minutes, sort"


def test_a_missing_option_is_told() -> None:
    assert "sort" in refused(Tea)
    assert refused(Tea).startswith("Tea: ")


def test_options_are_given_by_name() -> None:
    assert refused(Tea, 3.0) == "Tea takes its options by name: minutes, sort"


def test_options_are_frozen_and_comparable() -> None:
    tea = Tea(sort="green")

    assert tea == Tea(minutes=3.0, sort="green")
    with pytest.raises(dataclasses.FrozenInstanceError):
        tea.minutes = 4.0  # type: ignore[misc]  # that is the point


def test_a_value_is_checked_when_the_option_is_made() -> None:
    assert refused(Tea, sort="green", minutes=0) == "Tea.minutes must be a number of seconds above 0, got 0"


@pytest.mark.parametrize(
    ("make", "options", "sentence"),
    [
        (Batching, {"size": 0}, "Batching.size must be a whole number of at least 1, got 0"),
        (Batching, {"size": -1}, "Batching.size must be a whole number of at least 1, got -1"),
        (Batching, {"size": "x"}, "Batching.size must be a whole number of at least 1, got 'x'"),
        (Batching, {"timeout": 0}, "Batching.timeout must be a number of seconds above 0, got 0"),
        (Batching, {"concurrency": 0}, "Batching.concurrency must be a whole number of at least 1, got 0"),
        (Batching, {"ordered": "yes"}, "Batching.ordered must be True or False, got 'yes'"),
        (Batching, {"max_weight": 0}, "Batching.max_weight must be a whole number of at least 1, got 0"),
        (
            Batching,
            {"max_weight": 10},
            "Batching.weight and Batching.max_weight go together: give both or neither",
        ),
        (
            Batching,
            {"weight": size},
            "Batching.weight and Batching.max_weight go together: give both or neither",
        ),
        (
            Batching,
            {"weight": 3, "max_weight": 10},
            "Batching.weight must be a function of a message, got 3",
        ),
        (Retries, {"attempts": 0}, "Retries.attempts must be a whole number of at least 1, got 0"),
        (
            Retries,
            {"per": [ValueError]},
            f"Retries.per must map exception classes to attempts, got {[ValueError]}",
        ),
        (
            Retries,
            {"per": {"ValueError": 1}},
            "Retries.per must have exception classes as keys, got 'ValueError'",
        ),
        (
            Retries,
            {"per": {ValueError: 0}},
            "Retries.per[ValueError] must be a whole number of at least 1, got 0",
        ),
        (RateLimit, {"call": 1}, "RateLimit has no option call; did you mean calls?"),
    ],
)
def test_wrong_values_of_the_options_of_a_pipeline(make: Any, options: dict[str, Any], sentence: str) -> None:
    """A02, A03: found where they are written."""
    assert refused(make, **options) == sentence


@pytest.mark.parametrize(
    ("value", "least", "right"),
    [
        (1, 1, True),
        (0, 0, True),
        (0, 1, False),
        (1.0, 1, False),
        (True, 1, False),
        ("1", 1, False),
        (None, 1, False),
    ],
)
def test_whole_numbers(value: object, least: int, right: bool) -> None:
    if right:
        whole("n", value, least)
    else:
        assert (
            refused(whole, "n", value, least)
            == f"n must be a whole number of at least {least}, got {value!r}"
        )


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan"), True, "1", None])
def test_what_is_no_number_of_seconds(value: object) -> None:
    assert refused(seconds, "t", value) == f"t must be a number of seconds above 0, got {value!r}"


def test_seconds_may_be_zero_where_that_means_something() -> None:
    seconds("t", 0, zero=True)

    assert refused(seconds, "t", -0.1, zero=True) == "t must be a number of seconds of 0 or more, got -0.1"


def test_the_nearest_name_is_suggested_or_all_are_named() -> None:
    assert suggestion("concurency", ["queue", "concurrency"]) == "; did you mean concurrency?"
    assert suggestion("x", ["queue", "concurrency"]) == "; known are concurrency, queue"
