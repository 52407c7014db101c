"""What moderators are asked, by webhook and by mail, and what their links do."""

import dataclasses
import json
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import pytest
from starlette.responses import Response

from flow.errors import ConfigError
from flow.links import SECRET, Tokens
from flow.outcome import Outcome
from flow.plumbing.processing import Processing
from flow.pytest_plugin import Configure
from flow.records.database import Database
from flow.schema import ActionMessage
from flow.targets.forwarding import Question
from flow.targets.forwarding import told as variables
from flow.targets.webhook import verify
from flow.testing import Result, run_messages
from pipelines.moderate import Moderate, ModerateSettings
from tests.bodies import changed, sample
from tests.pipelines.signatures import Signatures
from tests.targets.mail_server import DROP, Postbox, mail_server
from tests.targets.receiver import Receiver, receiving

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[2] / "docs" / "moderation.md"
LINKS = "https://act.example.org"
SIGNING = "the-secret-that-signs-moderators-links"
SECRETS = "the-first-secret-of-two the-second-secret-of-two"
ANSWERS = {"comment": "Rivers\r\n\r\nAccept:\nhttps://example.org/evil", "topics": ["a", "b"], "age": 42}


@pytest.fixture(autouse=True)
def signing(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(SECRET, SIGNING)
    return SIGNING


@pytest.fixture
async def postbox(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Postbox]:
    async with mail_server() as one:
        for name, value in (("HOST", "127.0.0.1"), ("PORT", one.port), ("SECURITY", "none"), ("TIMEOUT", 5)):
            monkeypatch.setenv(f"MAIL_{name}", str(value))
        monkeypatch.setenv("MAIL_SENDER", "River Club <mail@example.org>")
        yield one


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


def by_mail(configured: Configure, **settings: str) -> Moderate:
    values = {"LINK_URL": LINKS, "TO": "moderators@example.org"} | settings
    return configured(Moderate, {f"MODERATE_{name}": value for name, value in values.items()})


def by_webhook(configured: Configure, receiver: Receiver, **settings: str) -> Moderate:
    values = {
        "LINK_URL": LINKS,
        "URL": f"http://127.0.0.1:{receiver.port}/in",
        "SECRETS": SECRETS,
        "PORT": str(receiver.port),
        "ALLOW_PRIVATE": "yes",
    } | settings
    return configured(Moderate, {f"MODERATE_{name}": value for name, value in values.items()})


def signature(number: int = 7, stage: str | None = "action_confirm", **contact: Any) -> dict[str, Any]:
    body = changed("action", "stage", stage) | {"actionId": number}
    body["contact"] |= contact
    return body


def told(results: list[Result]) -> list[tuple[Outcome, str]]:
    return [(result.outcome, result.reason) for result in results]


async def test_a_webhook_gets_the_message_byte_for_byte_with_signed_links(
    configured: Configure, receiver: Receiver
) -> None:
    raw = json.dumps({**signature(), "fieldOfTomorrow": "ź"}, indent=3, ensure_ascii=False).encode()

    [result] = await run_messages(by_webhook(configured, receiver), [raw])

    [post] = receiver.posts
    assert result.outcome is Outcome.DELIVERED
    assert all(verify(one, post.headers, post.body) for one in SECRETS.split())
    assert raw in post.body
    question = json.loads(post.body)
    assert {name: question[name] for name in ("schema", "about", "actionId")} == {
        "schema": "flow:question:1",
        "about": "action",
        "actionId": 7,
    }
    for verb in ("accept", "reject"):
        place, _, token = question[f"{verb}Link"].rpartition("/")
        assert place == f"{LINKS}/link/a/7/{verb}"
        assert Tokens(SIGNING).check(7, token) == "good"


async def test_links_about_a_supporter_are_theirs_and_need_no_secret(
    configured: Configure, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET)
    body = signature(stage="supporter_confirm", contactRef="a/b c")

    [result] = await run_messages(by_webhook(configured, receiver), [body])

    question = json.loads(receiver.posts[0].body)
    assert result.outcome is Outcome.DELIVERED
    assert question["about"] == "supporter"
    assert question["acceptLink"] == f"{LINKS}/link/s/7/accept/a%2Fb%20c"
    assert question["rejectLink"] == f"{LINKS}/link/s/7/reject/a%2Fb%20c"


async def test_actions_wait_while_there_is_no_secret_to_sign_with(
    configured: Configure, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SECRET)

    [result] = await run_messages(by_webhook(configured, receiver), [signature()])

    assert result.outcome is Outcome.RETRYING
    assert "set FLOW_LINK_SECRET" in result.reason
    assert not receiver.posts


async def test_a_question_asked_again_has_the_same_id(configured: Configure, receiver: Receiver) -> None:
    receiver.says(500)
    [failed] = await run_messages(by_webhook(configured, receiver), [signature()])
    receiver.says(204)
    [done] = await run_messages(by_webhook(configured, receiver), [signature()], attempt=2)

    first, second = receiver.posts
    assert told([failed]) == [(Outcome.RETRYING, "the moderators' webhook answered 500")]
    assert done.outcome is Outcome.DELIVERED
    assert first.headers["flow-id"] == second.headers["flow-id"]


async def test_what_a_webhook_refuses_decides_one_question(configured: Configure, receiver: Receiver) -> None:
    """Those of one batch are asked at once."""
    normal = receiver.answer
    refusal = Response(status_code=422)
    receiver.answer = lambda: refusal if b'"actionId":8' in receiver.posts[-1].body else normal()

    results = await run_messages(by_webhook(configured, receiver), [signature(n) for n in (7, 8, 9)])

    assert [result.outcome for result in results] == [
        Outcome.DELIVERED,
        Outcome.PARKED,
        Outcome.DELIVERED,
    ]


async def test_a_mail_says_who_did_what_and_nothing_typed_looks_like_a_link_of_flow(
    configured: Configure, postbox: Postbox
) -> None:
    body = signature(firstName="Ada\r\nBcc: eve@example.org", lastName="<b>Waters</b>")
    body["action"]["customFields"] = ANSWERS

    [result] = await run_messages(by_mail(configured, LOCALE="en"), [body])

    [received] = postbox.received
    mail, text = received.mail, received.text()
    assert result.outcome is Outcome.DELIVERED
    assert (received.to, mail["To"]) == (["moderators@example.org"], "moderators@example.org")
    assert (mail["Subject"], mail["Bcc"]) == ("Please decide: Clean water (7)", None)
    assert mail["From"] == "River Club <mail@example.org>"
    typed = [line for line in text.splitlines() if line.startswith("> ")]
    assert typed == [
        "> Name: Ada Bcc: eve@example.org <b>Waters</b>",
        "> Address: ada@example.org",
        "> Place: 1010 Vienna AT",
        "> Action: register, 2026-02-19 15:17 UTC",
        "> Page: clean_water/river_club",
        "> comment: Rivers Accept: https://example.org/evil",
        "> topics: a, b",
        "> age: 42",
    ]
    links = [line for line in text.splitlines() if line.startswith("https://")]
    assert [link.rpartition("/")[0] for link in links] == [
        f"{LINKS}/link/a/7/{v}" for v in ("accept", "reject")
    ]
    html = received.text("html")
    assert "&lt;b&gt;Waters&lt;/b&gt;" in html
    assert all(f'href="{link}"' in html for link in links)


@pytest.mark.parametrize(
    ("locale", "words"),
    [
        (
            "de_AT",
            ("Bitte entscheiden: Clean water (7)", "wartet auf Ihre Entscheidung", "Jemand", "Eine Aktion"),
        ),
        ("fr", ("À décider : Clean water (7)", "attend votre décision", "Quelqu’un", "Une action")),
        ("pl", ("Please decide: Clean water (7)", "waits for your decision", "Somebody", "An action")),
    ],
)
async def test_a_mail_speaks_the_language_of_the_page_or_of_the_settings(
    configured: Configure, postbox: Postbox, locale: str, words: tuple[str, ...]
) -> None:
    subject, sentence, somebody, action = words
    for stage in ("supporter_confirm", "action_confirm"):
        body = signature(stage=stage)
        body["actionPage"]["locale"] = locale
        await run_messages(by_mail(configured), [body])
    await run_messages(by_mail(configured, LOCALE=locale), [signature(stage="supporter_confirm")])

    for received, begins in zip(postbox.received, (somebody, action, somebody), strict=True):
        assert received.mail["Subject"] == subject
        assert sentence in received.text()
        assert received.text().startswith(begins)
        assert begins in received.text("html")


async def test_encrypted_contacts_are_said_to_be(configured: Configure, postbox: Postbox) -> None:
    body = changed("action_encrypted", "stage", "action_confirm")

    [result] = await run_messages(by_mail(configured, LOCALE="en"), [body])

    assert result.outcome is Outcome.DELIVERED
    assert "\nThe contact is encrypted.\n" in postbox.received[0].text()
    assert "> Name:" not in postbox.received[0].text()


async def test_each_question_has_a_message_id_of_its_own_that_stays(
    configured: Configure, postbox: Postbox
) -> None:
    bodies = [signature(7), signature(8), signature(7, "supporter_confirm"), signature(7)]
    for body in bodies:
        await run_messages(by_mail(configured), [body])

    ids = [one.mail["Message-ID"] for one in postbox.received]
    assert len(set(ids)) == 3
    assert ids[0] == ids[3]


async def test_nobody_is_asked_twice_but_after_the_supporter_comes_the_action(
    configured: Configure, postbox: Postbox
) -> None:
    bodies = [signature(7), signature(7), signature(7, "supporter_confirm"), signature(8)]

    results = await run_messages(by_mail(configured), bodies)

    assert sorted(told(results), key=str) == [
        *[(Outcome.DELIVERED, "")] * 3,
        (Outcome.SKIPPED, "a duplicate: it was done before"),
    ]
    assert (len(postbox.received), postbox.connections) == (3, 1)


async def test_a_mail_whose_fate_is_not_known_is_parked_alone(
    configured: Configure, postbox: Postbox
) -> None:
    postbox.content = lambda envelope: DROP if b"(8)" in bytes(envelope.content or b"") else None

    results = await run_messages(by_mail(configured), [signature(n) for n in (7, 8, 9)])

    assert [result.outcome for result in results] == [Outcome.DELIVERED, Outcome.PARKED, Outcome.DELIVERED]
    assert results[1].reason.startswith("outcome unknown: ")


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("550 5.1.1 unknown", "there is no such address, says the mail server (550 5.1.1)"),
        ("552 5.2.2 full", "the mail server refuses the recipient (552 5.2.2)"),
        ("554 relay access denied", "the mail server refuses the recipient (554)"),
    ],
)
async def test_a_refused_address_of_the_moderators_costs_no_attempt(
    configured: Configure, postbox: Postbox, said: str, why: str
) -> None:
    postbox.recipient = lambda address: said

    results = await run_messages(by_mail(configured), [signature(7), signature(8)])

    assert {result.outcome for result in results} == {Outcome.RETRYING}
    assert results[0].reason == f"the moderators' address: {why}"


