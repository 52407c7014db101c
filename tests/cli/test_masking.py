import json

import pytest

from flow.cli.masking import LARGEST, masked, printable, revealed

ACTION = {
    "schema": "proca:action:2",
    "stage": "deliver",
    "actionId": 7,
    "orgId": 2,
    "action": {"testing": False, "customFields": {"my comment!": "secret", "numbers": [1.5, 2]}},
    "contact": {"email": "secret@example.org", "firstName": "Söcret", "actionId": 12345, "area": None},
}


def test_the_structure_of_a_body_is_shown_and_its_values_are_not() -> None:
    shown = json.loads(masked(json.dumps(ACTION).encode()))

    assert shown == {
        "schema": "proca:action:2",
        "stage": "deliver",
        "actionId": 7,
        "orgId": 2,
        "action": {
            "testing": "<true or false>",
            "customFields": {"<name of 11>": "<text of 6>", "numbers": ["<number>", "<number>"]},
        },
        "contact": {
            "email": "<text of 18>",
            "firstName": "<text of 6>",
            "actionId": "<number>",
            "area": None,
        },
    }


@pytest.mark.parametrize(
    "top",
    [
        {"schema": "Alice"},
        {"stage": "Alice"},
        {"actionId": "Alice"},
        {"schema": {"name": "Alice"}},
        {"Alice Doe": 1},
        {"alice@example.org": 1},
    ],
)
def test_personal_data_in_the_wrong_place_is_masked_as_well(top: dict[str, object]) -> None:
    assert "alice" not in masked(json.dumps(top).encode()).lower()


@pytest.mark.parametrize(
    "body",
    [b"Alice", b'"Alice', b"\xff\xfe", b"[" * 100_000, b""],
    ids=["text", "cut", "bytes", "deep", "empty"],
)
def test_a_body_that_is_no_json_is_told_by_its_length_only(body: bytes) -> None:
    assert masked(body) == f"<{len(body)} bytes that are not JSON>"


def test_a_giant_body_is_not_decoded() -> None:
    body = b"[" + b"{}," * (LARGEST // 3) + b"{}]"

    assert masked(body) == f"<{len(body)} bytes, too large to be shown masked>"


def test_a_body_shown_on_request_is_complete() -> None:
    assert json.loads(revealed(json.dumps(ACTION).encode())) == ACTION
    assert revealed(b"no json \xff") == "no json \\xff"


def test_nothing_shown_can_command_the_terminal() -> None:
    assert printable("red \x1b[31m \x9b bell\x07 line\n\u202e") == "red �[31m � bell� line��"
    assert "\x1b" not in revealed(b"raw \x1b[31m")
    assert revealed(b'{"a": "\xc2\x9b"}') == '{\n  "a": "�"\n}'
