"""Reading bodies as the types that a pipeline declares."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import pytest
from msgspec import Struct

from flow.codec import Codec, TooLarge
from flow.errors import ConfigError, DecodeError
from flow.message import Message, Properties
from flow.outcome import Skip
from flow.schema import ActionMessage, EventMessage, Id, IdsMessage, Time
from tests.bodies import ALL, CANARY, IDS, NAMES, decoded, refusal, sample
from tests.messages import MemoryOrigin


class Order(Struct, tag_field="schema", tag="shop:order:1", frozen=True, kw_only=True):
    """A user's own message."""

    number: Id
    paid: Time | None = None
    lines: list["Order"] = []
    name: str = ""

    @property
    def record_id(self) -> UUID:
        return UUID(int=self.number)

    @property
    def occurred_at(self) -> Time | None:
        return self.paid


class Plain(Struct, frozen=True):
    """A user's own message without a schema."""

    word: str


@pytest.mark.parametrize("name", NAMES)
def test_every_message_of_the_campaign_server_is_read(name: str) -> None:
    message = decoded(sample(name))

    assert isinstance(message.body, ALL)
    assert message.record_id == {"campaign_updated": "5", "confirm_created": None}.get(name, "7")
    assert (message.occurred_at is None) == (name == "ids_supporter")


@pytest.mark.parametrize("kind", [IdsMessage, ActionMessage])
def test_a_body_without_schema_is_the_only_type_declared(kind: type) -> None:
    body = json.loads(sample("ids" if kind is IdsMessage else "action"))
    body.pop("schema", None)

    assert type(decoded(body, (kind,)).body) is kind
    assert type(decoded({**body, "schema": None}, (kind,)).body) is kind


def test_of_a_key_given_twice_the_last_one_wins() -> None:
    assert decoded(IDS % ',"actionId":8', (IdsMessage,)).body.action_id == 8
    assert decoded('{"actionId":"x","actionPageId":3,"orgId":2,"actionId":8}', (IdsMessage,)).record_id == "8"


@pytest.mark.parametrize("encoding", [None, "", "utf-8", "UTF-8", "identity"])
def test_no_encoding_is_an_encoding(encoding: str | None) -> None:
    message = with_encoding(encoding)
    Codec(ALL).decode(message)

    assert message.record_id == "7"


def test_the_whole_body_is_kept_for_forwarding() -> None:
    message = decoded(sample("action"))

    assert message.raw == sample("action")


def test_users_declare_their_own_messages_beside_ours() -> None:
    types = (ActionMessage, Order)
    body = '{"schema":"shop:order:1","number":"5","paid":"2026-01-01T00:00:00","lines":[{"number":"6"}]}'

    message = decoded(body, types)

    assert message.body.lines == [Order(number=6)]
    assert message.record_id == str(UUID(int=5))
    assert message.occurred_at == datetime(2026, 1, 1, tzinfo=UTC)
    assert isinstance(decoded(sample("action_old"), types).body, ActionMessage)


def test_a_struct_without_schema_reads_every_body() -> None:
    assert decoded('{"word":"yes","schema":"shop:word:9"}', (Plain,)).body == Plain("yes")
    assert decoded('{"word":"yes","schema":"proca:event:2"}', (Plain,)).record_id is None


@pytest.mark.parametrize("kind", [dict, dict[str, Any]])
def test_an_untyped_body_is_an_object(kind: Any) -> None:
    message = decoded('{"actionId":7,"schema":"any"}', (kind,))

    assert message.body == {"actionId": 7, "schema": "any"}
    assert message.record_id == "7"
    assert decoded({"actionId": CANARY}, (kind,)).record_id is None
    assert refusal("[1]", (kind,)) == "the body is not an object"


def test_a_users_message_of_the_old_schema_is_not_lifted() -> None:
    class Old(Struct, tag_field="schema", tag="proca:action:1", rename="camel", frozen=True):
        action_id: int

    assert decoded(sample("action_old"), (Old, ActionMessage)).body == Old(7)


