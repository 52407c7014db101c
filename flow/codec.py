"""Reading bodies: from the bytes of a queue to one of the types a pipeline declares."""

import re
from array import array
from collections.abc import Callable
from datetime import datetime
from itertools import accumulate
from typing import Any, Union
from uuid import UUID

import msgspec

from flow.errors import ConfigError, DecodeError
from flow.lifting import SCHEMA as OLD_ACTION
from flow.lifting import lift
from flow.message import ENCODING_FLAG, Message
from flow.options import whole
from flow.outcome import Skip
from flow.reasons import malformed, named, unfit
from flow.schema import EVENT_ALIASES, EVENT_TYPES, ActionMessage, EventMessage, IdsMessage
from flow.tolerance import amender

ACTION, EVENT, IDS = (str(kind.__struct_config__.tag) for kind in (ActionMessage, EventMessage, IdsMessage))
KNOWN = {ACTION, EVENT, IDS, OLD_ACTION}
ENCODINGS = {"", "utf-8", "utf8", "identity"}
HARMLESS = 2048  # bytes; a typed body of this size can nest too little to overflow anything
DEEPEST = 500  # levels; a thread with a small stack overflows at about 900
TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
STEPS = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))
FLAT = bytes(byte for byte in range(256) if not STEPS[byte])
UNTYPED = msgspec.json.Decoder()
UNREAD = object()


class TooLarge(DecodeError):
    """The body exceeds the limit and was not taken from the broker: there is nothing that could be parked."""


class Codec:
    """Reads bodies as one of *types*, and refuses what is too large, too deep or encoded.

    Several types are told apart by `schema`: each is a Struct with `tag_field="schema"` and a tag of its
    own. A single type may also be a Struct without a tag, or `dict`: it reads every body, of any schema.
    """

    def __init__(self, types: tuple[Any, ...], *, max_size: int = 1 << 20, max_depth: int = 100) -> None:
        """Prepare for *types*; *max_size* is in bytes, *max_depth* in levels of lists and objects.

        Levels are not counted in bodies up to 2 KiB that fit their types: these cannot overflow anything.

        Raises:
            ConfigError: the types cannot be told apart or read, or a limit is no limit.
        """
        whole("Codec.max_size", max_size)
        whole("Codec.max_depth", max_depth)
        if max_depth > DEEPEST:
            raise ConfigError(f"Codec.max_depth must be at most {DEEPEST}, got {max_depth}")
        if not types:
            raise ConfigError("Codec.types must name at least one type, got none")
        self.max_size = max_size
        self.max_depth = max_depth
        self._only = types[0] if len(types) == 1 else None
        self._kinds = by_schema(types)
        self._lifts = lifted(self._kinds)
        try:
            self._read: Callable[[bytes], Any] = msgspec.json.Decoder(Union[types]).decode  # noqa: UP007
            self._amend = {kind: amender(kind) for kind in types}
        except (TypeError, NotImplementedError) as error:
            raise ConfigError(f"Codec.types cannot be read from JSON: {error}") from error
        self._unsuspicious = min(HARMLESS if self._kinds else max_depth, max_size)

    def decode(self, message: Message[Any]) -> None:
        """Set the body of *message*, its record id, and the record's own time if it has one.

        Raises:
            DecodeError: the body cannot be read; the text holds no value of it.
            TooLarge: the body is not even here.
            Skip: it is an event that the pipeline does not declare, or of a type not known.
        """
        raw = message.raw
        if not raw or len(raw) > self._unsuspicious or message.header[12] & ENCODING_FLAG:
            self._admit(message)
        try:
            body = self._read(raw)
        except Exception:  # noqa: BLE001  # also RecursionError, MemoryError, UnicodeDecodeError
            body = UNREAD
        if body is UNREAD:  # outside of the except clause: the error of msgspec, which quotes, is let go
            body = self._read_tolerantly(raw)
        kind = type(body)
        if kind is ActionMessage:
            message._record_id = str(body.action_id)
            message.occurred_at = body.action.created_at
        elif kind is IdsMessage:
            message._record_id = str(body.action_id)
        else:
            if isinstance(body, EventMessage) and body.event_type in EVENT_ALIASES:
                body = msgspec.structs.replace(body, event_type=EVENT_ALIASES[body.event_type])
            mark(message, body)
        message.body = body

    def _admit(self, message: Message[Any]) -> None:
        """Look at everything that must be known before the body is parsed."""
        raw = message.raw
        if not raw and message.size:
            raise TooLarge(f"the body has {message.size} bytes, more than the {self.max_size} allowed")
        if not raw:
            raise DecodeError("the body is empty")
        if message.encoded:
            encoding = (message.properties.content_encoding or "").lower()
            if encoding not in ENCODINGS:
                raise DecodeError(f"content encoding {named(encoding)} is not utf-8 or identity")
        if len(raw) > self.max_size:
            raise DecodeError(f"the body has {len(raw)} bytes, more than the {self.max_size} allowed")
        self._check_depth(raw)

    def _check_depth(self, raw: bytes) -> None:
        if raw.count(b"{") + raw.count(b"[") > self.max_depth and depth(raw) > self.max_depth:
            raise DecodeError(f"nested deeper than {self.max_depth} levels")

    def _parse(self, raw: bytes) -> Any:
        """Return the JSON value of *raw* without a type.

        Raises:
            DecodeError: it is no JSON, or nested too deeply.
        """
        self._check_depth(raw)
        value, error = tried(UNTYPED.decode, raw)
        if isinstance(error, msgspec.ValidationError):  # the one thing that is checked without a type
            raise DecodeError("a number is out of range")
        if error:
            raise DecodeError(malformed(error, raw))
        return value

    def _read_tolerantly(self, raw: bytes) -> Any:
        """Read a body that the typed decoder refused: it is old, or lax, or gets a reason."""
        value = self._parse(raw)
        kind = self._choose(value) if self._kinds else self._only
        if self._lifts and value.get("schema") == OLD_ACTION:
            value, error = tried(lift, value, self._parse)
            if error:
                reason = str(error) if isinstance(error, DecodeError) else unfit(error)
                raise DecodeError(f"{OLD_ACTION}: {reason}")
        if isinstance(kind, type) and issubclass(kind, EventMessage):
            check_event_type(value.get("eventType"))
        body, error = tried(msgspec.convert, self._amend[kind](value), kind)
        if error:
            raise DecodeError(unfit(error))
        return body

    def _choose(self, value: Any) -> Any:
        """Return the declared type of *value* by its schema."""
        if not isinstance(value, dict):
            raise DecodeError("the body is not an object")
        schema = value.get("schema")
        if schema is None and self._only:
            value.pop("schema", None)
            return self._only
        if schema is None:
            raise DecodeError(f"schema is missing, and could be {' or '.join(sorted(self._kinds))}")
        if not isinstance(schema, str):
            raise DecodeError("schema is not text")
        if schema in self._kinds:
            return self._kinds[schema]
        if schema == EVENT:
            raise Skip(f"{EVENT} is not read by this pipeline")
        if schema in KNOWN:
            raise DecodeError(f"schema {schema} is not read by this pipeline")
        raise DecodeError(f"unknown schema {named(schema)}")


