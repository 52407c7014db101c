"""`flow records` as a process of its own."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from flow.cli.errors import CONFIGURATION
from flow.records.database import Database
from flow.records.ledger import SqlLedger
from tests.cli.conftest import run_flow
from tests.nodes.postgresql_node import PostgreSQLNode
from tests.records.test_ledger import row

pytestmark = pytest.mark.anyio


async def test_a_new_database_is_migrated_once(postgresql_node: PostgreSQLNode) -> None:
    name = postgresql_node.add_database()
    url = postgresql_node.url(name)

    before = await run_flow("records", "check", FLOW_DATABASE_URL=url)
    first = await run_flow("records", "migrate", FLOW_DATABASE_URL=url)
    second = await run_flow("records", "migrate", "--database-url", url)
    after = await run_flow("records", "check", FLOW_DATABASE_URL=url)

    postgresql_node.drop_database(name)
    assert before.code == CONFIGURATION
    place = f"127.0.0.1:{postgresql_node.port}, database {name}"
    assert before.err == f"flow: {place} has no records yet: run flow records migrate\n"
    assert (first.code, first.err) == (0, "")
    assert [line.split()[:2] for line in first.out.splitlines()[:-1]] == [
        ["done:", "0001"],
        ["done:", "0002"],
        ["done:", "0003"],
    ]
    assert second.out == f"{place} has the tables of this version\n"
    assert (after.code, after.err) == (0, "")


async def test_what_is_old_is_pruned(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"
    async with Database.opened(url) as database:
        old = datetime.now(UTC) - timedelta(days=401)
        await SqlLedger(database).write([row(1, at=old, unsettled=False), row(2)])

    counted = await run_flow("records", "prune", "--dry-run", FLOW_DATABASE_URL=url)
    done = await run_flow("records", "prune", FLOW_DATABASE_URL=url)
    again = await run_flow("records", "prune", "--older-than", "400d", "--database-url", url)

    what = (
        "what is older than 400 days: 1 rows of the ledger, 0 claims, 0 notes of what was published, "
        "0 starts\n"
    )
    assert (counted.code, counted.out, counted.err) == (0, f"would delete {what}", "")
    assert (done.code, done.out, done.err) == (0, f"deleted {what}", "")
    assert again.out == f"deleted {what}".replace("1 rows", "0 rows")


@pytest.mark.parametrize("wrong", ["29d", "-5d", "soon", "400h", "", "9999999999d"])
async def test_an_age_that_is_none_or_too_young_is_a_sentence(tmp_path: Path, wrong: str) -> None:
    url = f"sqlite:///{tmp_path / 'records.db'}"

    refused = await run_flow("records", "prune", f"--older-than={wrong}", FLOW_DATABASE_URL=url)

    assert refused.code == 2
    assert "give days, like 400d, 30d at least: younger rows may still be needed" in refused.err


async def test_a_database_that_is_not_named_or_not_there_is_a_sentence(tmp_path: Path) -> None:
    nothing = await run_flow("records", "migrate")
    nowhere = await run_flow("records", "migrate", FLOW_DATABASE_URL="postgresql://a:hunter2@127.0.0.1:1/x")

    assert nothing.err.startswith("flow: No database is named: set FLOW_DATABASE_URL to sqlite:///FILE or ")
    assert nothing.code == CONFIGURATION
    assert nowhere.err.startswith("flow: 127.0.0.1:1, database x cannot be reached: see that the server runs")
    assert nowhere.code == 1


async def test_a_file_needs_nothing(tmp_path: Path) -> None:
    done = await run_flow("records", "check", FLOW_DATABASE_URL=f"sqlite:///{tmp_path / 'records.db'}")

    assert (done.code, done.err) == (0, "")
