"""What a parked message carries beside its body, how it is read back, and what a replay keeps of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

import msgspec

from flow.errors import DecodeError
from flow.message import REPLAYS, Message, Properties, rejections
from flow.topology import FAIL_EXCHANGE, RETRY_EXCHANGE

QUEUE = "x-flow-queue"
PIPELINE = "x-flow-pipeline"
ATTEMPTS = "x-flow-attempts"
REASON = "x-flow-reason"
FIRST_FAILED_AT = "x-flow-first-failed-at"
PARKED_AT = "x-flow-parked-at"
EXCHANGE = "x-flow-exchange"
ROUTING_KEY = "x-flow-routing-key"
MESSAGE_ID = "x-flow-message-id"
CONTENT_TYPE = "x-flow-content-type"
CONTENT_ENCODING = "x-flow-content-encoding"

LONGEST_REASON = 1024
"""Bytes; headers must fit into one frame of the connection together."""
LONGEST_TEXT = 255

UNREADABLE = Properties()


class Named(msgspec.Struct, frozen=True):
    """What a body says of itself, whatever else is in it."""

    action_id: int | None = msgspec.field(name="actionId", default=None)


NAMED = msgspec.json.Decoder(Named)


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """Where a message came from before anything failed, and when that was."""

    exchange: str
    routing_key: str
    first_failed_at: datetime | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """What is known of one parked message beside its body."""

    id: str
    """Twelve hexadecimal digits that stay the same as long as the message is parked."""
    queue: str | None
    """The queue it failed in; None when nothing tells it, so that it cannot be replayed."""
    pipeline: str | None
    action_id: int | None
    """What `flow trace` takes; None when the body names no action, or cannot be read."""
    attempts: int
    reason: str
    first_failed_at: datetime | None
    parked_at: datetime | None
    exchange: str
    routing_key: str
    message_id: str | None
    content_type: str | None
    replays: int
    size: int
    """Bytes of the body."""


def parked_headers(message: Message[Any], reason: str, pipeline: str, now: datetime) -> dict[str, str | int]:
    """Return the headers with which *message* is parked; *now* is an aware time of the day.

    Nothing of the publisher's own headers is copied: `CC` and `BCC` would send copies elsewhere. Texts are
    cut, the reason to 1 KiB, so that a message with giant properties can be parked as well.
    """
    properties = _properties(message)
    beginning = _beginning(message, properties.headers)
    texts = {
        QUEUE: message.queue,
        PIPELINE: pipeline,
        FIRST_FAILED_AT: (beginning.first_failed_at or now).isoformat(),
        PARKED_AT: now.isoformat(),
        EXCHANGE: beginning.exchange,
        ROUTING_KEY: beginning.routing_key,
        MESSAGE_ID: properties.message_id,
        CONTENT_TYPE: properties.content_type,
        CONTENT_ENCODING: properties.content_encoding,
    }
    headers: dict[str, str | int] = {
        name: _cut(text, LONGEST_TEXT) for name, text in texts.items() if text is not None
    }
    headers[REASON] = _cut(reason, LONGEST_REASON)
    headers[ATTEMPTS] = message.attempt
    if replays := _number(properties.headers, REPLAYS):
        headers[REPLAYS] = replays
    return headers


def read_parked(message: Message[Any]) -> Parked:
    """Return what the headers of a parked *message* tell.

    A message that the alternate exchange of the retry loop brought here has no such headers: then its queue
    is its routing key, and the reason is the missing binding.
    """
    properties = _properties(message)
    headers = properties.headers
    by_flow = PARKED_AT in headers
    queue = _name(headers, QUEUE) or (message.routing_key if _in_the_loop(message.exchange) else None)
    beginning = _beginning(message, headers)
    parked_at = _time(_text(headers, PARKED_AT))
    return Parked(
        id=_identifier(message, queue, parked_at),
        queue=queue,
        pipeline=_text(headers, PIPELINE),
        action_id=_action_id(message.raw),
        attempts=_number(headers, ATTEMPTS) or 1 + rejections(headers.get("x-death"), queue or ""),
        reason=_text(headers, REASON) or _missing_reason(message, properties),
        first_failed_at=_time(_text(headers, FIRST_FAILED_AT)) or beginning.first_failed_at,
        parked_at=parked_at,
        exchange=_text(headers, EXCHANGE) or beginning.exchange,
        routing_key=_text(headers, ROUTING_KEY) or beginning.routing_key,
        message_id=_text(headers, MESSAGE_ID) if by_flow else properties.message_id,
        content_type=_text(headers, CONTENT_TYPE) if by_flow else properties.content_type,
        replays=_number(headers, REPLAYS),
        size=message.size,
    )


def park_id(queue: str | None, parked_at: datetime | None, message_id: str | None, body: bytes) -> str:
    """Return what a parked message is called, with the message id that its copy has in the park.

    It is made from what does not change when the broker delivers it again; a header such as the count does.
    """
    digest = blake2b(f"{queue}\0{parked_at}\0{message_id or ''}\0".encode("utf-8", "replace"), digest_size=6)
    digest.update(body)
    return digest.hexdigest()


def replay_headers(parked: Parked) -> dict[str, str | int]:
    """Return the headers with which a *parked* message goes back to its queue.

    Its attempts start again from 1. Its queue and its beginning stay known: the first for the case that the
    queue is not bound and the alternate exchange parks it at once, the second because the broker then knows
    only the retry exchange.
    """
    headers: dict[str, str | int] = {
        QUEUE: parked.queue or "",
        EXCHANGE: parked.exchange,
        ROUTING_KEY: parked.routing_key,
        REPLAYS: parked.replays + 1,
    }
    if parked.first_failed_at is not None:
        headers[FIRST_FAILED_AT] = parked.first_failed_at.isoformat()
    return headers


def _beginning(message: Message[Any], headers: Mapping[str, Any]) -> Beginning:
    """The first death tells where a message was published; a replay tells it in its own headers."""
    death = _first_death(headers)
    exchange, key, died_at = message.exchange, message.routing_key, None
    if death is not None:
        keys = death.get("routing-keys")
        exchange = _text(death, "exchange") or ""
        key = keys[0] if isinstance(keys, list) and keys and isinstance(keys[0], str) else ""
        died_at = _aware(death.get("time"))
    if _number(headers, REPLAYS):
        exchange, key = _text(headers, EXCHANGE) or exchange, _text(headers, ROUTING_KEY) or key
        died_at = _time(_text(headers, FIRST_FAILED_AT)) or died_at
    return Beginning(exchange=exchange, routing_key=key, first_failed_at=died_at)


def _first_death(headers: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Searched by queue and reason, never taken by place: the order differs between broker versions."""
    entries = headers.get("x-death")
    deaths = [one for one in entries if isinstance(one, dict)] if isinstance(entries, list) else []
    first = headers.get("x-first-death-queue"), headers.get("x-first-death-reason")
    for death in deaths:
        if (death.get("queue"), death.get("reason")) == first:
            return death
    return min(
        deaths, key=lambda death: _aware(death.get("time")) or datetime.max.replace(tzinfo=UTC), default=None
    )


