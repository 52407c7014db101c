"""Both databases: transactions, several writers, errors that tell what to do, and waits that end."""

import logging
import os
import secrets
import sqlite3
import stat
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path
from subprocess import PIPE

import anyio
import psycopg
import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import OperationalError, PendingRollbackError

from flow.errors import ConfigError, DatabaseDown, DatabaseError, RowRefused
from flow.records.database import Database
from flow.records.failures import translated
from flow.records.tables import organisations, starts
from flow.records.url import DatabaseUrl
from tests.broker.queues import until
from tests.nodes.postgresql_node import PostgreSQLNode

pytestmark = pytest.mark.anyio

MOMENT = datetime(2026, 3, 29, 8, 0, tzinfo=timezone(timedelta(hours=2)))
WRITER = """
import sys, anyio
from datetime import UTC, datetime
from sqlalchemy import func, insert, select
from flow.records.database import Database
from flow.records.tables import starts

async def main():
    async with Database.opened(sys.argv[1]) as database:
        for number in range(50):
            async with database.begin() as connection:
                await connection.scalar(select(func.count()).select_from(starts))
                await connection.execute(insert(starts).values(identity=b"x", at=datetime.now(UTC)))

anyio.run(main)
"""


async def count(database: Database) -> int:
    async with database.reading() as connection:
        return await connection.scalar(select(func.count()).select_from(starts)) or 0


async def test_what_ends_well_stays_and_what_fails_is_undone(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(organisations).values(name="acme"))

    async def fail() -> None:
        async with database.begin() as connection:
            await connection.execute(insert(organisations).values(name="other"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()

    async with database.reading() as connection:
        names = (await connection.scalars(select(organisations.c.name))).all()
    assert names == ["acme"]


@pytest.mark.slow
async def test_several_processes_read_and_write(database: Database, database_url: str) -> None:
    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(anyio.run_process, [sys.executable, "-c", WRITER, database_url])

    assert await count(database) == 150


async def test_tasks_of_one_process_write_at_once(database: Database) -> None:
    async def write() -> None:
        for _ in range(10):
            async with database.begin() as connection:
                await connection.scalar(select(func.count()).select_from(starts))
                await connection.execute(insert(starts).values(identity=b"x", at=func.now()))

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(write)

    assert await count(database) == 200


async def test_reading_goes_on_while_another_writes(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(starts).values(identity=b"x", at=func.now()))

        assert await count(database) == 0


async def test_a_reader_cannot_write(postgresql_url: str) -> None:
    async with Database.opened(postgresql_url) as database:
        with pytest.raises(DatabaseError):
            async with database.reading() as connection:
                await connection.execute(insert(organisations).values(name="acme"))


async def test_moments_come_back_as_they_went(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(starts).values(identity=b"x", at=MOMENT))

    async with database.reading() as connection:
        found = await connection.scalar(select(starts.c.at))
    assert found == MOMENT
    assert found is not None
    assert found.utcoffset() is not None


async def test_a_refused_row_is_told_from_a_database_that_is_down(database: Database) -> None:
    async with database.begin() as connection:
        await connection.execute(insert(organisations).values(name="acme"))

    with pytest.raises(RowRefused) as refused:
        async with database.begin() as connection:
            await connection.execute(insert(organisations).values(name="acme"))
    with pytest.raises(RowRefused):
        async with database.begin() as connection:
            await connection.execute(insert(organisations).values(name="\udcff"))
    with pytest.raises(RowRefused):
        async with database.begin() as connection:
            await connection.execute(insert(organisations).values(name="x", id=2**70))

    assert "acme" not in str(refused.value)
    assert refused.value.__cause__ is None


async def test_nul_in_a_text_is_a_refused_row(postgresql_url: str) -> None:
    async with Database.opened(postgresql_url) as database:
        with pytest.raises(RowRefused):
            async with database.begin() as connection:
                await connection.execute(insert(organisations).values(name="a\0b"))


@pytest.mark.slow
async def test_a_transaction_that_takes_too_long_ends(database_url: str) -> None:
    async with Database.opened(database_url, patience=1.0) as database:

        async def dawdle() -> None:
            async with database.begin() as connection:
                await connection.execute(insert(organisations).values(name="acme"))
                await anyio.sleep_forever()

        with pytest.raises(DatabaseDown, match="did not answer in 1 seconds"):
            await dawdle()

        async with database.begin() as connection:
            assert (await connection.scalars(select(organisations.c.name))).all() == []


CANCELLED = """
import sys, anyio
from sqlalchemy import text
from flow.records.database import Database

LONG = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"

async def main():
    async with Database.opened(sys.argv[1]) as database:
        with anyio.move_on_after(0.3):
            async with database.begin() as connection:
                await connection.execute(text(LONG))
        async with database.begin() as connection:
            print(await connection.scalar(text("SELECT 7")))

anyio.run(main)
"""


@pytest.mark.slow
async def test_a_statement_that_is_cancelled_keeps_no_process_from_ending(database_url: str) -> None:
    with anyio.fail_after(30):
        done = await anyio.run_process([sys.executable, "-c", CANCELLED, database_url])

    assert done.stdout == b"7\n"


IMPATIENT = """
import sqlite3, sys, threading, anyio
from flow.errors import DatabaseDown
from flow.records.database import Database

async def main():
    async with Database.opened(sys.argv[1], patience=5) as database:
        held = sqlite3.connect(database.url.path, isolation_level=None)
        held.execute("BEGIN IMMEDIATE")
        try:
            async with database.begin(patience=0.1):
                pass
        except DatabaseDown as error:
            print(str(error).endswith("did not answer in 0.1 seconds"))

anyio.run(main)
for thread in threading.enumerate():
    if thread.daemon:
        thread.join()
"""


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_thread_that_waits_longer_than_its_loop_says_nothing(database_url: str) -> None:
    """Its answer is for nobody; the traceback would end whatever runs by then."""
    with anyio.fail_after(60):
        done = await anyio.run_process([sys.executable, "-c", IMPATIENT, database_url])

    assert (done.stdout, done.stderr) == (b"True\n", b"")


@pytest.mark.slow
async def test_a_lock_that_is_not_given_back_is_a_database_that_is_down(tmp_path: Path) -> None:
    path = tmp_path / "records.db"
    async with Database.opened(f"sqlite:///{path}", patience=3.0) as database:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseDown, match="SQLITE_BUSY"):
            async with database.begin():
                pass
        other.close()


async def test_a_server_that_stops_and_starts_again(
    postgresql_node: PostgreSQLNode, postgresql_url: str
) -> None:
    async with Database.opened(postgresql_url) as database:
        assert await count(database) == 0
        postgresql_node.stop()
        try:
            with pytest.raises(DatabaseDown):
                await count(database)
            with pytest.raises(ConfigError, match="cannot be opened"):
                async with Database.opened(postgresql_url):
                    pass
        finally:
            postgresql_node.start()

        assert await count(database) == 0


async def test_a_server_without_a_connection_left_is_waited_for(
    postgresql: PostgreSQLNode, postgresql_url: str
) -> None:
    """It says so with the name of the account, which looks like a login that it does not know."""
    name = f"few_{secrets.token_hex(4)}"
    postgresql.execute(f"CREATE ROLE {name} LOGIN CONNECTION LIMIT 1")
    url = postgresql_url.replace("postgres@", f"{name}@")
    try:
        async with await psycopg.AsyncConnection.connect(url):
            database = Database(url)
            with pytest.raises(DatabaseDown, match="has no connection left for us: run fewer"):
                await database.ready()
            await database.close()
    finally:
        postgresql.execute(f"DROP ROLE {name}")


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("FATAL:  sorry, too many clients already", "has no connection left: run fewer"),
        ("FATAL:  remaining connection slots are reserved for roles", "has no connection left: run fewer"),
        ('FATAL:  too many connections for database "x"', "has no connection left for us"),
        ('FATAL:  database "x" is not currently accepting connections', "accepts no connections now"),
        ("FATAL:  the database system is starting up", "is starting"),
        ("FATAL:  the database system is in recovery mode", "is recovering from a crash"),
    ],
)
def test_what_mends_itself_is_waited_for_and_said(said: str, told: str) -> None:
    with pytest.raises(DatabaseDown, match=f"^here {told}"), translated("here"):
        raise OperationalError("SELECT", {}, psycopg.OperationalError(f"connection failed: {said}"))