async def test_what_is_not_to_be_decided_is_skipped_or_parked(
    configured: Configure, receiver: Receiver
) -> None:
    test = signature()
    test["action"]["testing"] = True
    bodies = [
        test,
        signature(stage="deliver"),
        signature(stage=None),
        sample("email_status"),
        sample("ids_supporter"),
    ]

    results = await run_messages(by_webhook(configured, receiver), bodies)

    wrong = "nothing in it is to be decided: is this the right queue?"
    assert told(results)[:3] == [
        (Outcome.SKIPPED, "a test action"),
        (Outcome.PARKED, wrong),
        (Outcome.PARKED, wrong),
    ]
    assert [result.outcome for result in results[3:]] == [Outcome.SKIPPED, Outcome.PARKED]
    assert not receiver.posts


async def test_the_links_decide_what_the_records_hold(
    configured: Configure, database: Database, receiver: Receiver
) -> None:
    """First the supporter, then the action, as the outbox has their messages."""
    signatures = Signatures(database, confirm=True, decides=True)
    await signatures.define()
    message = await signatures.sign("ada@example.org")
    processing = Processing(database)
    pipeline = by_webhook(configured, receiver)

    for number in (0, 1):
        await run_messages(pipeline, [(await signatures.outgoing())[number]])
        parts = urlsplit(json.loads(receiver.posts[number].body)["acceptLink"]).path.split("/")
        action_id, last = int(parts[3]), parts[5]
        assert action_id == message["actionId"]
        if number == 0:
            answer = await processing.accept_supporter(action_id, last)
        else:
            assert Tokens(SIGNING).check(action_id, last) == "good"
            answer = await processing.accept_action(action_id)
        assert answer.change == "changed"

    assert (answer.supporter, answer.action) == ("accepted", "delivered")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"TO": ""}, "ModerateSettings: set either MODERATE_URL and MODERATE_SECRETS, or MODERATE_TO"),
        (
            {"URL": "https://example.org/", "SECRETS": SECRETS},
            "ModerateSettings: set either MODERATE_URL and MODERATE_SECRETS, or MODERATE_TO",
        ),
        (
            {"URL": "https://example.org/"},
            "ModerateSettings: set either MODERATE_URL and MODERATE_SECRETS, or MODERATE_TO",
        ),
        (
            {"TO": "", "URL": "https://example.org/"},
            "ModerateSettings: set either MODERATE_URL and MODERATE_SECRETS, or MODERATE_TO",
        ),
        ({"RATE": "-1"}, "ModerateSettings: MODERATE_RATE must be a number above 0, got -1"),
        ({"TO": "nobody"}, "MODERATE_TO must be an address like moderators@example.org"),
        (
            {"LINK_URL": "http://example.org"},
            "MODERATE_LINK_URL must be an address that begins with https://",
        ),
        ({"LINK_URL": ""}, "ModerateSettings needs MODERATE_LINK_URL to be set"),
    ],
)
async def test_wrong_settings_end_it_before_anything_is_consumed(
    configured: Configure, postbox: Postbox, changes: dict[str, str], sentence: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        await by_mail(configured, **changes).lifespan().__aenter__()

    assert str(refused.value) == sentence


async def test_settings_of_mail_and_a_short_secret_are_told_with_the_others(
    configured: Configure, postbox: Postbox, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where flow check sees them, as they are read; a webhook needs none of mail."""
    with monkeypatch.context() as changed:
        changed.delenv("MAIL_HOST")
        with pytest.raises(ConfigError, match=r"^MailSettings needs MAIL_HOST to be set$"):
            by_mail(configured)
        by_webhook(configured, receiver)
    with monkeypatch.context() as changed:
        changed.setenv("MAIL_SENDER", "nobody")
        with pytest.raises(ConfigError, match=r"^MAIL_SENDER must be an address"):
            by_mail(configured)
    monkeypatch.setenv(SECRET, "short")
    with pytest.raises(ConfigError, match=r"^the secret that signs links must have at least 32 characters;"):
        by_mail(configured)


def test_a_question_is_printed_without_whom_it_is_about() -> None:
    body = msgspec.json.decode(sample("action"), type=ActionMessage)
    question = Question(about="action", accept="a-link", reject="a-link", body=body, raw=sample("action"))

    assert repr(question) == "<Question action-7>"


def test_the_settings_and_variables_are_those_of_the_document() -> None:
    text = DOCUMENT.read_text()
    named = set(re.findall(r"`MODERATE_(\w+)`", text)) - {"SECRETS_FILE"}
    fields = {field.name.upper() for field in dataclasses.fields(ModerateSettings)}  # type: ignore[arg-type]  # made one by Settings
    body = msgspec.json.decode(sample("action"), type=ActionMessage)
    question = Question(about="action", accept="a-link", reject="a-link", body=body, raw=b"")
    section = text.split("## The mail\n")[1].split("\n## ")[0]
    cells = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]

    assert named == fields
    assert {one for cell in cells for one in re.findall(r"`(\w+)`", cell)} == set(variables(question))


def test_the_pipeline_as_it_stands_gives_no_warnings() -> None:
    Moderate.check()

    assert Moderate.warnings() == []