def _missing_reason(message: Message[Any], properties: Properties) -> str:
    if properties is UNREADABLE:
        return "unreadable properties"
    if _in_the_loop(message.exchange):
        return f"{message.exchange} found no queue bound with the key {message.routing_key}"
    return "unknown: it was not parked by flow"


def _in_the_loop(exchange: str) -> bool:
    return exchange in (FAIL_EXCHANGE, RETRY_EXCHANGE)


def _properties(message: Message[Any]) -> Properties:
    try:
        return message.properties
    except DecodeError:
        return UNREADABLE


def _identifier(message: Message[Any], queue: str | None, parked_at: datetime | None) -> str:
    return park_id(queue, parked_at, _properties(message).message_id, message.raw)


def _action_id(body: bytes) -> int | None:
    try:
        return NAMED.decode(body).action_id
    except (ValueError, RecursionError):  # UnicodeDecodeError and msgspec's errors are ValueErrors
        return None


def _text(headers: Mapping[str, Any], name: str) -> str | None:
    value = headers.get(name)
    return value if isinstance(value, str) else None


def _name(headers: Mapping[str, Any], name: str) -> str | None:
    text = _text(headers, name)
    return text if text and len(text.encode()) <= LONGEST_TEXT else None


def _number(headers: Mapping[str, Any], name: str) -> int:
    value = headers.get(name)
    return value if isinstance(value, int) and value > 0 else 0


def _aware(value: object) -> datetime | None:
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=UTC)


def _time(text: str | None) -> datetime | None:
    try:
        return _aware(datetime.fromisoformat(text)) if text else None
    except ValueError:
        return None


def _cut(text: str, most: int) -> str:
    """Texts of other senders may hold what cannot be encoded again; it is escaped."""
    return text.encode("utf-8", "backslashreplace")[:most].decode("utf-8", "ignore")
