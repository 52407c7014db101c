import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from flow.errors import DecodeError
from flow.message import Message, Properties
from flow.parking import ATTEMPTS, QUEUE, REASON, REPLAYS, Parked, parked_headers, read_parked, replay_headers

FAILED_AT = datetime(2024, 5, 1, 10, 0, tzinfo=UTC)
EARLIER = datetime(2024, 4, 1, 10, 0, tzinfo=UTC)
NOW = datetime(2024, 5, 1, 12, 30, 15, tzinfo=UTC)
BODY = b'{"schema": "proca:ids:1"}'


class Source:
    """An origin that decodes as the broker wing does and settles nothing."""

    prefetch = 10
    outstanding = 1
    alive = True

    def __init__(self, queue: str) -> None:
        self.queue = queue

    def ack(self, message: Message[Any]) -> None: ...
    def reject(self, message: Message[Any]) -> None: ...
    def release(self, message: Message[Any]) -> None: ...

    def properties(self, header: bytes) -> Properties:
        content = ContentHeader()
        try:
            content.unmarshal(header)
        except Exception as error:
            raise DecodeError("unreadable properties") from error
        found = content.properties
        return Properties(
            headers=found.headers or {},
            message_id=found.message_id or None,
            content_type=found.content_type or None,
            content_encoding=found.content_encoding or None,
        )


def delivered(
    queue: str = "acme.crm",
    exchange: str = "deliver",
    routing_key: str = "acme.system.action",
    body: bytes = BODY,
    header: bytes | None = None,
    **properties: Any,
) -> Message[Any]:
    """Return a message as a consumer of *queue* gets it."""
    names = [name.encode("utf-8", "surrogateescape") for name in (exchange, routing_key)]
    routing = b"".join(bytes([len(name)]) + name for name in names)
    if header is None:
        header = ContentHeader(0, len(body), Basic.Properties(**properties)).marshal()
    return Message(Source(queue), 1, False, routing, header, body, 0.0)


def death(queue: str, reason: str, count: int = 1, exchange: str = "deliver", **more: Any) -> dict[str, Any]:
    key = more.pop("key", "acme.system.action")
    at = more.pop("time", FAILED_AT)
    return {
        "queue": queue,
        "reason": reason,
        "count": count,
        "exchange": exchange,
        "routing-keys": [key],
        "time": at,
    } | more


def looped(count: int = 2, **headers: Any) -> Message[Any]:
    """Return a message that came back through the retry loop *count* times."""
    expired = death("system.retry", "expired", count, "system.fail", key="acme.crm")
    first = {"x-first-death-queue": "acme.crm", "x-first-death-reason": "rejected"}
    deaths = {"x-death": [expired, death("acme.crm", "rejected", count)]}
    return delivered(
        exchange="system.retry",
        routing_key="acme.crm",
        headers=deaths | first | {"x-first-death-exchange": "deliver"} | headers,
        message_id="m-1",
        content_type="application/json",
    )


def in_the_park(headers: dict[str, str | int], body: bytes = BODY, **properties: Any) -> Message[Any]:
    return delivered(
        "system.dead", "system.park", "", body, headers=headers, message_id="fresh", **properties
    )


def park(message: Message[Any], reason: str = "the target refused it", at: datetime = NOW) -> Parked:
    return read_parked(in_the_park(parked_headers(message, reason, "Crm", at), message.raw))


def test_a_parked_message_tells_queue_pipeline_attempts_reason_and_times() -> None:
    parked = park(looped(2))

    assert (parked.queue, parked.pipeline, parked.attempts) == ("acme.crm", "Crm", 3)
    assert parked.reason == "the target refused it"
    assert parked.first_failed_at == FAILED_AT
    assert parked.parked_at == NOW
    assert parked.size == len(BODY)


@pytest.mark.parametrize(
    ("body", "action"),
    [
        (b'{"contact": {"actionId": 8}, "actionId": 7}', 7),
        (BODY, None),
        (b'{"actionId": "alice@example.org"}', None),
        (b'{"actionId": 7', None),
        (b'{"actionId": 7, "name": "\xff"}', 7),
        (b"[" * 100_000, None),
        (b"", None),
    ],
)
def test_a_parked_message_tells_the_action_that_its_body_names(body: bytes, action: int | None) -> None:
    assert park(delivered(body=body)).action_id == action


