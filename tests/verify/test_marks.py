"""By what a message is recognized in a call: by values that it alone has, wherever they stand."""

import hashlib
import json

import pytest

from flow.verify.bodies import BROKEN
from flow.verify.marks import Marks

BODIES = [
    json.dumps(
        {
            "actionId": 7_000_000 + number,
            "orgId": 1,
            "page": "water",
            "contact": {"email": f"a+{number}@x.org"},
        }
    ).encode()
    for number in range(3)
]


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/contacts", {}, b'[{"id": "action-7000001"}]'),
        ("/contacts", {}, b'{"list": [{"deep": {"to": "a+1@x.org"}}]}'),
        ("/contacts", {}, b"<contact><mail>a+1@x.org</mail></contact>"),
        ("/actions/7000001/done", {}, b""),
        ("/actions?id=7000001", {}, b""),
        ("/", {"flow-id": hashlib.sha256(BODIES[1]).hexdigest()}, b""),
        ("/", {"content-type": "application/x-www-form-urlencoded"}, b"mail=a%2B1%40x.org"),
        ("/", {}, BODIES[1]),
    ],
)
def test_a_call_speaks_of_the_message_whose_value_it_holds(
    target: str, headers: dict[str, str], body: bytes
) -> None:
    assert Marks(BODIES).found(target, headers, body) == {1}


@pytest.mark.parametrize("body", [b'{"page": "water", "orgId": 1}', b'{"id": 17000001}', b"", b"7000001x"])
def test_what_several_share_or_only_looks_alike_speaks_of_none(body: bytes) -> None:
    assert Marks(BODIES).found("/water", {}, body) == set()


def test_a_call_may_speak_of_several() -> None:
    assert Marks(BODIES).found("/", {}, b"[7000000, 7000002]") == {0, 2}


def test_the_words_of_a_broken_body_mark_nothing() -> None:
    marks = Marks([*BODIES, BROKEN])

    assert marks.found("/", {}, b'{"schema": "proca", "action": "this is not"}') == set()
    assert marks.unmarked == []


def test_the_same_body_twice_cannot_be_told_apart() -> None:
    assert Marks([BODIES[0], BODIES[0], BODIES[1]]).unmarked == [0, 1]
