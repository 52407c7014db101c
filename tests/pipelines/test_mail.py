"""The two mailers on real records and a real mail server: who gets which mail, and what others get."""

import json
import re
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import event, select, update
from sqlalchemy.engine import Engine

import pipelines
from flow.codec import Codec
from flow.errors import ConfigError
from flow.outcome import Outcome
from flow.ratelimit import RateLimit
from flow.records.database import Database
from flow.records.mailing import of_message
from flow.records.tables import organisations
from flow.records.url import VARIABLE
from flow.schema import ActionMessage, Donation
from flow.settings import load
from flow.targets.addresses import mailbox
from flow.targets.links import ConfirmLinks
from flow.targets.mail import MailSettings, SupporterMailSettings
from flow.targets.senders import Senders, gap
from flow.targets.variables import shown
from flow.testing import Result, action, run_messages
from pipelines.confirm import Confirm, ConfirmSettings
from pipelines.thank_you import ThankYou, ThankYouSettings
from tests.bodies import sample
from tests.messages import MemoryOrigin
from tests.pipelines.signatures import LOCALES, Signatures
from tests.targets.mail_server import DROP, Postbox, mail_server

pytestmark = pytest.mark.anyio

DOCUMENT = Path(__file__).parents[2] / "docs" / "mail.md"
BEES = "Bees <bees@example.org>"
LINKS = "https://act.example.org"
Outcomes = list[tuple[Outcome, str]]


@pytest.fixture
async def postbox() -> AsyncIterator[Postbox]:
    async with mail_server() as one:
        yield one


