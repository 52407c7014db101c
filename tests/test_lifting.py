"""Turning `proca:action:1` into `proca:action:2`."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from flow.codec import Codec
from flow.errors import DecodeError
from flow.lifting import lift
from flow.schema import ActionMessage, Contact, PublicKey
from tests.bodies import sample
from tests.messages import MemoryOrigin


def old(**changes: Any) -> dict[str, Any]:
    """Return the sample of an old action with parts changed; a dict is merged into the part."""
    message: dict[str, Any] = json.loads(sample("action_old"))
    for name, change in changes.items():
        message[name] = {**message[name], **change} if isinstance(change, dict) else change
    return message


def read(message: Any) -> ActionMessage:
    delivery = MemoryOrigin().message(message)
    Codec((ActionMessage,)).decode(delivery)
    body = delivery.body
    assert isinstance(body, ActionMessage)
    return body


def test_an_old_action_is_read_as_a_new_one() -> None:
    body = read(old())

    assert (body.action_id, body.action_page_id, body.campaign_id, body.stage) == (7, 3, 5, "deliver")
    assert body.action.created_at == datetime(2020, 10, 22, 14, 5, 24, tzinfo=UTC)
    assert body.action.custom_fields == {"comment": "Clean water"}
    assert (body.org, body.org_id, body.personal_info) == (None, None, None)
    assert body.campaign.external_id == 614
    assert body.tracking is not None
    assert body.tracking.source == "newsletter"


def test_the_personal_data_is_merged_over_the_contact() -> None:
    payload = json.dumps({"firstName": "Eve", "lastName": "Waters", "ref": "forged", "contactRef": "forged"})

    contact = read(old(contact={"payload": payload})).contact

    assert contact == Contact(
        contact_ref="fingerprint-7", first_name="Eve", last_name="Waters", email="ada@example.org", area="AT"
    )


@pytest.mark.parametrize("payload", ["", None, "{}", {}])
def test_an_old_contact_may_have_no_more_than_its_own_fields(payload: object) -> None:
    contact = read(old(contact={"payload": payload})).contact

    assert (contact.first_name, contact.last_name) == ("Ada", None)


def test_an_encrypted_contact_becomes_personal_info() -> None:
    body = read(sample("action_old_encrypted"))

    assert body.personal_info is not None
    assert body.personal_info.payload == "c2VhbGVk"
    assert body.personal_info.encrypt_key == PublicKey(public="A" * 43)
    assert body.personal_info.sign_key.id is None
    assert body.contact.contact_ref == "fingerprint-7"
    assert body.org_id == 2


@pytest.mark.parametrize("missing", ["payload", "publicKey", "signKey"])
def test_an_encrypted_contact_without_its_keys_is_refused(missing: str) -> None:
    message = json.loads(sample("action_old_encrypted"))
    del message["contact"][missing]

    with pytest.raises(DecodeError, match=rf"proca:action:1: contact\.{missing} is missing, and the contact"):
        read(message)


@pytest.mark.parametrize(
    ("privacy", "with_consent", "opt_in"),
    [
        ({"communication": True, "givenAt": "2020-10-22T14:05:24Z"}, True, True),
        ({"communication": False, "givenAt": None}, True, False),
        ({"communication": None}, True, None),
    ],
)
def test_communication_is_the_opt_in(
    privacy: dict[str, Any], with_consent: bool, opt_in: bool | None
) -> None:
    lifted = read(old(privacy=privacy)).privacy

    assert lifted is not None
    assert (lifted.with_consent, lifted.opt_in) == (with_consent, opt_in)


def test_without_privacy_there_is_no_consent() -> None:
    assert read(old(privacy=None)).privacy is None


def test_an_old_test_action_stays_one() -> None:
    assert read(old(action={"testing": True})).action.testing is True


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"contact": {"payload": "not json"}}, "proca:action:1: contact.payload: not JSON"),
        ({"contact": {"payload": "[1]"}}, "proca:action:1: contact.payload is not an object"),
        ({"contact": {"payload": 7}}, "proca:action:1: contact.payload is not an object"),
        ({"contact": {"payload": "[" * 5000}}, "proca:action:1: contact.payload: nested deeper than 100"),
        ({"contact": {"payload": '{"phone": 7}'}}, "contact.phone is not text"),
        ({"contact": {"ref": None}}, "contact.contactRef is not text"),
        ({"contact": None}, "contact is not an object"),
        ({"action": 7}, "action is not an object"),
        ({"action": {"fields": [7]}}, "action.customFields is not an object"),
        ({"privacy": {"communication": "yes"}}, "privacy.optIn is not true or false"),
        ({"privacy": "yes"}, "privacy is not an object"),
    ],
)
def test_an_old_action_with_a_wrong_part_is_refused_with_its_place(
    change: dict[str, Any], reason: str
) -> None:
    with pytest.raises(DecodeError) as refused:
        read(old(**change))

    assert str(refused.value).startswith(reason)


def test_the_old_object_is_not_changed() -> None:
    message = old()

    lift(message, json.loads)

    assert message == old()


def test_a_declared_subclass_gets_old_actions_too() -> None:
    class RiverMessage(ActionMessage, frozen=True, kw_only=True):
        river: str = "Danube"

    delivery = MemoryOrigin().message(old())
    Codec((RiverMessage,)).decode(delivery)

    assert isinstance(delivery.body, RiverMessage)
    assert delivery.record_id == "7"
