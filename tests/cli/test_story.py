"""`flow trace` and `flow forget` as processes of their own."""

import json

import pytest

from flow.cli.errors import FAILED, USAGE
from flow.records.database import Database
from tests.cli.conftest import answered, run_flow
from tests.records.signatures import action, page, supporter

pytestmark = pytest.mark.anyio

QUESTION = b"Erase the personal data of this person for good? [y/N]: "


async def signed(database: Database) -> tuple[int, int]:
    """Add a supporter who signed, and return both ids."""
    async with database.begin() as connection:
        where = await page(connection)
        who = await supporter(connection, where, "ada")
        return who, await action(connection, where, who, "ada")


async def test_a_story_is_told(database: Database, database_url: str) -> None:
    who, made = await signed(database)

    told = await run_flow("trace", str(made), FLOW_DATABASE_URL=database_url)
    plain = await run_flow("trace", str(made), "--json", "--database-url", database_url)

    lines = told.out.splitlines()
    assert (told.code, told.err) == (0, "")
    about = "on acme/de, campaign acme_rivers, organisation acme"
    assert lines[0] == f"action {made} (delivered) of supporter {who} (accepted) {about}"
    assert lines[2].split() == ["TIME", "WHAT", "WHERE", "DETAIL"]
    assert lines[3].startswith("2026-02-19 15:17:29  submitted ")
    assert lines[-1].startswith("2026-02-19 15:17:37  delivered ")
    assert lines[-1].endswith("Crm acme.crm                attempt 2; target id crm-77")
    story = json.loads(plain.out)
    assert (story["action_id"], story["supporter_id"], len(story["events"])) == (made, who, 8)


async def test_an_unknown_action_is_a_sentence(database_url: str) -> None:
    unknown = await run_flow("trace", "7", FLOW_DATABASE_URL=database_url)
    odd = await run_flow("trace", "seven", FLOW_DATABASE_URL=database_url)

    assert unknown.err.startswith("flow: there is no action 7 in ")
    assert unknown.code == FAILED
    assert odd.code == USAGE


async def test_what_is_signed_while_the_question_waits_is_forgotten_as_well(
    database: Database, database_url: str
) -> None:
    async with database.begin() as connection:
        where = await page(connection)
        who = await supporter(connection, where, "ada")

    async def sign() -> None:
        async with database.begin() as connection:
            await supporter(connection, where, "ada")

    ended = await answered(
        "forget", str(who), dialogue=[(QUESTION, b"y\n")], meanwhile=sign, FLOW_DATABASE_URL=database_url
    )

    assert ended.code == 0
    assert "contacts erased: 2" in ended.out


async def test_a_person_is_forgotten_when_it_is_confirmed(database: Database, database_url: str) -> None:
    who, made = await signed(database)

    no = await answered("forget", str(who), dialogue=[(QUESTION, b"n\n")], FLOW_DATABASE_URL=database_url)
    yes = await run_flow("forget", str(who), "--yes", FLOW_DATABASE_URL=database_url)
    again = await answered("forget", str(who), dialogue=[(QUESTION, b"y\n")], FLOW_DATABASE_URL=database_url)
    told = await run_flow("trace", str(made), FLOW_DATABASE_URL=database_url)

    assert (no.code, no.err) == (FAILED, "flow: nothing was erased\n")
    assert no.out == f"1 supporter ({who}), 1 action ({made})\n"
    assert yes.out.splitlines()[:3] == [
        f"1 supporter ({who}), 1 action ({made})",
        "contacts erased: 1",
        "actions whose custom fields, donation and tracking were erased: 1",
    ]
    assert "flow dead export" in yes.out
    assert again.out.startswith(f"1 supporter ({who}), 1 action ({made}), forgotten before\n")
    assert "contacts erased: 0" in again.out
    assert (yes.code, again.code) == (0, 0)
    assert "personal data erased" in told.out
    assert "who is ada?" not in told.out


async def test_a_person_is_found_by_an_address_that_no_list_of_processes_shows(
    database: Database, database_url: str
) -> None:
    await signed(database)

    shown = await run_flow("forget", "ada@example.org", FLOW_DATABASE_URL=database_url)
    unknown = await run_flow(
        "forget", "-", "--yes", FLOW_DATABASE_URL=database_url, stdin=b"eve@example.org\n"
    )
    nobody = await run_flow("forget", "-", FLOW_DATABASE_URL=database_url, stdin=b"Ada@Example.org\ny\n")
    dialogue = [(b"E-mail address: ", b"Ada@Example.org\n"), (QUESTION, b"y\n")]
    asked = await answered("forget", "-", dialogue=dialogue, FLOW_DATABASE_URL=database_url)
    by_reference = await run_flow("forget", "ref-ada", "--yes", FLOW_DATABASE_URL=database_url)

    assert shown.code == USAGE
    assert "flow forget -" in shown.err
    assert unknown.err.startswith("flow: there is no supporter with this address in ")
    assert "eve" not in unknown.err + unknown.out
    assert unknown.code == FAILED
    assert (nobody.code, nobody.out) == (USAGE, "")
    assert "there is no terminal to ask on: --yes erases without a question\n" in nobody.err
    assert "contacts erased: 1" in asked.out
    assert asked.code == 0
    assert "contacts erased: 0" in by_reference.out
