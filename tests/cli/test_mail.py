"""`flow mail preview`: what a mail looks like, with and without records, and nobody's data unasked."""

from email.parser import BytesParser
from email.policy import default
from pathlib import Path

import pytest

from flow.records.database import Database
from tests.cli.conftest import run_flow
from tests.pipelines.signatures import Signatures

pytestmark = pytest.mark.anyio


async def test_a_template_is_shown_without_a_database() -> None:
    ended = await run_flow("mail", "preview", "confirm", "--locale", "de_AT")

    assert ended.code == 0, ended.err
    assert "Template: confirm/de\n" in ended.out
    assert "Subject: Bitte bestätigen: Clean water\n" in ended.out
    assert "Guten Tag Ada,\n" in ended.out
    assert "https://example.org/link/s/7/accept/REFERENCE?doi=1" in ended.out


async def test_what_moderators_get_is_shown_too() -> None:
    ended = await run_flow("mail", "preview", "moderate")

    assert ended.code == 0, ended.err
    assert "To: moderators@example.org\n" in ended.out
    assert "> Name: Ada\n" in ended.out
    assert "> comment: Clean water for all\n" in ended.out


async def test_a_mail_of_an_action_is_masked_unless_asked_for(
    database_url: str, database: Database, tmp_path: Path
) -> None:
    signatures = Signatures(database, confirm=True)
    await signatures.define()
    fields = {"comment": "canary of a comment"}
    ids = await signatures.sign(
        "canary@example.org",
        "fr",
        first_name="Kanarienvogel",
        custom_fields=fields,
        donation={"amount": 987_654, "currency": "EUR"},
    )
    place = tmp_path / "confirm" / "default"
    place.mkdir(parents=True)
    (place / "subject.txt").write_text("{{ donation.amount }} {{ donation.currency }}")
    (place / "body.txt").write_text("{{ accept_link }}")
    command = ("mail", "preview", "confirm", str(ids["actionId"]))

    masked = await run_flow(*command, FLOW_DATABASE_URL=database_url, MAIL_LINK_URL="https://act.example.org")
    shown = await run_flow(*command, "--show-personal-data", "--database-url", database_url)

    gift = await run_flow(
        *command, "--locale", "pl", "--templates", str(tmp_path), FLOW_DATABASE_URL=database_url
    )

    assert (masked.code, shown.code) == (0, 0), masked.err + shown.err
    assert "Subject: 12.50 EUR\n" in gift.out
    assert "Bonjour [first name],\n" in masked.out
    assert f"https://act.example.org/link/s/{ids['actionId']}/accept/REFERENCE" in masked.out
    for text in ("canary", "Kanarienvogel"):
        assert text not in masked.out + masked.err
    assert "Bonjour Kanarienvogel,\n" in shown.out
    assert "To: canary@example.org\n" in shown.out
    assert "REFERENCE" not in shown.out


async def test_it_is_written_to_a_new_file_that_only_its_owner_reads(tmp_path: Path) -> None:
    for kind, text in (
        (".eml", "Subject: Thank you: Clean water"),
        (".html", '<html lang="en">'),
        (".txt", "Dear Ada,"),
    ):
        out = tmp_path / f"mail{kind}"
        ended = await run_flow("mail", "preview", "thank_you", "--out", str(out))
        assert ended.code == 0, ended.err
        assert text in out.read_text()
        assert out.stat().st_mode & 0o777 == 0o600
    again = await run_flow("mail", "preview", "thank_you", "--out", str(out))

    assert again.code == 2
    assert "exists already" in again.err


async def test_a_whole_mail_has_the_headers_that_supporters_get(tmp_path: Path) -> None:
    heads = {}
    for template, variables in (
        ("thank_you", {}),
        ("confirm", {}),
        ("moderate", {"MODERATE_TO": "desk@example.org"}),
        (
            "thank_you",
            {"MAIL_UNSUBSCRIBE_ADDRESS": "leave@example.org", "MAIL_SENDER": "Bees <bees@example.org>"},
        ),
    ):
        out = tmp_path / f"{len(heads)}.eml"
        ended = await run_flow("mail", "preview", template, "--out", str(out), **variables)
        assert ended.code == 0, ended.err
        heads[len(heads)] = BytesParser(policy=default).parsebytes(out.read_bytes())

    assert [one["List-Unsubscribe"] for one in heads.values()] == [
        "<https://example.org/unsubscribe>",
        None,
        None,
        "<mailto:leave@example.org?subject=unsubscribe>",
    ]
    assert [one["List-Unsubscribe-Post"] for one in heads.values()] == [
        "List-Unsubscribe=One-Click",
        None,
        None,
        None,
    ]
    assert [one["To"] for one in heads.values()][1:3] == ["ada@example.org", "desk@example.org"]
    assert heads[3]["From"] == "Bees <bees@example.org>"


async def test_a_template_of_yours_is_shown_and_what_is_wrong_with_it(tmp_path: Path) -> None:
    place = tmp_path / "mine" / "default"
    place.mkdir(parents=True)
    (place / "subject.txt").write_text("Mine")
    (place / "body.txt").write_text("{{ custom_fields.comment }}\x1b[31m {{ donation.amount }}")
    right = await run_flow("mail", "preview", "mine", MAIL_TEMPLATES=str(tmp_path))
    (place / "body.txt").write_text("{{ frist_name }}")
    wrong = await run_flow("mail", "preview", "mine", "--templates", str(tmp_path))
    none = await run_flow("mail", "preview", "nothing")

    assert "Clean water for all\N{REPLACEMENT CHARACTER}[31m 12.50" in right.out
    assert (wrong.code, none.code) == (78, 78)
    sentence = "flow: the template mine/default/body.txt cannot be filled in: 'frist_name' is undefined\n"
    assert wrong.err == sentence
    assert none.err == "flow: there is no template nothing for en or default\n"


async def test_what_cannot_be_shown_is_told_in_a_sentence(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    unknown = await run_flow("mail", "preview", "confirm", "7", FLOW_DATABASE_URL=url)
    without = await run_flow("mail", "preview", "confirm", "7")
    kind = await run_flow("mail", "preview", "confirm", "--out", "mail.pdf")

    assert (unknown.code, unknown.err) == (1, "flow: the records hold no action 7\n")
    assert without.code == 78
    assert without.err == "flow: an ACTION_ID needs the records: set FLOW_DATABASE_URL, or leave it out\n"
    assert kind.code == 2
    assert "--out must end with .eml or .html or .txt" in kind.err