def by_schema(types: tuple[Any, ...]) -> dict[str, Any]:
    """Return the types by the schema they read; none when a single type reads everything.

    Raises:
        ConfigError: several types cannot be told apart.
    """
    kinds: dict[str, Any] = {}
    for kind in types:
        config = getattr(kind, "__struct_config__", None)
        schema = config.tag if config and config.tag_field == "schema" else None
        if isinstance(schema, str) and schema not in kinds:
            kinds[schema] = kind
        elif len(types) > 1:
            name = getattr(kind, "__name__", repr(kind))
            raise ConfigError(f'{name} needs tag_field="schema" and a tag of its own beside other types')
    return kinds


def lifted(kinds: dict[str, Any]) -> bool:
    """Tell whether the older actions are to be lifted, and if so add them to *kinds*."""
    lifts = OLD_ACTION not in kinds and issubclass(kinds.get(ACTION, object), ActionMessage)
    if lifts:
        kinds[OLD_ACTION] = kinds[ACTION]
    return lifts


def mark(message: Message[Any], body: Any) -> None:
    """Set the record id and time of a body that may be of a user's own type, from attributes so named.

    An untyped body is known by its `actionId`.

    Raises:
        Skip: it is an event of a type not known.
    """
    if isinstance(body, EventMessage):
        check_event_type(body.event_type)
    if isinstance(body, dict):
        found = body.get("actionId")
        record, happened = found if isinstance(found, int) else None, None
    else:
        record, _ = tried(getattr, body, "record_id", None)
        happened, _ = tried(getattr, body, "occurred_at", None)
    message._record_id = str(record) if isinstance(record, str | int | UUID) else None
    message.occurred_at = happened if isinstance(happened, datetime) and happened.tzinfo else None


def check_event_type(event_type: object) -> None:
    """Skip events of types that are not known; one without a type is left to the decoder."""
    if isinstance(event_type, str) and event_type not in EVENT_TYPES and event_type not in EVENT_ALIASES:
        raise Skip(f"unknown event type {named(event_type)}")


def tried(function: Callable[..., Any], *args: Any) -> tuple[Any, Exception | None]:
    """Return the value of *function*, or None and its error."""
    try:
        return function(*args), None
    except Exception as error:  # noqa: BLE001  # the border to msgspec and to the users' own types
        return None, error


def depth(raw: bytes) -> int:
    """Return how many levels of lists and objects the JSON text *raw* opens; strings do not count.

    Linear, and nearly all in C: 1 MiB of brackets takes less than 0.1 s.
    """
    steps = array("b", TEXT.sub(b"", raw).translate(STEPS, FLAT))
    return max(accumulate(steps, initial=0))
