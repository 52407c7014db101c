"""Refused bodies get a reason with the place and without a value."""

import json
import traceback
from enum import Enum
from typing import Any, Literal

import pytest
from msgspec import Struct

from flow.errors import DecodeError
from flow.outcome import Skip
from flow.schema import IdsMessage
from tests.bodies import ALL, CANARY, IDS, NAMES, changed, decoded, places, refusal, sample


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "the body is empty"),
        (sample("action")[:400], "not JSON: it ends too early"),
        (b"hello", "not JSON: wrong character at byte 0"),
        (b"[]", "the body is not an object"),
        (b'"text"', "the body is not an object"),
        (b"null", "the body is not an object"),
        (b"\xef\xbb\xbf" + sample("action"), "not JSON: it starts with a byte order mark"),
        (sample("action").decode().encode("utf-16"), "invalid UTF-8"),
        (IDS.encode("utf-16-le"), "not JSON: wrong character at byte 1"),
        (sample("action").replace(b"Ada", b"\xff\xfe"), "invalid UTF-8"),
        (IDS % ',"stage":"\\ud800"', "not JSON: it ends too early"),
        (IDS.replace("7", "NaN") % "", "not JSON: wrong character at byte 12"),
        (IDS.replace("7", "-Infinity") % "", "not JSON: wrong character at byte 13"),
        (IDS % "" + "{}", "not JSON: wrong character at byte 42"),
        (IDS.replace("7", "9" * 1_000_000) % "", "a number is out of range"),
        (IDS.replace("7", "1e999") % "", "a number is out of range"),
        (b"[" * 100_000, "nested deeper than 100 levels"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested deeper than 100 levels"),
        (IDS % (',"stage":' + "[" * 1500), "nested deeper than 100 levels"),
    ],
    ids=range(19),
)
def test_what_is_no_json_is_refused_with_a_reason(body: Any, reason: str) -> None:
    """F31, F33: each is a reason and never a crash, whatever types are declared."""
    for types in (ALL, (IdsMessage,), (dict,)):
        assert refusal(body, types) == reason


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("actionId", "x", "actionId is not a whole number"),
        ("actionId", "6" * 19, "actionId is not a whole number"),
        ("actionId", -1, "actionId is out of range"),
        ("actionId", 2**63, "actionId is out of range"),
        ("actionId", True, "actionId is not a whole number"),
        ("actionId", None, "actionId is not a whole number"),
        ("action.createdAt", CANARY, "action.createdAt is not a time"),
        ("action.createdAt", 1_700_000_000, "action.createdAt is not a time"),
        ("action.createdAt", "2026-02-30T00:00:00", "action.createdAt is not a time"),
        ("action.actionType", 7, "action.actionType is not text"),
        ("action.testing", "true", "action.testing is not true or false"),
        ("action.donation", {"amount": CANARY}, "action.donation.amount is not a number"),
        ("action.customFields", [CANARY], "action.customFields is not an object"),
        (
            "action.customFields",
            {CANARY: {"a": CANARY}},
            "action.customFields[...] is not true or false or a number or text or a list",
        ),
        (
            "action.customFields",
            {CANARY: [1, {}]},
            "action.customFields[...][1] is not a number or text",
        ),
        ("contact.email", {"a": 1}, "contact.email is not text"),
        ("contact", {}, "contact.contactRef is missing"),
        ("contact", CANARY, "contact is not an object"),
        ("schema", 7, "schema is not text"),
        ("schema", None, "schema is missing, and could be "),
        ("schema", "proca:foo:9", "unknown schema proca:foo:9"),
        ("schema", CANARY, "unknown schema with an unprintable name"),
        ("schema", "a" * 65, "unknown schema with an unprintable name"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(path: str, value: Any, reason: str) -> None:
    """F31, F34: our words and the path."""
    assert refusal(changed("action", path, value)).startswith(reason)


class Size(Enum):
    SMALL = "small"


class Strict(Struct, forbid_unknown_fields=True, frozen=True):
    """Checks of which msgspec reports the value."""

    colour: Literal["red", "blue"] = "red"
    size: Size | None = None
    word: str = ""

    def __post_init__(self) -> None:
        if self.word == CANARY:
            raise ValueError(f"unwanted {self.word}")
        if self.word:
            raise KeyError(self.word)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"colour": CANARY}, "colour is not one of the values known"),
        ({"size": CANARY}, "size is not one of the values known"),
        ({CANARY: 1}, "the body has a field that is not known"),
        ({"word": CANARY}, "the body is not valid"),
        ({"word": "other"}, "the body cannot be read (KeyError)"),
    ],
)
def test_checks_of_users_types_are_put_into_our_words(body: dict[str, Any], reason: str) -> None:
    assert refusal(body, (Strict,)) == reason


def failure(body: Any) -> Exception | None:
    try:
        decoded(body)
    except (DecodeError, Skip) as error:
        return error
    return None


@pytest.mark.parametrize("name", NAMES)
def test_no_value_of_a_body_is_in_any_text(name: str) -> None:
    """R42: neither in the sentence nor in what the traceback holds."""
    wrong = [CANARY, [CANARY], {CANARY: CANARY}, {"contactRef": 1, "name": [CANARY]}]
    tries = [
        changed(name, place, value) for place in sorted(places(json.loads(sample(name)))) for value in wrong
    ]
    errors = [error for body in tries if (error := failure(body)) is not None]

    texts = ["".join(traceback.format_exception(error)) + repr(error.__context__) for error in errors]

    assert len(errors) > len(tries) // 4
    assert [text for text in texts if CANARY in text] == []


def test_the_error_of_the_library_is_let_go() -> None:
    """It holds the body, and would keep it as long as the error lives."""
    for body in (b"\xff" + CANARY.encode(), b'{"colour":"%s"}' % CANARY.encode()):
        with pytest.raises(DecodeError) as refused:
            decoded(body, (Strict,))

        assert refused.value.__context__ is None
