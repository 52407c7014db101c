"""What the CRM pipeline delivers, to whom, and as what."""

import json
import re
import time
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any

import anyio
import pytest
from nacl.public import Box, PrivateKey

from flow.demo import signatures
from flow.demo.crm_server import CrmServer
from flow.demo.crm_store import Faults
from flow.errors import ConfigError
from pipelines import crm as crm_module
from pipelines.crm import Crm, CrmSettings
from tests.pipelines.conftest import Desk, OpenDesk, signature, told

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[2] / "docs" / "crm-api.md"
MODES = ["all", "with_consent", "opt_in", "double_opt_in"]
KEYS = {"encryptKey": {"id": 3, "public": "cHVi"}, "signKey": {"id": 4, "public": "c2ln"}}
ENCRYPTED = {"payload": "Y2FuYXJ5", "nonce": "bm9uY2U", **KEYS}


def base64url(raw: bytes) -> str:
    return urlsafe_b64encode(raw).decode().rstrip("=")


async def test_a_signature_arrives_with_contact_consent_page_and_campaign(crm: CrmServer, desk: Desk) -> None:
    body = signature(7)

    verdicts = await desk.deliver(body)

    assert verdicts == [None]
    record = crm.records["action-7"]
    assert record["contact"]["email"] == "canary@example.org"
    assert record["contact"]["contactRef"] == body["contact"]["contactRef"]
    assert record["privacy"]["withConsent"] is True
    assert record["actionPage"]["name"] == body["actionPage"]["name"]
    assert record["action"]["customFields"] == body["action"]["customFields"]
    assert record["crmCampaign"] == "crm-614"
    assert record["subscribe"] is None
    assert record["orgId"] == body["orgId"]


async def test_a_deprecated_action_without_privacy_arrives(crm: CrmServer, desk: Desk) -> None:
    old = signature(7) | {"schema": "proca:action:1", "privacy": None}
    old["contact"] = {"ref": "r1", "firstName": "A", "email": "a@example.org", "payload": '{"country":"PL"}'}
    del old["org"], old["orgId"]

    verdicts = await desk.deliver(old)

    assert verdicts == [None]
    assert crm.records["action-7"]["contact"]["country"] == "PL"
    assert crm.records["action-7"]["privacy"]["withConsent"] is False


@pytest.mark.parametrize(
    ("privacy", "modes"),
    [
        ({"withConsent": False, "optIn": None}, ["all"]),
        ({"withConsent": True, "optIn": None}, ["all", "with_consent"]),
        ({"withConsent": True, "optIn": False}, ["all", "with_consent"]),
        ({"withConsent": True, "optIn": True}, ["all", "with_consent", "opt_in"]),
        ({"withConsent": True, "optIn": True, "emailStatus": "double_opt_in"}, MODES),
        ({"withConsent": True, "optIn": True, "emailStatus": "bounce"}, ["all", "with_consent", "opt_in"]),
    ],
)
async def test_the_mode_says_whose_signature_is_delivered(
    crm: CrmServer, open_desk: OpenDesk, privacy: dict[str, Any], modes: list[str]
) -> None:
    for number, mode in enumerate(MODES):
        async with open_desk(mode=mode) as desk:
            [verdict] = await desk.deliver(signature(number, **privacy))

        assert (verdict is None) == (mode in modes), mode
        assert (f"action-{number}" in crm.records) == (mode in modes), mode
        if verdict is not None:
            assert told(verdict) == ("Skip", f"not wanted: the mode is {mode}")


async def test_signatures_of_one_page_and_organisation_go_in_one_call(crm: CrmServer, desk: Desk) -> None:
    other = signature(9)
    other["orgId"] = 99

    await desk.deliver(signature(7), signature(8), other)

    assert sorted([item["id"] for item in call.items] for call in crm.calls) == [
        ["action-7", "action-8"],
        ["action-9"],
    ]


async def test_an_action_that_comes_twice_in_a_batch_is_sent_once(crm: CrmServer, desk: Desk) -> None:
    verdicts = await desk.deliver(signature(7), signature(7))

    assert verdicts == [None, None]
    assert crm.effects == {"action-7": 1}


