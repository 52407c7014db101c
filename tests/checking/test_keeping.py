"""What outlives the process: `flow check` says of it what `flow run` does with it, and leaves no trace."""

import sqlite3
from collections.abc import Mapping
from pathlib import Path

import pytest

from flow.checking.finding import Finding
from flow.checking.keeping import Keeping, check_keeping
from flow.errors import ConfigError
from flow.records.database import Database
from flow.records.files import usable_folder

pytestmark = pytest.mark.anyio

CANARY = "canary-secret"


async def looked(environment: Mapping[str, str]) -> tuple[Keeping, list[Finding]]:
    findings: list[Finding] = []
    return await check_keeping(environment, findings.append), findings


async def refusal(environment: Mapping[str, str]) -> str:
    """Return why the database is not usable, and see that nothing secret is told."""
    keeping, [finding] = await looked(environment)
    assert (keeping.database, finding.state) == ("unknown", "wrong")
    assert CANARY not in finding.text
    return finding.text


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


async def test_without_any_of_it_nothing_is_told() -> None:
    assert await looked({}) == (Keeping(), [])


async def test_a_database_with_the_tables_is_ok_and_stays_as_it_was(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    await database.migrate()
    await database.close()
    before = contents(tmp_path)

    keeping, [finding] = await looked({"FLOW_DATABASE_URL": f"sqlite:///{tmp_path / 'records.db'}"})

    assert (keeping, finding.state) == (Keeping(database="kept"), "ok")
    assert finding.text.endswith("records.db has the tables of this version")
    assert contents(tmp_path) == before


async def test_a_database_that_is_in_use_is_read_with_its_log(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'records.db'}")
    await database.migrate()

    keeping, [finding] = await looked({"FLOW_DATABASE_URL": f"sqlite:///{tmp_path / 'records.db'}"})
    await database.ready()
    await database.close()

    assert keeping.database == "kept"
    assert finding.text.endswith("records.db has the tables of this version")


async def test_a_file_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    keeping, [finding] = await looked({"FLOW_DATABASE_URL": f"sqlite:///{tmp_path / 'records.db'}"})

    assert keeping.database == "kept"
    assert finding.text.endswith("records.db gets its tables at the first start")
    assert contents(tmp_path) == {}


async def test_what_no_run_would_take_is_wrong_in_the_same_words(tmp_path: Path) -> None:
    (tmp_path / "bad.db").write_bytes(b"no database" * 1000)
    other = sqlite3.connect(tmp_path / "other.db")
    other.execute("CREATE TABLE actions (id INTEGER)")
    other.close()
    for name in ("bad.db", "other.db", "nowhere/records.db"):
        url = f"sqlite:///{tmp_path / name}"
        with pytest.raises(ConfigError) as caught:
            async with Database.opened(url):
                pass

        assert await refusal({"FLOW_DATABASE_URL": url}) == str(caught.value)


async def test_an_address_or_file_that_cannot_be_read_is_wrong(tmp_path: Path) -> None:
    scheme = await refusal({"FLOW_DATABASE_URL": f"mysql://me:{CANARY}@db/x"})
    missing = await refusal({"FLOW_DATABASE_URL_FILE": f"/nonexistent/{CANARY}"})

    assert scheme.startswith("The database URL must begin with sqlite:// or postgresql://, not mysql://")
    assert missing == "FLOW_DATABASE_URL_FILE names a file that cannot be read (No such file or directory)"


async def test_a_server_that_is_away_is_wrong_for_now() -> None:
    sentence = await refusal({"FLOW_DATABASE_URL": f"postgresql://me:{CANARY}@127.0.0.1:1/records"})

    assert sentence.startswith("127.0.0.1:1, database records cannot be reached")
    assert sentence.endswith("; flow run waits for it")


@pytest.mark.broker
async def test_a_server_has_the_tables_or_not(postgresql_url: str) -> None:
    keeping, [finding] = await looked({"FLOW_DATABASE_URL": postgresql_url})
    empty = await refusal({"FLOW_DATABASE_URL": postgresql_url.rpartition("/")[0] + "/template1"})

    assert (keeping.database, finding.state) == ("kept", "ok")
    assert empty.endswith("has no records yet: run flow records migrate")


async def test_what_is_gone_with_the_process_is_a_caution() -> None:
    keeping, [finding] = await looked({"FLOW_DATABASE_URL": "sqlite://"})

    assert (keeping.database, finding.state) == ("passing", "caution")


async def test_a_folder_that_can_be_written_or_made_is_ok_and_not_made(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "new" / "deep"):
        keeping, [finding] = await looked({"FLOW_STATE_DIR": str(path)})

        assert (keeping.folder, finding) == ("kept", Finding("ok", f"the folder {path} can be written"))
    assert contents(tmp_path) == {}


async def test_a_folder_that_a_run_refuses_is_never_ok(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    for path in (Path("/proc/nope"), file, file / "below"):
        with pytest.raises(ConfigError):
            usable_folder(path, "the folder")

        keeping, [finding] = await looked({"FLOW_STATE_DIR": str(path)})

        assert keeping.folder == "unknown"
        assert finding.state in ("wrong", "not checked")