def test_a_parked_message_tells_where_it_was_first_published() -> None:
    parked = park(looped())

    assert (parked.exchange, parked.routing_key) == ("deliver", "acme.system.action")


def test_a_message_parked_at_its_first_attempt_tells_its_own_exchange_and_the_present_time() -> None:
    parked = park(delivered(message_id="m-1"))

    assert (parked.exchange, parked.routing_key) == ("deliver", "acme.system.action")
    assert parked.attempts == 1
    assert parked.first_failed_at == parked.parked_at == NOW


def test_the_original_message_id_and_content_type_are_kept() -> None:
    parked = park(looped())

    assert (parked.message_id, parked.content_type) == ("m-1", "application/json")


def test_a_message_without_id_has_none_after_parking() -> None:
    parked = park(delivered())

    assert (parked.message_id, parked.content_type) == (None, None)


@pytest.mark.parametrize("marked", [True, False], ids=["first-death headers", "only the times"])
@pytest.mark.parametrize("order", [1, -1])
def test_the_first_death_is_found_in_any_order_of_the_entries(order: int, marked: bool) -> None:
    entries = [
        death("system.retry", "expired", exchange="system.fail", key="acme.crm"),
        death("acme.crm", "rejected", time=EARLIER, key="acme.custom.action"),
    ][::order]
    first = {"x-first-death-queue": "acme.crm", "x-first-death-reason": "rejected"} if marked else {}

    parked = park(
        delivered(exchange="system.retry", routing_key="acme.crm", headers={"x-death": entries} | first)
    )

    assert (parked.exchange, parked.routing_key) == ("deliver", "acme.custom.action")
    assert parked.first_failed_at == EARLIER


@pytest.mark.parametrize(
    "deaths",
    [
        "text",
        [],
        ["text"],
        [{}],
        [{"time": "text", "exchange": 4, "routing-keys": "text"}],
        [{"routing-keys": []}],
    ],
)
def test_forged_deaths_never_hinder_parking(deaths: Any) -> None:
    parked = park(delivered(headers={"x-death": deaths}))

    assert parked.queue == "acme.crm"
    assert parked.attempts == 1


def test_headers_that_would_send_copies_or_expire_are_never_copied() -> None:
    harmful: dict[str, Any] = {
        "CC": ["other.crm"],
        "BCC": ["other.crm"],
        "x-last-death-queue": "q",
        "secret": "s",
    }

    headers = parked_headers(looped(**harmful), "reason", "Crm", NOW)

    assert all(name.startswith("x-flow-") for name in headers)
    assert all(isinstance(value, str | int) for value in headers.values())


def test_a_long_reason_is_cut_to_one_kibibyte_between_two_letters() -> None:
    headers = parked_headers(delivered(), "ä" * 600 + "x", "Crm", NOW)
    odd = parked_headers(delivered(), "x" + "ä" * 600, "Crm", NOW)

    assert headers[REASON] == "ä" * 512
    assert odd[REASON] == "x" + "ä" * 511


def test_a_routing_key_that_is_no_text_can_be_parked() -> None:
    headers = parked_headers(delivered(routing_key="a\udcffb"), "reason", "Crm", NOW)

    assert headers["x-flow-routing-key"] == r"a\udcffb"


def test_a_message_with_unreadable_properties_can_be_parked() -> None:
    broken = struct.pack(">HHQH", 60, 0, len(BODY), 0x2000) + struct.pack(">I", 500) + b"\x07x-death"

    parked = park(delivered(header=broken), "unreadable properties")

    assert (parked.queue, parked.attempts, parked.reason) == ("acme.crm", 1, "unreadable properties")


def test_the_id_stays_the_same_when_the_broker_delivers_the_parked_message_again() -> None:
    headers = parked_headers(looped(), "reason", "Crm", NOW)

    first = read_parked(in_the_park(headers))
    again = read_parked(in_the_park(headers | {"x-delivery-count": 3}))

    assert first.id == again.id
    assert len(first.id) == 12