@pytest.mark.parametrize(
    ("types", "limits", "sentence"),
    [
        ((), {}, "Codec.types must name at least one type, got none"),
        (
            (ActionMessage, Plain),
            {},
            'Plain needs tag_field="schema" and a tag of its own beside other types',
        ),
        ((ActionMessage, dict), {}, 'dict needs tag_field="schema" and a tag of its own beside other types'),
        ((Order, Order), {}, 'Order needs tag_field="schema" and a tag of its own beside other types'),
        ((Plain,), {"max_size": 0}, "Codec.max_size must be a whole number of at least 1, got 0"),
        ((Plain,), {"max_depth": 501}, "Codec.max_depth must be at most 500, got 501"),
        ((Plain,), {"max_depth": 0}, "Codec.max_depth must be a whole number of at least 1, got 0"),
    ],
)
def test_types_and_limits_that_cannot_work_are_refused(
    types: tuple[Any, ...], limits: dict[str, int], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        Codec(types, **limits)

    assert str(refused.value) == sentence


def test_types_that_json_cannot_become_are_refused() -> None:
    class Unreadable(Struct):
        either: list[int] | tuple[int, ...]

    with pytest.raises(ConfigError, match=r"Codec\.types cannot be read from JSON: "):
        Codec((Unreadable,))


@pytest.mark.parametrize("name", ["action", "action_old", "ids_supporter"])
def test_a_known_schema_that_is_not_declared_is_refused(name: str) -> None:
    schema = json.loads(sample(name))["schema"]

    assert refusal(sample(name), (Order,)) == f"schema {schema} is not read by this pipeline"


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "utf-16", CANARY])
def test_an_encoded_body_is_refused_unread(encoding: str) -> None:
    """F34: nothing is unpacked."""
    with pytest.raises(DecodeError, match=r"^content encoding .* is not utf-8 or identity$") as refused:
        Codec(ALL).decode(with_encoding(encoding))

    assert CANARY.lower() not in str(refused.value).lower()


def test_unreadable_properties_are_refused_where_an_encoding_is_set() -> None:
    """F32: and only there; nobody else looks at them."""

    class Unreadable(MemoryOrigin):
        def properties(self, header: bytes) -> Properties:
            raise DecodeError("unreadable properties")

    message = Unreadable().message(sample("action"))
    Codec(ALL).decode(message)
    assert message.record_id == "7"
    message.header = message.header[:12] + b"\x40\x00\xff"

    with pytest.raises(DecodeError, match=r"^unreadable properties$"):
        Codec(ALL).decode(message)


def test_a_body_over_the_limit_is_refused() -> None:
    size = len(sample("action"))

    assert (
        refusal(sample("action"), max_size=size - 1)
        == f"the body has {size} bytes, more than the {size - 1} allowed"
    )
    assert decoded(sample("action"), max_size=size).record_id == "7"


def test_a_body_that_was_not_taken_is_too_large_and_cannot_be_parked() -> None:
    """F33."""
    message = MemoryOrigin().message(b"")
    message.header = message.header[:4] + (5_000_000).to_bytes(8, "big") + message.header[12:]

    with pytest.raises(TooLarge, match=r"^the body has 5000000 bytes, more than the 1048576 allowed$"):
        Codec(ALL).decode(message)


@pytest.mark.parametrize(
    ("body", "types"),
    [
        (sample("email_status"), (ActionMessage,)),
        (sample("email_status"), (ActionMessage, IdsMessage)),
        ({"schema": "proca:event:2", "eventType": "new_thing", "timestamp": "?"}, (ActionMessage,)),
        ({"schema": "proca:event:2", "eventType": "new_thing"}, ALL),
        ({"schema": "proca:event:2", "eventType": "new_thing"}, (EventMessage,)),
        ({"schema": "proca:event:2", "eventType": "new_thing", "supporter": "new kind"}, ALL),
        ({"schema": "proca:event:2", "eventType": CANARY}, ALL),
    ],
)
def test_events_not_declared_or_not_known_are_skipped(body: Any, types: tuple[Any, ...]) -> None:
    with pytest.raises(Skip) as skipped:
        decoded(body, types)

    assert "event" in skipped.value.reason
    assert CANARY not in skipped.value.reason


def test_an_event_has_one_name_whatever_the_server_calls_it() -> None:
    named = {**json.loads(sample("email_status")), "eventType": "supporter.email_status"}

    assert decoded(named, ALL).body == decoded(sample("email_status"), ALL).body
    assert decoded({**named, "orgId": "2"}, ALL).body.event_type == "email_status"


def test_an_event_without_a_type_is_refused() -> None:
    assert refusal({"schema": "proca:event:2", "timestamp": None}) == "eventType is missing"
    assert refusal({"schema": "proca:event:2", "eventType": 7}) == "eventType is not text"


def with_encoding(encoding: str | None) -> Message[Any]:
    """Make a delivery whose properties name a content encoding."""
    origin = MemoryOrigin()
    message = origin.message(sample("action"))
    message.header = message.header[:12] + b"\x40\x00"
    origin.given[message.header] = Properties(content_encoding=encoding)
    return message
