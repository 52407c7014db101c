"""The report of a push: what is not known to be confirmed, written so that it can be pushed again."""

import base64
import binascii

import msgspec

from flow.errors import DecodeError
from flow.plumbing.push import Outgoing, Unconfirmed


class Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of the report; the body is JSON as it was, or else its bytes in base64."""

    number: int
    id: str
    exchange: str
    key: str
    state: str
    """`may have arrived`, `failed` or `not sent`."""
    reason: str = ""
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    base64: str | None = None


def written(unconfirmed: Unconfirmed[Outgoing]) -> bytes:
    """Return one line of the report, without its end."""
    message, error = unconfirmed.message, unconfirmed.error
    state = "failed" if error is not None else "not sent"
    plain = embeddable(message.body)
    entry = Entry(
        number=unconfirmed.number,
        id=message.message_id,
        exchange=message.exchange,
        key=message.routing_key,
        state="may have arrived" if unconfirmed.may_have_arrived else state,
        reason=str(error or ""),
        body=msgspec.Raw(message.body) if plain else msgspec.UNSET,
        base64=None if plain else base64.b64encode(message.body).decode(),
    )
    return msgspec.json.encode(entry)


def read(line: bytes) -> Outgoing:
    """Return the message that a *line* of a report holds, with the id that it had.

    Raises:
        DecodeError: the line is of no report; nothing of it is quoted.
    """
    try:
        entry = msgspec.json.decode(line, type=Entry)
        if entry.base64 is not None:
            body = base64.b64decode(entry.base64, validate=True)
        else:
            body = bytes(entry.body) if entry.body is not msgspec.UNSET else b""
    except (ValueError, RecursionError, binascii.Error):
        raise DecodeError(
            "it is not of a report of flow push: --again takes what --unconfirmed wrote"
        ) from None
    return Outgoing(exchange=entry.exchange, routing_key=entry.key, body=body, message_id=entry.id)


def embeddable(body: bytes) -> bool:
    """Whether *body* can stand within a line of JSON and be read again byte for byte."""
    if not body or body != body.strip() or b"\n" in body:
        return False
    try:
        body.decode()
        msgspec.json.decode(body, type=msgspec.Raw)
    except (ValueError, RecursionError):
        return False
    return True
