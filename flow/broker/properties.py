"""Reads the properties of a message from its raw content header."""

from datetime import UTC, datetime

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from flow.errors import DecodeError
from flow.message import Properties

MILLISECONDS = 1 << 32  # timestamps from here on, beyond the year 2106, are taken for milliseconds


class PlainTimestamp(Basic.Properties):
    """Properties whose timestamp stays a number: a nonsensical one must not make the others unreadable."""

    _timestamp = "longlong"


def decode(header: bytes) -> Properties:
    """Decode a content header frame, class id first; takes long for more than 16 KiB, so look at its size.

    Raises:
        DecodeError: it cannot be decoded.
    """
    found = PlainTimestamp()
    try:
        ContentHeader(properties=found).unmarshal(header)
    except Exception as error:  # UnicodeDecodeError, struct.error and RecursionError were seen
        raise DecodeError("unreadable properties") from error
    return Properties(
        headers=found.headers or {},
        message_id=found.message_id,
        content_type=found.content_type,
        content_encoding=found.content_encoding,
        timestamp=moment(found.timestamp),
    )


def moment(timestamp: object) -> datetime | None:
    """Return the time that is *timestamp* seconds or milliseconds after 1970, None when out of range."""
    if not isinstance(timestamp, int):
        return None
    seconds = timestamp / 1000 if timestamp >= MILLISECONDS else timestamp
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
