"""Messages as servers send them, in all their variants, through every pipeline to real targets."""

import hashlib
import json
from collections.abc import AsyncIterator
from email import policy
from email.parser import BytesParser
from typing import Any

import pytest

from flow.demo.crm_server import CrmServer
from flow.links import SECRET
from flow.outcome import Outcome
from flow.pipeline import Pipeline
from flow.pytest_plugin import Configure
from flow.records.database import Database
from flow.records.url import VARIABLE
from flow.targets.addresses import one_line
from flow.testing import run_messages
from pipelines.confirm import Confirm
from pipelines.crm import Crm
from pipelines.moderate import Moderate
from pipelines.sqs import Sqs
from pipelines.thank_you import ThankYou
from pipelines.webhook import Webhook
from tests.pipelines.conftest import TOKEN
from tests.pipelines.signatures import Signatures
from tests.pipelines.variants import ACTIONS, EVENTS, NAMES, VARIANTS, Case, address, cases, contacts
from tests.targets.mail_server import Postbox, Received, mail_server
from tests.targets.receiver import Receiver, receiving
from tests.targets.sqs_server import SqsServer

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("aws")]

LINKS = "https://act.example.org"


async def outcomes(pipeline: Pipeline[Any, Any], sent: list[Case]) -> dict[str, tuple[Outcome, str]]:
    results = await run_messages(pipeline, [case.raw for case in sent])
    return {
        str(case): (result.outcome, result.reason.partition(",")[0])
        for case, result in zip(sent, results, strict=True)
    }


def expected(sent: list[Case], **kinds: tuple[Outcome, str]) -> dict[str, tuple[Outcome, str]]:
    return {str(case): kinds[case.kind] for case in sent}


def fate(outcome: Outcome, reason: str, *kinds: str) -> dict[str, tuple[Outcome, str]]:
    return dict.fromkeys(kinds, (outcome, reason))


def delivered(*kinds: str) -> dict[str, tuple[Outcome, str]]:
    return fate(Outcome.DELIVERED, "", *kinds)


def of(sent: list[Case], *kinds: str) -> list[Case]:
    return [case for case in sent if case.kind in kinds]


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setenv(SECRET, "the-secret-that-signs-moderators-links")


@pytest.fixture
async def postbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Postbox]:
    async with mail_server() as one:
        for name, value in mail(one).items():
            monkeypatch.setenv(name, value)
        yield one


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


def mail(postbox: Postbox) -> dict[str, str]:
    return {
        "MAIL_HOST": "127.0.0.1",
        "MAIL_PORT": str(postbox.port),
        "MAIL_SECURITY": "none",
        "MAIL_SENDER": "mail@example.org",
        "MAIL_LINK_URL": LINKS,
    }


def hook(receiver: Receiver, prefix: str) -> dict[str, str]:
    return {
        f"{prefix}_URL": f"http://127.0.0.1:{receiver.port}/in",
        f"{prefix}_SECRETS": "a-secret-of-enough-characters",
        f"{prefix}_PORT": str(receiver.port),
        f"{prefix}_ALLOW_PRIVATE": "yes",
    }


UNREAD = fate(Outcome.PARKED, "schema proca:ids:1 is not read by this pipeline", "ids_supporter")
UNTOLD = fate(Outcome.PARKED, "schema is missing", "ids")


async def test_crm(configured: Configure, crm: CrmServer) -> None:
    sent = cases()

    found = await outcomes(configured(Crm, {"CRM_URL": crm.url, "CRM_TOKEN": TOKEN}), sent)

    assert found == expected(
        sent,
        **delivered("action", "action_old", "email_status"),
        **fate(
            Outcome.RETRYING, "the contact is encrypted for key 11 and cannot be opened", "action_encrypted"
        ),
        **fate(
            Outcome.RETRYING,
            "the contact is encrypted for key AAAAAAAAAAAA and cannot be opened",
            "action_old_encrypted",
        ),
        **fate(Outcome.SKIPPED, "campaigns are looked up again", "campaign_updated"),
        **fate(Outcome.SKIPPED, "nothing to tell the CRM", "confirm_created"),
        **UNREAD,
        **UNTOLD,
    )
    for case in of(sent, "action", "action_old"):
        record = crm.records[f"action-{case.number}"]
        told = record["contact"]
        [contact] = contacts(case.body)
        answers = case.body["action"].get("customFields", case.body["action"].get("fields"))
        assert (told["email"], told["firstName"]) == (address(case.number), contact["firstName"]), str(case)
        assert record["action"]["customFields"] == (answers or {}), str(case)
    for case in of(sent, "email_status"):
        told = crm.records[f"status-{hashlib.sha256(case.raw).hexdigest()}"]["contact"]
        assert told["firstName"] == case.body["supporter"]["contact"]["firstName"], str(case)


async def test_webhook(configured: Configure, receiver: Receiver) -> None:
    sent = cases()

    found = await outcomes(configured(Webhook, hook(receiver, "WEBHOOK")), sent)

    assert found == expected(sent, **delivered(*ACTIONS, *EVENTS), **UNREAD, **UNTOLD)
    assert {post.body for post in receiver.posts} == {case.raw for case in of(sent, *ACTIONS, *EVENTS)}


