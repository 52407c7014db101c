"""`flow submit` and `flow sweep` as users start them."""

import json
import os
import stat
from pathlib import Path
from typing import Any

import pytest
from anyio import Path as AsyncPath

from flow.plumbing.lines import LONGEST
from tests.cli.conftest import Ended, run_flow
from tests.plumbing.wires import Wires

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

DEFINED = [
    {"type": "organisation", "name": "acme", "title": "Acme"},
    {"type": "campaign", "name": "water", "organisation": "acme"},
    {"type": "actionPage", "name": "water/acme", "campaign": "water", "organisation": "acme"},
]


def signature(number: int, **more: Any) -> dict[str, Any]:
    contact = {"email": f"canary{number}@example.org", "firstName": "Ada"}
    return {"actionPage": "water/acme", "submission": f"form-{number}", "contact": contact} | more


def lines(*several: Any) -> bytes:
    return b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in several)


@pytest.fixture
def records(tmp_path: Path) -> dict[str, str]:
    return {"FLOW_DATABASE_URL": f"sqlite:///{tmp_path / 'records.db'}"}


async def test_from_nothing_to_signatures_in_the_queue(
    amqp_url: str, records: dict[str, str], tmp_path: Path
) -> None:
    async with Wires(amqp_url) as wires:
        await wires.lay(["acme"])
        results = tmp_path / "results"
        standard_input = lines(*DEFINED, *(signature(number) for number in range(150)), signature(3))

        first = await run_flow(
            "submit", "--results", str(results), url=amqp_url, stdin=standard_input, **records
        )
        again = await run_flow("submit", url=amqp_url, stdin=standard_input, **records)

        assert (first.code, first.err) == (0, "")
        assert "read 154 lines" in first.out
        assert (
            "stored 150 actions, 1 submitted before, 3 definitions, 0 wrong; published 150 messages"
            in first.out
        )
        assert "stored 0 actions, 151 submitted before" in again.out
        assert again.code == 0
        assert len(await wires.drain("acme.crm")) == 150
    written = [json.loads(line) for line in results.read_text().splitlines()]
    assert {one["status"] for one in written} == {"delivered", "submitted before"}
    assert len({one["actionId"] for one in written}) == 150
    assert stat.S_IMODE(results.stat().st_mode) == 0o600


async def test_wrong_lines_are_told_kept_and_can_be_submitted_again(
    records: dict[str, str], tmp_path: Path
) -> None:
    file = AsyncPath(tmp_path / "signatures.jsonl")
    unknown = signature(1, actionPage="water/none")
    await file.write_bytes(lines(*DEFINED, b"canary", signature(0), unknown, signature(2, canary=1)))

    first = await run_flow("submit", "--no-publish", str(file), **records)
    kept = tmp_path / "signatures.jsonl.wrong"
    page = {**DEFINED[2], "name": "water/none"}
    await file.write_bytes(lines(page) + kept.read_bytes())
    second = await run_flow("submit", "--no-publish", str(file), **records)

    assert first.code == second.code == 1
    assert [line for line in first.err.splitlines() if ": line " in line] == [
        "flow: line 4: it is not JSON: wrong character at byte 0",
        "flow: line 6: its actionPage does not exist: define it first",
        "flow: line 7: the action has a field that is not known; known are actionPage, actionType, "
        "submission, createdAt, testing, customFields, donation, contact, privacy, tracking, links",
    ]
    assert "3 lines are not stored: submit" in first.err
    assert "1 message in the outbox: flow sweep publishes" in first.err
    assert "canary" not in first.out + first.err
    assert kept.read_bytes() == lines(b"canary", unknown, signature(2, canary=1))
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert "stored 1 action, 0 submitted before" in second.out
    assert (tmp_path / "signatures.jsonl.wrong.2").read_bytes() == lines(b"canary", signature(2, canary=1))


async def test_sweep_publishes_what_was_left_and_tells_what_is_refused(
    amqp_url: str, records: dict[str, str]
) -> None:
    standard_input = lines(*DEFINED, *(signature(number) for number in range(3)))
    await run_flow("submit", "--no-publish", stdin=standard_input, **records)
    async with Wires(amqp_url) as wires:
        await wires.exchanges()
        refused = await run_flow("sweep", url=amqp_url, **records)
        await wires.lay(["acme"])
        done = await run_flow("sweep", url=amqp_url, **records)
        idle = await run_flow("sweep", url=amqp_url, **records)

    assert refused.code == 1
    assert refused.out == "published 0 messages; 3 messages wait, 3 of them refused\n"
    assert "3 messages not taken by the broker" in refused.err
    assert done == Ended(0, "published 3 messages\n", "")
    assert idle == Ended(0, "published 0 messages\n", "")


async def test_a_line_without_an_end_is_told_and_those_before_it_are_stored(
    records: dict[str, str], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(lines(*DEFINED, signature(1)))
    number = source.read_bytes().count(b"\n") + 1
    os.truncate(source, source.stat().st_size + LONGEST + 1)

    ended = await run_flow("submit", "--no-publish", str(source), **records)

    sentence = f"flow: line {number} is longer than {LONGEST} bytes: it and what follows it is not read\n"
    assert (ended.code, ended.err) == (1, sentence)
    assert "stored 1 action, " in ended.out


async def test_a_virtual_host_that_is_not_there_is_said_once(amqp_url: str, records: dict[str, str]) -> None:
    standard_input = lines(*DEFINED, *(signature(number) for number in range(3)))
    await run_flow("submit", "--no-publish", stdin=standard_input, **records)

    ended = await run_flow("sweep", url=f"{amqp_url}-gone", **records)

    assert ended.code == 78
    assert ended.out == "published 0 messages; 3 messages wait\n"
    assert ended.err.count("There is no virtual host") == 1
    assert ended.err.count("\n") == 1


async def test_without_a_broker_everything_is_stored_and_waits(records: dict[str, str]) -> None:
    nowhere = "amqp://guest:guest@127.0.0.1:1/"

    ended = await run_flow("submit", url=nowhere, stdin=lines(*DEFINED, signature(1)), **records)
    swept = await run_flow("sweep", url=nowhere, **records)

    assert (ended.code, swept.code) == (1, 1)
    assert "stored 1 action" in ended.out
    assert "127.0.0.1:1" in ended.err
    assert "1 message in the outbox: flow sweep publishes them" in ended.err
    assert swept.out == "published 0 messages; 1 message waits\n"


async def test_without_a_database_it_says_what_to_do() -> None:
    ended = await run_flow("submit", "--no-publish", stdin=b"")

    assert ended.code == 78
    assert "No database is named: set FLOW_DATABASE_URL" in ended.err