def test_different_messages_have_different_ids() -> None:
    headers = parked_headers(looped(), "reason", "Crm", NOW)
    messages = [
        in_the_park(headers),
        in_the_park(headers, b"other"),
        in_the_park(headers | {QUEUE: "other.crm"}),
    ]

    ids = {read_parked(message).id for message in messages}

    assert len(ids) == 3


def test_what_the_retry_loop_could_not_route_tells_its_queue_and_the_missing_binding() -> None:
    deaths = [death("system.retry", "expired", key="acme.crm"), death("acme.crm", "rejected", 4)]
    lost = delivered("system.dead", "system.retry", "acme.crm", headers={"x-death": deaths}, message_id="m-1")

    parked = read_parked(lost)

    assert parked.queue == "acme.crm"
    assert parked.reason == "system.retry found no queue bound with the key acme.crm"
    assert (parked.attempts, parked.message_id, parked.parked_at) == (5, "m-1", None)


def test_a_foreign_message_in_the_park_has_no_queue_to_go_back_to() -> None:
    parked = read_parked(delivered("system.dead", "system.park", "some.key"))

    assert parked.queue is None
    assert parked.reason == "unknown: it was not parked by flow"


@pytest.mark.parametrize(
    "headers",
    [
        {"x-flow-parked-at": "yesterday", "x-flow-attempts": "many", "x-flow-queue": 7},
        {"x-flow-parked-at": 4, "x-flow-attempts": -1, "x-flow-reason": True},
        {"x-flow-parked-at": "2024-05-01T12:00:00", "x-flow-first-failed-at": ""},
        {"x-flow-queue": "q" * 256},
        {"x-flow-queue": ""},
    ],
)
def test_forged_parking_headers_are_read_as_unknown(headers: dict[str, Any]) -> None:
    parked = read_parked(in_the_park(headers))

    assert parked.queue is None
    assert parked.attempts == 1
    assert parked.parked_at is None or parked.parked_at.tzinfo is not None


def test_a_replay_starts_at_attempt_one_and_remembers_its_beginning() -> None:
    back = delivered(exchange="system.retry", routing_key="acme.crm", headers=replay_headers(park(looped())))

    assert back.attempt == 1
    assert not any("death" in name for name in back.headers)
    again = park(back, at=NOW.replace(year=2025))
    assert (again.exchange, again.routing_key) == ("deliver", "acme.system.action")
    assert again.first_failed_at == FAILED_AT
    assert again.replays == 1
    assert replay_headers(again)[REPLAYS] == 2


def test_a_replayed_message_that_failed_again_counts_only_its_new_attempts() -> None:
    replayed = replay_headers(park(looped(9)))
    deaths = [death("acme.crm", "rejected", 2, "system.retry", key="acme.crm", time=NOW)]

    again = park(
        delivered(exchange="system.retry", routing_key="acme.crm", headers=replayed | {"x-death": deaths})
    )

    assert again.attempts == 3
    assert (again.exchange, again.routing_key) == ("deliver", "acme.system.action")
    assert again.first_failed_at == FAILED_AT


def test_a_replay_that_no_queue_took_is_parked_with_its_queue() -> None:
    replayed = replay_headers(park(looped()))

    parked = read_parked(delivered("system.dead", "system.retry", "acme.crm", headers=replayed))

    assert parked.queue == "acme.crm"
    assert parked.reason == "system.retry found no queue bound with the key acme.crm"


def test_a_publisher_cannot_rewrite_a_beginning_without_a_replay() -> None:
    forged = {"x-flow-exchange": "elsewhere", "x-flow-first-failed-at": EARLIER.isoformat()}

    parked = park(delivered(headers=forged))

    assert parked.exchange == "deliver"
    assert parked.first_failed_at == NOW


def test_attempts_held_in_this_process_are_counted() -> None:
    message = looped(1)
    message.held = 2

    assert parked_headers(message, "reason", "Crm", NOW)[ATTEMPTS] == 4
