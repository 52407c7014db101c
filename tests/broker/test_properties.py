"""Properties of every kind are read, or said to be unreadable; nothing else happens."""

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from flow.broker.properties import decode
from flow.errors import DecodeError
from flow.message import Properties

TIMESTAMP = b"\0\x3c\0\0" + bytes(8) + b"\0\x40"  # class, weight, size of the body; the flag of the timestamp
MESSAGE_ID = b"\0\x3c\0\0" + bytes(8) + b"\0\x80"
HEADERS = b"\0\x3c\0\0" + bytes(8) + b"\x20\0"

values: Any = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(1 << 63), (1 << 63) - 1)
    | st.text(max_size=20)
    | st.datetimes(datetime(1970, 1, 2), datetime(2100, 1, 1)).map(
        lambda at: at.replace(microsecond=0, tzinfo=UTC)
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=10,
)
texts = st.none() | st.text(max_size=40).filter(bool)


def marshalled(**properties: Any) -> bytes:
    return ContentHeader(body_size=3, properties=Basic.Properties(**properties)).marshal()


def table(content: bytes) -> bytes:
    return HEADERS + len(content).to_bytes(4, "big") + content


@given(st.dictionaries(st.text(max_size=40), values, max_size=5), texts, texts, texts)
def test_what_pamqp_writes_is_read(
    headers: dict[str, Any], message_id: str | None, content_type: str | None, encoding: str | None
) -> None:
    at = datetime(2026, 5, 4, 3, 2, 1, tzinfo=UTC)

    found = decode(
        marshalled(
            headers=headers,
            message_id=message_id,
            content_type=content_type,
            content_encoding=encoding,
            timestamp=at,
            delivery_mode=2,
            app_id="x",
        )
    )

    assert found == Properties(
        headers=headers,
        message_id=message_id,
        content_type=content_type,
        content_encoding=encoding,
        timestamp=at,
    )


def test_without_properties_all_are_empty() -> None:
    assert decode(marshalled()) == Properties()


def test_the_deaths_of_a_message_are_read() -> None:
    death = {"queue": "org.crm", "reason": "rejected", "count": 3, "time": datetime(2026, 1, 1, tzinfo=UTC)}

    assert decode(marshalled(headers={"x-death": [death]})).headers == {"x-death": [death]}


@pytest.mark.parametrize(
    ("number", "read"),
    [
        (0, datetime(1970, 1, 1, tzinfo=UTC)),
        (1_700_000_000, datetime(2023, 11, 14, 22, 13, 20, tzinfo=UTC)),
        (1_700_000_000_500, datetime(2023, 11, 14, 22, 13, 20, 500_000, tzinfo=UTC)),
        ((1 << 63) - 1, None),
        (1 << 63, None),
        ((1 << 64) - 1, datetime(1969, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_a_nonsensical_timestamp_makes_nothing_else_unreadable(number: int, read: datetime | None) -> None:
    assert decode(TIMESTAMP + number.to_bytes(8, "big")).timestamp == read


UNREADABLE = {
    "nothing": b"",
    "no flags": MESSAGE_ID[:12],
    "a message id in Latin-1": MESSAGE_ID + b"\x03gr\xfc",
    "no message id": MESSAGE_ID,
    "half a timestamp": TIMESTAMP + b"\0\0\0",
    "a header name in Latin-1": table(b"\x02g\xfcS\0\0\0\x01x"),
    "a header time out of range": table(b"\x01tT" + (1 << 62).to_bytes(8, "big")),
    "a header of an unknown type": table(b"\x01tZ"),
    "a table longer than the frame": HEADERS + b"\0\0\xff\xff",
    "flags without end": b"\0\x3c\0\0" + bytes(8) + b"\xff\xff",
}


@pytest.mark.parametrize("header", UNREADABLE.values(), ids=list(UNREADABLE))
def test_what_cannot_be_read_is_one_kind_of_error(header: bytes) -> None:
    """F32: an odd header makes one message unreadable, and nothing else."""
    with pytest.raises(DecodeError, match=r"^unreadable properties$"):
        decode(header)


def test_tables_nested_too_deep_are_unreadable() -> None:
    nested = b""
    for _ in range(2000):
        inner = b"\x01nF" + len(nested).to_bytes(4, "big") + nested
        nested = inner

    with pytest.raises(DecodeError, match=r"^unreadable properties$"):
        decode(table(nested))


@given(st.binary(max_size=200), st.data())
def test_no_header_raises_anything_else(garbage: bytes, data: st.DataObject) -> None:
    sound = bytearray(marshalled(headers={"a": [1, "x"], "b": {"c": None}}, message_id="m", app_id="x"))
    for _ in range(data.draw(st.integers(0, 3))):
        sound[data.draw(st.integers(0, len(sound) - 1))] = data.draw(st.integers(0, 255))

    for header in (garbage, bytes(sound)):
        with suppress(DecodeError):
            assert isinstance(decode(header), Properties)
