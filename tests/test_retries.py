"""What becomes of a message that was not delivered."""

import pytest

from flow.codec import TooLarge
from flow.errors import ConfigError, DecodeError
from flow.outcome import Decision, Outcome, Reject, Retry, Skip, Unavailable
from flow.retries import Retries, describe, judge

CANARY = "alice@example.org"


@pytest.mark.parametrize(
    ("error", "attempt", "decision"),
    [
        (Skip("test action"), 1, Decision(Outcome.SKIPPED, "test action")),
        (Skip("test action"), 99, Decision(Outcome.SKIPPED, "test action")),
        (Reject("no address"), 1, Decision(Outcome.PARKED, "no address")),
        (DecodeError("not JSON"), 1, Decision(Outcome.PARKED, "not JSON")),
        (TooLarge("too large"), 99, Decision(Outcome.RETRYING, "too large")),
        (Retry("busy"), 1, Decision(Outcome.RETRYING, "busy", None)),
        (Retry("busy", after=3.0), 2, Decision(Outcome.RETRYING, "busy", 3.0)),
        (Unavailable("away", after=9.0), 1, Decision(Outcome.RETRYING, "away", 9.0)),
        (Retry("busy"), 3, Decision(Outcome.PARKED, "gave up after 3 attempts: busy")),
        (ValueError(CANARY), 2, Decision(Outcome.RETRYING, "ValueError", None)),
        (ValueError(CANARY), 3, Decision(Outcome.PARKED, "gave up after 3 attempts: ValueError")),
    ],
)
def test_the_error_and_the_attempt_decide(error: Exception, attempt: int, decision: Decision) -> None:
    """B02, R14: verdicts at once, everything else until the attempts are used up."""
    assert judge(error, attempt, Retries(attempts=3)) == decision


def test_classes_have_their_own_number_of_attempts() -> None:
    retries = Retries(attempts=5, per={OSError: 9, TimeoutError: 1})

    assert judge(TimeoutError(), 1, retries).outcome is Outcome.PARKED
    assert judge(ConnectionError(), 8, retries).outcome is Outcome.RETRYING
    assert judge(ValueError(), 5, retries).outcome is Outcome.PARKED


def test_the_last_two_attempts_are_isolated() -> None:
    retries = Retries(attempts=5)

    assert [attempt for attempt in range(1, 8) if retries.isolated(attempt)] == [4, 5, 6, 7]
    assert not Retries(attempts=1).isolated(1)


def test_a_foreign_error_is_described_without_its_text() -> None:
    """The texts of drivers quote rows and addresses."""
    try:
        raise ValueError(CANARY)
    except ValueError as error:
        described = describe(error)

    assert CANARY not in described
    assert described.startswith(
        "ValueError in test_a_foreign_error_is_described_without_its_text (test_retries.py:"
    )


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"attempts": 0}, "Retries.attempts must be a whole number of at least 1, got 0"),
        ({"attemps": 3}, "Retries has no option attemps; did you mean attempts?"),
        ({"per": [1]}, "Retries.per must map exception classes to attempts, got [1]"),
        ({"per": {"x": 1}}, "Retries.per must have exception classes as keys, got 'x'"),
        ({"per": {ValueError: 0}}, "Retries.per[ValueError] must be a whole number of at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused_in_a_sentence(options: dict[str, object], sentence: str) -> None:
    """A02."""
    with pytest.raises(ConfigError) as caught:
        Retries(**options)  # type: ignore[arg-type]

    assert str(caught.value) == sentence
