"""`flow records` as a process of its own."""

from pathlib import Path

import pytest

from flow.cli.errors import CONFIGURATION
from tests.cli.conftest import run_flow
from tests.nodes.postgresql_node import PostgreSQLNode

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