def test_a_connection_in_a_wrong_state_refuses_no_row() -> None:
    """Else a row would be missing for ever that the next connection takes."""
    with pytest.raises(DatabaseError, match="PendingRollbackError") as failed, translated("here"):
        raise PendingRollbackError("secret")

    assert not isinstance(failed.value, RowRefused)


async def test_what_the_driver_warns_of_is_not_shown(postgresql_url: str) -> None:
    """It would be in the words of the server, which quote rows."""
    async with Database.opened(postgresql_url):
        assert not logging.getLogger("psycopg.pipeline").isEnabledFor(logging.ERROR)


async def test_who_waits_for_a_server_is_told_once_and_goes_on_when_it_is_there(
    postgresql_node: PostgreSQLNode, postgresql_url: str
) -> None:
    said: list[str] = []
    async with Database.opened(postgresql_url):
        pass
    there = anyio.Event()
    tries = 0

    class Counted(Database):
        async def ready(self) -> None:
            nonlocal tries
            tries += 1
            await super().ready()

    async def wait() -> None:
        async with Counted.awaited(postgresql_url, said.append) as database:
            await database.ready()
            there.set()

    postgresql_node.stop()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(wait)
        try:
            await until(lambda: tries >= 3)
        finally:
            postgresql_node.start()
        await there.wait()

    assert len(said) == 1
    assert said[0].startswith("waiting for the database: ")


async def test_who_waits_for_a_server_does_not_wait_for_what_is_wrong() -> None:
    with pytest.raises(ConfigError):
        async with Database.awaited("sqlite:////nonexistent/folder/records.db", print):
            pass