@pytest.fixture
def records(
    database: Database, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> Callable[[bool], Signatures]:
    """Records that the pipelines find, too."""
    monkeypatch.setenv(VARIABLE, database_url)
    return lambda confirm: Signatures(database, confirm)


@pytest.fixture(autouse=True)
def _without_records(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def environment(postbox: Postbox, **settings: str) -> dict[str, str]:
    values = {
        "MAIL_HOST": "127.0.0.1",
        "MAIL_PORT": str(postbox.port),
        "MAIL_SECURITY": "none",
        "MAIL_SENDER": "mail@example.org",
        "MAIL_TIMEOUT": "5",
    }
    return values | {f"MAIL_{name.upper()}": value for name, value in settings.items()}


def confirm(postbox: Postbox, **settings: str) -> Confirm:
    return Confirm(load(ConfirmSettings, environment(postbox, link_url=LINKS, **settings)))


def thank_you(postbox: Postbox, **settings: str) -> ThankYou:
    return ThankYou(load(ThankYouSettings, environment(postbox, **settings)))


def told(results: list[Result]) -> Outcomes:
    return [(result.outcome, result.reason) for result in results]


@contextmanager
def selects(beginning: str = "SELECT actions.id AS action_id") -> Iterator[list[str]]:
    """Collect the queries with this *beginning*: those for recipients."""
    seen: list[str] = []

    def note(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        if statement.startswith(beginning):
            seen.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    try:
        yield seen
    finally:
        event.remove(Engine, "before_cursor_execute", note)


async def test_each_page_is_one_query_one_template_and_one_connection(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(True)
    await signatures.define()
    messages = []
    for number in range(12):
        locale = ("en", "de_AT", "fr")[number % 3]
        messages.append(await signatures.sign(f"supporter{number}@example.org", locale))

    with selects() as queries:
        results = await run_messages(confirm(postbox), messages)

    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    assert {(result.batch.key, result.batch.size) for result in results if result.batch} == {
        ((page, messages[0]["orgId"]), 4) for page in signatures.pages.values()
    }
    assert (len(queries), postbox.connections, len(postbox.received)) == (3, 3, 12)
    by_address = {one.to[0]: one for one in postbox.received}
    for number, message in enumerate(messages):
        mail = by_address[f"supporter{number}@example.org"]
        subject = ("Please confirm: ", "Bitte bestätigen: ", "Veuillez confirmer : ")[number % 3]
        assert mail.mail["Subject"] == f"{subject}Clean water"
        assert mail.mail["From"].addresses[0].display_name == "River Club"
        accept = f"{LINKS}/link/s/{message['actionId']}/accept/"
        assert accept in mail.text()
        assert f'href="{accept}' in mail.text("html")
        assert f"{LINKS}/link/s/{message['actionId']}/reject/" in mail.text()


async def test_the_links_are_those_that_confirm_the_supporter(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    from flow.plumbing.processing import Processing

    signatures = records(True)
    await signatures.define()
    message = await signatures.sign("ada@example.org", opt_in=True)
    await run_messages(confirm(postbox), [message])

    text = postbox.received[0].text()
    [link] = [line for line in text.split() if "/accept/" in line]
    action_id, _, reference = link.removeprefix(f"{LINKS}/link/s/").removesuffix("?doi=1").split("/")
    answer = await Processing(signatures.database).accept_supporter(
        int(action_id), reference, double_opt_in=link.endswith("?doi=1")
    )

    assert answer.change == "changed"
    assert await signatures.email_status(int(action_id)) == "double_opt_in"
    [again] = await run_messages(confirm(postbox), [message])
    assert (again.outcome, again.reason) == (
        Outcome.SKIPPED,
        "the supporter is accepted: there is nothing to confirm",
    )
    assert len(postbox.received) == 1


async def test_thanks_go_to_who_consented_with_the_template_of_the_page(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(False)
    await signatures.define()
    messages = [
        await signatures.sign("ada@example.org", "de_AT", first_name="Ada\r\nBcc: eve@example.org"),
        await signatures.sign("ben@example.org", consent=False),
        await signatures.sign("cleo@example.org", testing=True),
        await signatures.sign("ada@example.org"),  # again: a duplicate, for which the page has no template
        await signatures.sign("dora@example.org"),
        await signatures.sign("emil@example.org"),
        await signatures.sign("fay@example.org", "fr"),
    ]
    await signatures.change(messages[4]["actionId"], email_status="unsub")
    await signatures.change(messages[5]["actionId"], email_status="bounce")

    pipeline = thank_you(postbox, unsubscribe_url="https://example.org/leave?ref={contact_ref}")
    results = await run_messages(pipeline, messages)

    assert told(results) == [
        (Outcome.DELIVERED, ""),
        (Outcome.SKIPPED, "there is no consent"),
        (Outcome.SKIPPED, "a test action"),
        (Outcome.SKIPPED, "the action page has no template for it"),
        (Outcome.SKIPPED, "they want no mail"),
        (Outcome.SKIPPED, "no mail goes to an address with the status bounce"),
        (Outcome.DELIVERED, ""),
    ]
    mails = {one.to[0]: one for one in postbox.received}
    assert set(mails) == {"ada@example.org", "fay@example.org"}
    german = mails["ada@example.org"]
    assert german.mail["Subject"] == "Danke: Clean water"
    assert german.mail["Bcc"] is None
    assert german.text().startswith("Guten Tag,\n")  # a name with an address in it is left out
    assert german.mail["List-Unsubscribe"].startswith("<https://example.org/leave?ref=")
    assert german.mail["List-Unsubscribe-Post"] == "List-Unsubscribe=One-Click"


async def test_duplicates_get_the_template_of_their_own_and_tests_go_to_the_test_address(
    records: Callable[[bool], Signatures], postbox: Postbox, tmp_path: Any
) -> None:
    place = tmp_path / "again" / "default"
    place.mkdir(parents=True)
    (place / "subject.txt").write_text("Again, {{ first_name }}")
    (place / "body.txt").write_text("You signed before.")
    signatures = records(False)
    await signatures.define(duplicate_template="again")
    messages = [
        await signatures.sign("ada@example.org"),
        await signatures.sign("ada@example.org"),
        await signatures.sign("ben@example.org", testing=True),
    ]

    pipeline = thank_you(postbox, templates=str(tmp_path), test_address="tests@example.org")
    results = await run_messages(pipeline, messages)

    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    assert [(one.to[0], one.mail["Subject"]) for one in postbox.received] == [
        ("ada@example.org", "Thank you: Clean water"),
        ("ada@example.org", "Again, Ada"),
        ("tests@example.org", "Thank you: Clean water"),
    ]
    assert len({one.mail["Message-ID"] for one in postbox.received}) == 3


async def test_a_template_is_told_of_a_donation_and_when_it_was_made(
    records: Callable[[bool], Signatures], postbox: Postbox, tmp_path: Any
) -> None:
    place = tmp_path / "thank_you" / "default"
    place.mkdir(parents=True)
    (place / "subject.txt").write_text("{{ 'Test: ' if testing }}Thanks")
    gift = "{{ donation.amount }} {{ donation.currency }} {{ donation.frequency_unit }}"
    (place / "body.txt").write_text(
        f'{{{{ created_at.strftime("%d.%m.%Y") }}}} {{% if donation %}}{gift}{{% endif %}}'
    )
    signatures = records(False)
    await signatures.define()
    moment = datetime(2026, 2, 19, 23, 30, tzinfo=UTC)
    money = {"amount": 1250, "currency": "EUR", "frequencyUnit": "monthly", "payload": {"iban": "canary"}}
    messages: list[Any] = [
        await signatures.sign("ada@example.org", donation=money, created_at=moment),
        await signatures.sign("ben@example.org", created_at=moment, testing=True),
    ]
    whole = action(id=4711, email="cleo@example.org", thank_you_template="thank_you", created_at=moment)
    given = Donation(amount=Decimal(500), currency="JPY", frequency_unit="one_off")
    whole = msgspec.structs.replace(whole, action=msgspec.structs.replace(whole.action, donation=given))

    pipeline = thank_you(postbox, templates=str(tmp_path), test_address="tests@example.org")
    results = await run_messages(pipeline, [*messages, whole])

    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    assert {one.to[0]: (one.mail["Subject"], one.text()) for one in postbox.received} == {
        "ada@example.org": ("Thanks", "19.02.2026 12.50 EUR monthly\n"),
        "tests@example.org": ("Test: Thanks", "19.02.2026\n"),
        "cleo@example.org": ("Thanks", "19.02.2026 500 JPY one_off\n"),
    }


async def test_a_bad_recipient_is_parked_noted_and_told_and_fails_nobody_else(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(True)
    await signatures.define()
    replies = {
        "bounces@example.org": "550 5.1.1 unknown",
        "policy@example.org": "550 5.7.1 no",
        "later@example.org": "451 4.7.1 greylisted",
    }
    postbox.recipient = replies.get
    addresses = ["ada@example.org", *replies, "ben@example.org"]
    messages = [await signatures.sign(one) for one in addresses]
    before = len(await signatures.outgoing())

    results = await run_messages(confirm(postbox), messages)

    assert told(results) == [
        (Outcome.DELIVERED, ""),
        (Outcome.PARKED, "there is no such address, says the mail server (550 5.1.1)"),
        (Outcome.PARKED, "the mail server refuses the recipient (550 5.7.1)"),
        (Outcome.RETRYING, "the mail server does not take the recipient now (451 4.7.1)"),
        (Outcome.DELIVERED, ""),
    ]
    assert results[3].after == 60.0
    assert postbox.connections == 1
    noted = [await signatures.email_status(one["actionId"]) for one in messages]
    assert noted == [None, "bounce", None, None, None]
    [published] = (await signatures.outgoing())[before:]
    body = json.loads(published)
    assert (body["schema"], body["eventType"], body["actionId"]) == (
        "proca:event:2",
        "email_status",
        messages[1]["actionId"],
    )
    assert body["supporter"]["privacy"]["emailStatus"] == "bounce"


async def test_a_test_address_that_does_not_exist_says_nothing_of_the_supporter(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(True)
    await signatures.define()
    message = await signatures.sign("ada@example.org", testing=True)
    postbox.recipient = lambda address: "550 5.1.1 unknown"

    [result] = await run_messages(confirm(postbox, test_address="tests@example.org"), [message])

    assert result.outcome is Outcome.PARKED
    assert await signatures.email_status(message["actionId"]) is None


async def test_an_unknown_outcome_is_parked_and_the_rest_is_sent(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(True)
    await signatures.define()
    messages = [await signatures.sign(f"supporter{number}@example.org") for number in range(3)]
    postbox.content = lambda envelope: DROP if "supporter1@example.org" in envelope.rcpt_tos else None

    results = await run_messages(confirm(postbox), messages)

    assert [result.outcome for result in results] == [Outcome.DELIVERED, Outcome.PARKED, Outcome.DELIVERED]
    assert results[1].reason == (
        "outcome unknown: the mail server did not say whether it took the mail: it closed the connection"
    )
    assert [one.to[0] for one in postbox.received] == [
        f"supporter{number}@example.org" for number in range(3)
    ]
    assert postbox.connections == 2


async def test_a_server_that_goes_away_costs_who_was_mailed_nothing(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(True)
    await signatures.define()
    messages = [await signatures.sign(f"supporter{number}@example.org") for number in range(4)]

    def quota(address: str) -> str | None:
        return "550 5.4.5 daily quota" if len(postbox.received) >= 2 else None

    postbox.sender = quota

    results = await run_messages(confirm(postbox), messages)

    assert told(results)[:2] == [(Outcome.DELIVERED, "")] * 2
    assert told(results)[2:] == [(Outcome.RETRYING, "the mail server refuses the sender (550 5.4.5)")] * 2
    assert len(postbox.received) == 2


async def test_a_server_that_is_away_costs_no_attempt(
    records: Callable[[bool], Signatures], unused_port: int
) -> None:
    signatures = records(True)
    await signatures.define()
    message = await signatures.sign("ada@example.org")

    [result] = await run_messages(confirm(Postbox(port=unused_port)), [message])

    assert result.outcome is Outcome.RETRYING
    assert result.reason.startswith("the mail server cannot be used: ")


async def test_who_is_forgotten_is_not_mailed_from_an_old_message(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    signatures = records(False)
    await signatures.define()
    ids = await signatures.sign("ada@example.org")
    whole = action(id=ids["actionId"], email="ada@example.org", thank_you_template="thank_you")
    await signatures.change(ids["actionId"], forgotten_at=whole.action.created_at)

    results = await run_messages(thank_you(postbox), [ids, whole])

    assert told(results) == [(Outcome.SKIPPED, "the personal data was removed")] * 2
    assert postbox.received == []


async def test_actions_that_the_records_do_not_know_are_mailed_from_their_message(
    records: Callable[[bool], Signatures], postbox: Postbox
) -> None:
    await records(False).define()
    unknown = {"schema": "proca:ids:1", "actionId": 4711, "actionPageId": 1, "orgId": 1}
    whole = action(id=4712, email="ada@example.org", thank_you_template="thank_you")

    results = await run_messages(thank_you(postbox), [unknown, whole])

    assert [result.outcome for result in results] == [Outcome.RETRYING, Outcome.DELIVERED]
    assert results[0].reason == "nothing is known of the action: is FLOW_DATABASE_URL set to its records?"


REAL = {
    "nulls": {
        "tracking": None,
        "personalInfo": None,
        "campaign": {
            "name": "clean_water",
            "title": "Clean water",
            "externalId": None,
            "contactSchema": "basic",
        },
        "contact": {"email": "ada@example.org", "contactRef": "ref", "firstName": None, "address": None},
    },
    "unknown fields": {"futureField": {"deep": [1, None]}, "stageOfTomorrow": "x"},
    "ids as text": {"actionId": "7", "actionPageId": "3", "campaignId": "5", "orgId": "2"},
    "no organisation": {"org": None, "orgId": None},
    "any script": {"contact": {"email": "ada@example.org", "contactRef": "ref", "firstName": "Ałła 水 مریم"}},
    "lists": {
        "action": {
            "actionType": "register",
            "createdAt": "2026-02-19T15:17:29",
            "customFields": {"topics": ["a", "b"], "years": [1, 2.5], "nothing": None, "x": True},
        }
    },
}


@pytest.mark.parametrize("kind", REAL)
async def test_whole_messages_are_mailed_without_records(postbox: Postbox, kind: str) -> None:
    body = json.loads(sample("action")) | {"privacy": {"withConsent": True}} | REAL[kind]

    for pipeline in (thank_you(postbox), confirm(postbox)):
        [result] = await run_messages(pipeline, [body])
        assert (result.outcome, result.reason) == (Outcome.DELIVERED, "")

    assert [one.to for one in postbox.received] == [["ada@example.org"]] * 2
    thanks, asked = postbox.received
    assert thanks.mail["Subject"] == "Danke: Clean water"
    assert asked.mail["Subject"] == "Bitte bestätigen: Clean water"
    if kind == "any script":
        assert "Ałła 水 مریم" in thanks.text()


async def test_old_messages_and_events_pass(postbox: Postbox) -> None:
    old = json.loads(sample("action_old"))
    thanked = old | {"actionId": 8, "actionPage": old["actionPage"] | {"thankYouTemplate": "thank_you"}}
    silent = thanked | {"actionId": 9, "privacy": None}
    events = [sample("email_status"), sample("campaign_updated")]
    results = await run_messages(thank_you(postbox), [old, thanked, silent, *events, sample("ids_supporter")])

    assert told(results)[:5] == [
        (Outcome.SKIPPED, "the action page has no template for it"),  # only its provider's name for one
        (Outcome.DELIVERED, ""),
        (Outcome.SKIPPED, "there is no consent"),
        (Outcome.SKIPPED, "an event"),
        (Outcome.SKIPPED, "an event"),
    ]
    assert results[5].outcome is Outcome.RETRYING
    assert results[5].reason.startswith("nothing is known of the action")
    assert [(one.to, one.mail["Subject"]) for one in postbox.received] == [
        (["ada@example.org"], "Danke: Clean water")
    ]


@pytest.mark.parametrize(
    ("email", "reason"),
    [
        (None, "there is no address to write to"),
        ("", "there is no address to write to"),
        ("ada", "the address is none that mail can be sent to"),
        ("ada@example.org\r\nBcc: eve@example.org", "the address is none that mail can be sent to"),
        ("ada@example.org, eve@example.org", "the address is none that mail can be sent to"),
    ],
)
async def test_addresses_that_are_none_are_parked(postbox: Postbox, email: str | None, reason: str) -> None:
    results = await run_messages(
        confirm(postbox), [action(id=1, email=email), action(id=2, email="ada@example.org")]
    )

    assert told(results) == [(Outcome.PARKED, reason), (Outcome.DELIVERED, "")]


async def test_internationalised_addresses_are_mailed(postbox: Postbox) -> None:
    [result] = await run_messages(confirm(postbox), [action(email="żofia@bücher.example")])

    assert result.outcome is Outcome.DELIVERED
    assert (postbox.received[0].to, postbox.received[0].utf8) == (["żofia@bücher.example"], True)


async def test_a_wrong_template_is_told_and_tried_again(postbox: Postbox, tmp_path: Any) -> None:
    whole = action(email="ada@example.org", thank_you_template="no_such_template", locale="pl")

    [result] = await run_messages(thank_you(postbox), [whole])

    assert (result.outcome, result.after) == (Outcome.RETRYING, 60.0)
    assert result.reason == "there is no template no_such_template for pl or default"


@pytest.mark.parametrize("own", [True, False])
async def test_a_sender_waits_for_its_own_mails_and_for_nobody_elses(
    records: Callable[[bool], Signatures], postbox: Postbox, database: Database, own: bool
) -> None:
    """Two organisations, of which the second has a sender of its own, or the same as the first."""
    many = records(True)
    few = Signatures(
        database, True, "bee_club", mail_from=BEES if own else "mail@example.org", campaign="bees"
    )
    messages = []
    for signatures, count in ((many, 12), (few, 3)):
        await signatures.define()
        messages += [await signatures.sign(f"{signatures.name}{n}@example.org") for n in range(count)]
    begin, arrived = time.monotonic(), []

    def note(envelope: Any) -> None:
        arrived.append((envelope.rcpt_tos[0][:8], time.monotonic() - begin))

    postbox.content = note
    results = await run_messages(confirm(postbox, rate="5"), messages)

    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    names = [name for name, _ in arrived]
    assert sorted(names) == ["bee_club"] * 3 + ["river_cl"] * 12
    last = names[::-1].index("bee_club")
    assert (last > 4) if own else (last == 0)  # among the first of the others, or after them all
    assert arrived[-1][1] >= 11 / 5  # the twelve went out no faster


async def test_a_sender_with_many_pages_keeps_no_connection_from_others(
    records: Callable[[bool], Signatures], postbox: Postbox, database: Database
) -> None:
    """Three pages in three languages, and two connections."""
    many = records(True)
    few = Signatures(database, True, "bee_club", mail_from=BEES, campaign="bees")
    await many.define()
    await few.define()
    messages = [
        await many.sign(f"river_club{n}-{locale}@example.org", locale)
        for locale in LOCALES
        for n in range(20)
    ]
    messages += [await few.sign(f"bee_club{n}@example.org") for n in range(3)]

    results = await run_messages(confirm(postbox, rate="20"), messages)

    assert {result.outcome for result in results} == {Outcome.DELIVERED}
    names = [one.to[0].partition("_")[0] for one in postbox.received]
    assert sorted(names) == ["bee"] * 3 + ["river"] * 60
    assert len(names) - names[::-1].index("bee") <= 20  # they went out beside the first page


async def test_the_sender_of_an_organisation_is_looked_up_again_after_a_minute(
    records: Callable[[bool], Signatures], database: Database
) -> None:
    usual = mailbox("mail@example.org")
    assert usual is not None
    now = 0.0
    senders = Senders(database, usual, lambda: now)
    await records(True).define()
    async with database.reading() as connection:
        [number] = (await connection.scalars(select(organisations.c.id))).all()

    found = []
    with selects("SELECT organisations.id") as queries:
        for mail_from, now in ((None, 0.0), (BEES, 59.0), (BEES, 61.0), ("nobody", 122.0)):  # noqa: B007
            async with database.begin() as connection:
                await connection.execute(update(organisations).values(mail_from=mail_from))
            await senders.look_up([number, number, None])
            found.append(senders.of(number))

    assert found == ["mail@example.org", "mail@example.org", "bees@example.org", "mail@example.org"]
    assert (len(queries), senders.of(None)) == (3, "mail@example.org")


@pytest.mark.parametrize(
    ("count", "rate", "seconds"), [(50, 20.0, 0.05), (50, 0.1, 0.2), (10, 1.0, 1.0), (10, 100.0, 0.01)]
)
def test_the_mails_of_a_batch_are_spread_over_ten_seconds_at_most(
    count: int, rate: float, seconds: float
) -> None:
    assert gap(RateLimit(messages=rate), count) == pytest.approx(seconds)
    assert gap(None, count) == gap(RateLimit(calls=1), count) == 0.0


def test_a_limit_of_a_class_counts_unless_a_rate_is_set() -> None:
    def by_page(message: Any) -> Any:
        return message.body.action_page_id

    class Other(Confirm):
        rate_limit = RateLimit(messages=3, per=2.0, key=by_page)

    class Unlimited(Confirm):
        rate_limit = None

    usual, set_to = (
        {
            cls: cls(
                load(ConfirmSettings, environment(Postbox(), link_url=LINKS, port="2525", **rate))
            ).rate_limit
            for cls in (Confirm, Other, Unlimited)
        }
        for rate in ({}, {"rate": "0.5"})
    )

    assert usual[Unlimited] is set_to[Unlimited] is None
    found = [one for cls in (Confirm, Other) for one in (usual[cls], set_to[cls]) if one is not None]
    assert [(one.messages, one.per) for one in found] == [(20, 1.0), (0.5, 1.0), (3, 2.0), (0.5, 1.0)]
    assert [one.key == by_page for one in found] == [False, False, True, False]


async def test_greylisted_mails_wait_longer_each_time(postbox: Postbox) -> None:
    postbox.recipient = lambda address: "450 4.2.0 greylisted"

    waits = []
    for attempt in (1, 2, 3, 4, 5, 11):
        [result] = await run_messages(confirm(postbox), [action()], attempt=attempt)
        waits.append(result.after)

    assert waits == [60.0, 120.0, 240.0, 480.0, 600.0, 600.0]


async def test_the_first_wait_can_be_set(postbox: Postbox) -> None:
    postbox.recipient = lambda address: "450 4.2.0 greylisted"
    target = confirm(postbox, retry_after="1.5")

    waits = [(await run_messages(target, [action()], attempt=attempt))[0].after for attempt in (1, 3)]

    assert waits == [1.5, 6.0]


async def test_nothing_personal_is_in_a_reason_or_log(
    postbox: Postbox, caplog: pytest.LogCaptureFixture
) -> None:
    canary = "canary@example.org"
    for said in (
        f"550 5.1.1 <{canary}> unknown",
        f"451 {canary}",
        f"550 5.7.1 {canary}",
        f"421 {canary}",
        DROP,
    ):
        postbox.recipient = lambda address, said=said: said  # type: ignore[misc]
        [result] = await run_messages(confirm(postbox), [action(email=canary, first_name="Kanarienvogel")])
        assert "canary" not in result.reason
        assert "canary" not in repr(result.error)

    ours = [one.getMessage() for one in caplog.records if one.name.startswith("flow")]
    assert "canary" not in " ".join(ours)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"sender": "River Club"}, "MAIL_SENDER must be an address, or a name and an <address>"),
        ({"test_address": "nobody"}, "MAIL_TEST_ADDRESS must be an address like mail@example.org"),
        ({"bounce_address": "a b@c"}, "MAIL_BOUNCE_ADDRESS must be an address like mail@example.org"),
        ({"templates": "/nowhere"}, "the folder of templates /nowhere is not there"),
        ({"rate": "0"}, "ConfirmSettings: MAIL_RATE must be a number above 0, got 0"),
        ({"link_url": "http://example.org"}, "MAIL_LINK_URL must be an address that begins with https://"),
    ],
)
async def test_wrong_settings_end_it_before_anything_is_consumed(
    postbox: Postbox, settings: dict[str, str], sentence: str
) -> None:
    values = environment(postbox, link_url=LINKS) | {
        f"MAIL_{name.upper()}": value for name, value in settings.items()
    }
    with pytest.raises(ConfigError) as refused:
        await Confirm(load(ConfirmSettings, values)).lifespan().__aenter__()

    assert str(refused.value) == sentence


def test_the_pipelines_as_they_stand_give_no_warnings() -> None:
    for cls in (Confirm, ThankYou):
        cls.check()
        assert cls.warnings() == []


def test_both_read_what_is_in_their_queues() -> None:
    for name in ("ids_supporter", "action", "action_encrypted", "action_old"):
        for cls in (Confirm, ThankYou):
            message = MemoryOrigin(cls.queue).message(sample(name))
            Codec(cls.message_types()).decode(message)


def test_the_settings_are_those_of_the_document() -> None:
    named = set(re.findall(r"`MAIL_(\w+)`", DOCUMENT.read_text())) - {"PASSWORD_FILE"}

    fields = {
        name.upper()
        for cls in (MailSettings, SupporterMailSettings, ConfirmSettings, ThankYouSettings)
        for name in cls.__annotations__
        if name != "prefix"
    }
    assert named == fields


def test_the_variables_of_templates_are_those_of_the_document() -> None:
    section = DOCUMENT.read_text().split("see these variables")[1].split("\n\n")[1]
    cells = [line.split("|")[1] for line in section.splitlines()[2:]]
    named = {name for cell in cells for name in re.findall(r"`([\w.]+)`", cell)}

    body = json.loads(sample("action"))
    body["action"]["donation"] = {"amount": 1250, "currency": "EUR"}
    to = of_message(msgspec.json.decode(json.dumps(body), type=ActionMessage))
    given = {
        f"{name}.{inner}" if isinstance(value, dict) and name != "custom_fields" else name
        for name, value in {**shown(to), **ConfirmLinks(LINKS).variables(to)}.items()
        for inner in (value if isinstance(value, dict) and name != "custom_fields" else [name])
    }
    assert named == given


def test_the_example_of_another_pace_keeps_the_claims_of_the_pipeline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "flow.pipelines", pipelines)
    space: dict[str, Any] = {"__name__": "mailers"}

    exec(DOCUMENT.read_text().split("```python\n")[1].split("```")[0], space)

    assert issubclass(space["Confirm"], Confirm)
    assert space["Confirm"].name == Confirm.name
    assert space["Confirm"].batching != Confirm.batching
