"""The messages of the campaign server, sample by sample."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from flow import schema
from flow.schema import (
    ActionMessage,
    Contact,
    EventMessage,
    IdsMessage,
    Wire,
)
from tests.bodies import sample

STRUCTS = [kind for kind in vars(schema).values() if isinstance(kind, type) and issubclass(kind, Wire)]
CANARY = "canary-7f3a"


def test_ids_are_read_with_and_without_a_schema() -> None:
    action = msgspec.json.decode(sample("ids"), type=IdsMessage)
    supporter = msgspec.json.decode(sample("ids_supporter"), type=IdsMessage)

    assert action == IdsMessage(action_id=7, action_page_id=3, org_id=2)
    assert (supporter.supporter_id, supporter.stage) == (9, "supporter_confirm")
    assert supporter.record_id == "7"


def test_every_listed_field_of_an_action_is_read() -> None:
    message = msgspec.json.decode(sample("action"), type=ActionMessage)

    sent = json.loads(sample("action"))
    del sent["notKnownYet"], sent["contact"]["favouriteRiver"]
    assert covers(msgspec.to_builtins(message), sent) == []
    assert message.action.created_at == datetime(2026, 2, 19, 15, 17, 29, tzinfo=UTC)
    assert message.occurred_at == message.action.created_at
    assert message.record_id == "7"


def test_custom_fields_and_donations_keep_the_kind_of_their_values() -> None:
    action = msgspec.json.decode(sample("action"), type=ActionMessage).action

    assert action.custom_fields["years"] == [2024, 2025]
    assert [type(year) for year in action.custom_fields["years"] or []] == [int, int]
    assert action.custom_fields["member"] is True
    assert action.custom_fields["nothing"] is None
    assert action.donation is not None
    assert action.donation.amount == Decimal(1250)


def test_times_keep_their_offset() -> None:
    privacy = msgspec.json.decode(sample("action"), type=ActionMessage).privacy

    assert privacy is not None
    assert privacy.email_status_changed is not None
    assert privacy.email_status_changed.utcoffset() == timedelta(hours=1)
    assert privacy.email_status_changed == datetime(2026, 2, 20, 8, tzinfo=timezone(timedelta(hours=1)))


def test_what_senders_leave_out_may_be_missing() -> None:
    message = msgspec.json.decode(sample("action_encrypted"), type=ActionMessage)

    assert (message.org, message.org_id, message.privacy, message.tracking) == (None, None, None, None)
    assert (message.contact.dupe_rank, message.contact.email) == (None, None)
    assert message.personal_info is not None
    assert message.personal_info.encrypt_key.id == 11


@pytest.mark.parametrize("written", ["street_number", "streetNumber"])
def test_the_number_in_the_street_is_found_as_either_sender_writes_it(written: str) -> None:
    contact = msgspec.convert({"contactRef": "r", "address": {written: "12/4"}}, Contact)

    assert contact.address is not None
    assert contact.address.house_number == "12/4"


def test_an_event_holds_the_parts_of_its_type() -> None:
    status = msgspec.json.decode(sample("email_status"), type=EventMessage)
    confirm = msgspec.json.decode(sample("confirm_created"), type=EventMessage)

    assert status.supporter is not None
    assert status.supporter.privacy is not None
    assert status.supporter.privacy.email_status == "bounce"
    assert (status.record_id, confirm.record_id) == ("7", None)
    assert status.occurred_at == datetime(2026, 2, 21, 9, tzinfo=UTC)
    assert confirm.confirm is not None
    assert confirm.confirm["operation"] == "add_partner"


def test_the_record_of_an_event_is_its_action_or_else_its_campaign() -> None:
    campaign = EventMessage(event_type="campaign_updated", campaign_id=5)

    assert campaign.record_id == "5"


def test_what_is_read_can_be_written_and_read_again() -> None:
    message = msgspec.json.decode(sample("action"), type=ActionMessage)

    written = msgspec.json.encode(message)

    assert json.loads(written)["schema"] == "proca:action:2"
    assert msgspec.json.decode(written, type=ActionMessage) == message


def test_a_subclass_reads_the_same_schema_with_more_fields() -> None:
    class RiverContact(Contact, frozen=True, kw_only=True):
        favourite_river: str

    class RiverMessage(ActionMessage, frozen=True, kw_only=True):
        contact: RiverContact

    message = msgspec.json.decode(sample("action"), type=RiverMessage)

    assert message.contact.favourite_river == "Danube"
    assert message.action_id == 7


@pytest.mark.parametrize("kind", STRUCTS, ids=lambda kind: kind.__name__)
def test_no_text_of_a_sender_is_printed(kind: type[Wire]) -> None:
    whole = kind(**dict.fromkeys(kind.__struct_fields__, CANARY))  # Structs do not check their constructor

    printed = f"{whole!r} {whole} {whole.__rich_repr__()} {[whole]}"

    assert CANARY not in printed
    assert kind.__name__ in printed


def test_the_ids_are_printed() -> None:
    message = msgspec.json.decode(sample("action"), type=ActionMessage)

    assert repr(message) == "ActionMessage(action_id=7, action_page_id=3, campaign_id=5, org_id=2)"
    assert repr(message.contact) == "Contact()"


def test_there_is_nothing_to_print_for_an_id_that_is_text() -> None:
    assert repr(schema.Campaign(name="c", external_id=CANARY)) == "Campaign()"


def covers(read: Any, sent: Any, path: str = "") -> list[str]:
    """Return the paths of what was sent and is missing or different in what was read; times apart."""
    if isinstance(sent, dict) and isinstance(read, dict):
        return [
            lost
            for name, value in sent.items()
            for lost in (covers(read[name], value, f"{path}.{name}") if name in read else [f"{path}.{name}"])
        ]
    if path.endswith(("At", "Changed", ".amount")):
        return [] if read is not None else [path]
    return [] if read == sent else [path]