async def test_a_server_that_is_frozen_keeps_nobody(
    postgresql_node: PostgreSQLNode, postgresql_url: str
) -> None:
    async with Database.opened(postgresql_url, patience=3.0) as database:
        assert await count(database) == 0
        postgresql_node.freeze()
        try:
            with anyio.fail_after(20), pytest.raises(DatabaseDown):
                await count(database)
        finally:
            postgresql_node.thaw()

        assert await count(database) == 0


async def test_a_passing_database_is_gone_at_the_end() -> None:
    async with Database.opened("sqlite://") as database:
        async with database.begin() as connection:
            await connection.execute(insert(starts).values(identity=b"x", at=func.now()))
        assert await count(database) == 1
        folder = Path(str(database._passing.name)) if database._passing else None

    assert folder is not None
    assert not folder.exists()


async def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    async with Database.opened(f"sqlite:///{tmp_path / 'records.db'}") as database:
        assert await count(database) == 0
        modes = [stat.S_IMODE(entry.stat().st_mode) for entry in os.scandir(tmp_path)]

    assert modes == [0o600] * 3  # the file, and the two of its log


WRONG = {
    "": "is empty",
    "mysql://root:hunter2@localhost/x": "must begin with sqlite:// or postgresql://, not mysql://",
    "hunter2": "must begin with",
    "sqlite://relative.db": "third slash",
    "sqlite:///x.db?mode=hunter2": "takes no parameters",
    "postgresql://flow:hunter2@localhost": "names no database",
    "postgresql://flow:hunter2@localhost:port/x": "cannot be read",
    "postgresql://flow:hunt/er2@localhost/x": "write %2F",
    "postgresql://flow:hunter2@localhost/x#y": "write %23",
}


@pytest.mark.parametrize("url", WRONG)
def test_a_wrong_url_is_one_sentence_without_the_password(url: str) -> None:
    with pytest.raises(ConfigError, match=WRONG[url]) as caught:
        DatabaseUrl.parse(url)

    assert "hunter2" not in str(caught.value)
    assert "er2" not in str(caught.value)


def test_the_url_is_shown_without_its_password() -> None:
    url = DatabaseUrl.parse("postgres://flow:hunter2@db.example.org/records?sslmode=require")

    assert str(url) == "db.example.org:5432, database records"
    assert "hunter2" not in repr(url)


def test_the_url_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "url"
    path.write_text("sqlite:////var/lib/flow/records.db\n")

    named = DatabaseUrl.from_environment({"FLOW_DATABASE_URL_FILE": str(path)})
    assert named is not None
    assert named.path == Path("/var/lib/flow/records.db")
    assert DatabaseUrl.from_environment({}) is None
    with pytest.raises(ConfigError, match="both set"):
        DatabaseUrl.from_environment({"FLOW_DATABASE_URL": "sqlite://", "FLOW_DATABASE_URL_FILE": str(path)})


REFUSED = {
    "postgresql://postgres@127.0.0.1:{port}/nowhere": "does not exist: create it first",
    "postgresql://nobody:hunter2@127.0.0.1:{port}/postgres": "refuses the login",
    "postgresql://postgres:hunter2@127.0.0.1:1/postgres": "cannot be reached: see that the server runs",
    "postgresql://postgres:hunter2@127.0.0.1:{port}/postgres?sslmode=require": "speaks no TLS",
    "postgresql://postgres:hunter2@127.0.0.1:{port}/postgres?foo=hunter2": "libpq does not know",
    "postgresql://postgres@flow.invalid/postgres": "cannot be found",
    "postgresql://postgres@127.0.0.1:{port}/postgres": "has no records yet: run flow records migrate",
}


@pytest.mark.parametrize("url", REFUSED)
async def test_a_server_that_refuses_is_one_sentence(postgresql_node: PostgreSQLNode, url: str) -> None:
    with pytest.raises(ConfigError, match=REFUSED[url]) as caught:
        async with Database.opened(url.format(port=postgresql_node.port)):
            pass

    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


async def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    odd = tmp_path / "odd.db"
    odd.write_bytes(b"not a database, but long enough to look like one" * 50)

    with pytest.raises(ConfigError, match="is no SQLite file"):
        async with Database.opened(f"sqlite:///{odd}"):
            pass
    with pytest.raises(ConfigError, match="cannot be opened: No such file"):
        Database(f"sqlite:///{tmp_path / 'missing' / 'records.db'}")


async def test_a_missing_driver_is_a_sentence_that_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['sqlalchemy'] = None\n"
        "from flow.records.database import Database\nfrom flow.errors import ConfigError\n"
        "try:\n    Database('sqlite://')\nexcept ConfigError as error:\n    print(error)"
    )
    done = await anyio.run_process([sys.executable, "-c", code], stdout=PIPE)

    assert done.stdout.decode() == "A database needs sqlalchemy: install proca-flow[sql]\n"
