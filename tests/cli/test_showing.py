"""What a dry run shows of a body."""

from dataclasses import dataclass

import msgspec
import pytest

from flow.cli.showing import telling


class Part(msgspec.Struct, rename="camel"):
    given_name: str | None = None
    born: int | None = None


class Whole(msgspec.Struct, tag_field="schema", tag="whole"):
    part: Part
    parts: list[Part]
    named: dict[str, Part | None]
    nothing: Part | None = None


class Row(msgspec.Struct, array_like=True):
    first: int | None
    second: int | None


@dataclass
class Own:
    first: int | None = None


def test_fields_that_are_null_are_left_out_at_every_depth() -> None:
    whole = Whole(part=Part(born=7), parts=[Part(), Part(given_name="")], named={"a": Part(), "b": None})

    assert telling(whole) == {
        "schema": "whole",
        "part": {"born": 7},
        "parts": [{}, {"givenName": ""}],
        "named": {"a": {}, "b": None},
    }


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"a": None, 1: [None]}, {"a": None, "1": [None]}),
        (Row(first=None, second=2), [None, 2]),
        (Own(), {"first": None}),
        (None, None),
    ],
)
def test_what_somebody_wrote_stays(body: object, shown: object) -> None:
    assert msgspec.json.decode(msgspec.json.encode(telling(body))) == shown