async def test_test_actions_are_skipped(crm: CrmServer, desk: Desk) -> None:
    body = signature(7)
    body["action"]["testing"] = True

    [verdict] = await desk.deliver(body)

    assert told(verdict) == ("Skip", "a test action")
    assert not crm.calls


async def test_test_actions_go_to_the_test_crm_and_nothing_else_does(
    crm: CrmServer, open_desk: OpenDesk
) -> None:
    """Each CRM gets its own token: the token of the live one is never shown to the other."""
    body = signature(8)
    body["action"]["testing"] = True
    async with CrmServer() as test_crm:
        async with open_desk(test_url=test_crm.url, test_token=test_crm.token) as desk:
            verdicts = await desk.deliver(signature(7), body)
        async with open_desk(test_url=test_crm.url) as desk:
            [tokenless] = await desk.deliver(body)

        assert verdicts == [None, None]
        assert set(crm.records) == {"action-7"}
        assert set(test_crm.records) == {"action-8"}
        assert told(tokenless) == ("Unavailable", "the test CRM refuses the token (401)")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("status", "subscribe"),
    [("double_opt_in", True), ("bounce", False), ("blocked", False), ("spam", False), ("unsub", False)],
)
async def test_news_of_an_address_are_applied_in_every_mode(
    crm: CrmServer, open_desk: OpenDesk, mode: str, status: str, subscribe: bool
) -> None:
    async with open_desk(mode=mode) as desk:
        verdicts = await desk.deliver(signatures.email_status(7, status))

    [record] = crm.records.values()
    assert verdicts == [None]
    assert record["subscribe"] is subscribe
    assert record["privacy"]["emailStatus"] == status
    assert record["contact"]["email"] == "supporter+7@example.org"
    assert record["id"].startswith("status-")


async def test_the_same_news_have_the_same_id_and_other_news_another(crm: CrmServer, desk: Desk) -> None:
    news = signatures.email_status(7, "bounce")

    await desk.deliver(news, attempt=1)
    await desk.deliver(news, attempt=2)
    await desk.deliver(signatures.email_status(7, "unsub"))

    assert sorted(crm.effects.values()) == [1, 2]


async def test_news_without_a_campaign_do_not_keep_it_from_signatures(crm: CrmServer, desk: Desk) -> None:
    body = signature(7)
    news = signatures.email_status(1) | {"campaign": None, "orgId": body["orgId"]}
    news["actionPageId"] = body["actionPageId"]

    verdicts = await desk.deliver(news, body)

    assert verdicts == [None, None]
    assert crm.records["action-7"]["crmCampaign"] == "crm-614"


@pytest.mark.parametrize(
    "changes",
    [
        {"eventType": "confirm_created", "confirm": {"code": "1"}},
        {"supporter": None},
        {"supporter": {"contact": {"contactRef": "r"}, "privacy": None}},
        {"supporter": {"contact": {"contactRef": "r"}, "privacy": {"emailStatus": "dreaming"}}},
    ],
)
async def test_events_that_mean_nothing_to_the_crm_are_skipped(
    crm: CrmServer, desk: Desk, changes: dict[str, Any]
) -> None:
    [verdict] = await desk.deliver(signatures.email_status(7) | changes)

    assert told(verdict) == ("Skip", "nothing to tell the CRM")
    assert not crm.calls


async def test_news_of_nobody_are_parked(desk: Desk) -> None:
    supporter = {"contact": None, "privacy": {"emailStatus": "bounce"}}

    [verdict] = await desk.deliver(signatures.email_status(7) | {"supporter": supporter})

    assert told(verdict) == ("Reject", "it does not say who it is about")


async def test_an_encrypted_contact_is_retried_and_names_its_key(crm: CrmServer, desk: Desk) -> None:
    action = signature(7) | {"personalInfo": ENCRYPTED}
    news = signatures.email_status(8)
    news["supporter"] = {**news["supporter"], "contact": None, "personalInfo": ENCRYPTED}

    verdicts = await desk.deliver(action, news)

    reason = "the contact is encrypted for key 3 and cannot be opened"
    assert [told(one) for one in verdicts] == [("Retry", reason)] * 2
    assert not crm.calls