async def test_sqs(configured: Configure, sqs: SqsServer) -> None:
    sent, url = cases(), sqs.queue("real")
    settings = {"SQS_QUEUE_URL": url, "SQS_REGION": "eu-central-1", "SQS_ENDPOINT": sqs.url}

    found = await outcomes(configured(Sqs, settings), sent)

    assert found == expected(sent, **delivered(*ACTIONS, *EVENTS), **UNREAD, **UNTOLD)
    arrived = {one["Body"].encode(): one["MessageAttributes"] for one in sqs.received(url)}
    assert set(arrived) == {case.raw for case in of(sent, *ACTIONS, *EVENTS)}
    for case in of(sent, "email_status"):
        attributes = {name: value["StringValue"] for name, value in arrived[case.raw].items()}
        assert (attributes["Schema"], attributes["Stage"]) == ("proca:event:2", "email_status")


async def test_confirm(configured: Configure, postbox: Postbox) -> None:
    sent = cases()

    found = await outcomes(configured(Confirm, mail(postbox)), sent)

    nobody = "nothing is known of the action: is FLOW_DATABASE_URL set to its records?"
    assert found == expected(
        sent,
        **delivered("action", "action_old", "action_old_encrypted"),
        **fate(Outcome.PARKED, "there is no address to write to", "action_encrypted"),
        **fate(Outcome.SKIPPED, "proca:event:2 is not read by this pipeline", *EVENTS),
        **fate(Outcome.RETRYING, nobody, "ids_supporter"),
        **UNTOLD,
    )
    for case in of(sent, "action", "action_old", "action_old_encrypted"):
        received = mailed(postbox, case)
        assert f"{LINKS}/link/s/{case.number}/accept/fingerprint-7" in received.text()
        sound(received, case)


async def test_thank_you(configured: Configure, postbox: Postbox) -> None:
    sent = cases()

    found = await outcomes(configured(ThankYou, mail(postbox)), sent)

    assert found == expected(
        sent,
        **delivered("action"),
        **fate(Outcome.SKIPPED, "there is no consent", "action_encrypted", "action_old_encrypted"),
        **fate(Outcome.SKIPPED, "the action page has no template for it", "action_old"),
        **fate(Outcome.SKIPPED, "an event", *EVENTS),
        **fate(
            Outcome.RETRYING,
            "nothing is known of the action: is FLOW_DATABASE_URL set to its records?",
            "ids_supporter",
        ),
        **UNTOLD,
    )
    assert len(postbox.received) == len(VARIANTS)
    for case in of(sent, "action"):
        sound(mailed(postbox, case), case)


@pytest.mark.parametrize("way", ["webhook", "mail"])
async def test_moderate(configured: Configure, receiver: Receiver, postbox: Postbox, way: str) -> None:
    sent = cases(stages=("action_confirm", "supporter_confirm"))
    settings = hook(receiver, "MODERATE") if way == "webhook" else {"MODERATE_TO": "moderators@example.org"}

    found = await outcomes(configured(Moderate, settings | {"MODERATE_LINK_URL": LINKS}), sent)

    assert found == expected(
        sent,
        **delivered(*ACTIONS),
        **fate(Outcome.SKIPPED, "proca:event:2 is not read by this pipeline", *EVENTS),
        **UNREAD,
        **fate(Outcome.PARKED, "campaignId is missing", "ids"),
    )
    posts = {json.loads(post.body)["actionId"]: post.body for post in receiver.posts}
    mails = {int(str(one.mail["Message-ID"])[1:].partition(".")[0]): one for one in postbox.received}
    assert len(posts) + len(mails) == len(ACTIONS) * len(VARIANTS)
    for case in of(sent, *ACTIONS):
        place = f"{LINKS}/link/{case.body['stage'][0]}/{case.number}/accept/"
        if way == "webhook":
            assert case.raw in posts[case.number]
            assert json.loads(posts[case.number])["acceptLink"].startswith(place)
        else:
            assert place in mails[case.number].text()
            sound(mails[case.number], case)


async def test_ids_that_the_records_know(
    configured: Configure,
    database: Database,
    database_url: str,
    postbox: Postbox,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Senders of ids differ as well: in the records the names are, and those in any script."""
    monkeypatch.setenv(VARIABLE, database_url)
    signatures = Signatures(database, confirm=True)
    await signatures.define()
    sent = []
    for number, (variant, change) in enumerate(VARIANTS.items()):
        name = NAMES.get(variant, "Ada")[:100].replace("\0", "")
        body = await signatures.sign(address(number), first_name=name)
        change(body)
        sent.append(Case("ids_supporter", variant, number, body, json.dumps(body).encode()))

    for pipeline in (configured(Confirm, mail(postbox)), configured(ThankYou, mail(postbox))):
        postbox.received.clear()
        found = await outcomes(pipeline, sent)

        assert found == expected(sent, **delivered("ids_supporter"))
        for case in sent:
            text = mailed(postbox, case).text()
            assert ("Bcc" in text) is False
            if case.variant in ("arabic", "chinese", "emoji", "combining"):
                assert NAMES[case.variant] in text


def mailed(postbox: Postbox, case: Case) -> Received:
    [received] = [one for one in postbox.received if one.to == [address(case.number)]]
    return received


def sound(received: Received, case: Case) -> None:
    """Check that the mail is what mail programs can read, and shows what was typed as far as it is a name."""
    parsed = BytesParser(policy=policy.default).parsebytes(received.content)
    assert received.content.isascii()
    assert parsed["Bcc"] is None
    assert [part.defects for part in parsed.walk()] == [[]] * len(list(parsed.walk()))
    if case.variant in NAMES and "title" in case.body["campaign"]:
        shown = one_line(NAMES[case.variant][:200])
        assert shown in parsed["Subject"], str(case)
    for part in ("plain", "html"):
        assert received.text(part)