async def test_encrypted_contacts_are_opened_with_the_key_store(
    crm: CrmServer, open_desk: OpenDesk, tmp_path: Path
) -> None:
    recipient, sender = PrivateKey.generate(), PrivateKey.generate()
    sealed = Box(sender, recipient.public_key).encrypt(b'{"email": "ada@example.org", "phone": "1"}')
    info = {
        "payload": base64url(sealed.ciphertext),
        "nonce": base64url(sealed.nonce),
        "encryptKey": {"id": 3, "public": base64url(bytes(recipient.public_key))},
        "signKey": {"id": 4, "public": base64url(bytes(sender.public_key))},
    }
    action, news, other = signature(7), signatures.email_status(8, "bounce"), signature(9)
    action["contact"] = {"contactRef": "r7", "area": "AT"}
    action["personalInfo"] = news["supporter"]["personalInfo"] = info
    other["personalInfo"] = ENCRYPTED
    keys = tmp_path / "keys.json"
    keys.touch(0o600)
    keys.write_text(
        json.dumps({base64url(bytes(recipient.public_key)): {"private": base64url(bytes(recipient))}})
    )

    async with open_desk(keys_file=str(keys)) as desk:
        opened, applied, unknown = await desk.deliver(action, news, other)

    assert (opened, applied) == (None, None)
    assert told(unknown)[0] == "Retry"
    contact = crm.records.pop("action-7")["contact"]
    assert {name: value for name, value in contact.items() if value} == {
        "contactRef": "r7",
        "area": "AT",
        "email": "ada@example.org",
        "phone": "1",
    }
    [record] = crm.records.values()
    assert record["contact"]["email"] == "ada@example.org"
    assert record["subscribe"] is False


async def test_a_campaign_is_looked_up_once_until_it_changes(crm: CrmServer, desk: Desk) -> None:
    elsewhere = signature(8)
    elsewhere["actionPageId"] = 99

    async with anyio.create_task_group() as together:
        together.start_soon(desk.deliver, signature(7))
        together.start_soon(desk.deliver, elsewhere)
    await desk.deliver(signature(9))
    before = crm.lookups["clean_water"]
    [updated] = await desk.deliver(signatures.campaign_updated())
    await desk.deliver(signature(10), signature(11))

    assert before == 1
    assert told(updated) == ("Skip", "campaigns are looked up again")
    assert crm.lookups["clean_water"] == 2


async def test_a_campaign_is_looked_up_again_when_it_is_old(crm: CrmServer, desk: Desk) -> None:
    """The news that it changed may have gone to another worker."""
    await desk.deliver(signature(7))
    old = time.monotonic() - crm_module.CAMPAIGN_KEPT - 1
    desk.pipeline.campaigns = dict.fromkeys(desk.pipeline.campaigns, ("crm-old", old))

    await desk.deliver(signature(8))

    assert crm.records["action-8"]["crmCampaign"] == "crm-614"


async def test_a_campaign_the_crm_does_not_know_is_asked_for_again(crm: CrmServer, desk: Desk) -> None:
    crm.faults = Faults(unknown_campaigns=["clean_water"])
    [unknown] = await desk.deliver(signature(7))
    crm.faults = Faults()
    [known] = await desk.deliver(signature(7), attempt=2)

    assert told(unknown) == ("Retry", "the CRM does not know the campaign")
    assert known is None


async def test_every_invented_signature_is_delivered(crm: CrmServer, desk: Desk) -> None:
    verdicts = await desk.deliver(*signatures.bodies(range(300)))

    assert verdicts == [None] * 300
    assert crm.effects == {f"action-{number}": 1 for number in range(300)}


def test_the_pipeline_as_it_stands_gives_no_warnings() -> None:
    Crm.check()

    assert Crm.warnings() == []


async def test_a_file_of_authorities_that_is_none_ends_it_before_anything_is_consumed(
    open_desk: OpenDesk,
) -> None:
    with pytest.raises(ConfigError, match=r"^the file of authorities for the CRM cannot be read \(no cert"):
        await open_desk(cafile=__file__).__aenter__()


def test_the_settings_are_those_of_the_document() -> None:
    named = set(re.findall(r"`CRM_(\w+)`", DOCUMENT.read_text())) - {"TOKEN_FILE", "TEST_TOKEN_FILE"}

    assert named == {name.upper() for name in CrmSettings.__annotations__ if name != "prefix"} - {"KEYS"} | {
        "KEYS_FILE"
    }
