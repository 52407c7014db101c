"""The database of the records: SQLite in a file, or PostgreSQL; every wait in it has an end."""

import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path
from random import random
from typing import TYPE_CHECKING, Any

import anyio

from flow.errors import ConfigError, DatabaseDown, DatabaseError
from flow.records.failures import translated
from flow.records.files import private_file
from flow.records.url import DatabaseUrl

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

CONNECT = 10.0  # seconds until a server must have accepted a connection
PATIENCE = 30.0  # seconds for a transaction, with the wait for a connection and for locks
MIGRATION = 3600.0  # seconds for a migration
SOONEST, LATEST = 0.5, 30.0  # seconds until a database that is away is tried again, half of it at random
SPARE = 2.0  # seconds that our own deadline leaves to the database's, whose errors say more


class Database:
    """Transactions with the records.

    `async with Database.opened(url) as database:`, then `async with database.begin() as connection:`. What is
    to live on while the database is away makes it with `Database(url)`, calls `ready` until that succeeds,
    and `close` at the end.
    """

    def __init__(self, url: DatabaseUrl | str, *, patience: float = PATIENCE) -> None:
        """Prepare connections to *url*; none is made yet. *patience*: seconds for a transaction.

        Raises:
            ConfigError: the URL is wrong, SQLAlchemy or the driver is not installed, or SQLite has no folder
                to write to.
        """
        self.url = DatabaseUrl.parse(url) if isinstance(url, str) else url
        self._patience = patience
        self._passing: tempfile.TemporaryDirectory[str] | None = None
        self._writing = anyio.Lock()  # SQLite lets one write at a time; processes then wait by busy_timeout
        self._engine = self._made()

    @classmethod
    @asynccontextmanager
    async def opened(
        cls, url: DatabaseUrl | str, *, patience: float = PATIENCE, away: bool = False
    ) -> "AsyncIterator[Database]":
        """Open the database of *url*, see that it is ready, and close it at the end.

        With *away* it may still be down: whoever uses it calls `ready` until that succeeds.

        Raises:
            ConfigError: it is wrong, cannot be reached, or has not the tables of this version.
        """
        database = cls(url, patience=patience)
        try:
            try:
                await database.ready()
            except DatabaseDown as error:
                if not away:
                    raise ConfigError(f"The database cannot be opened: {error}") from error
            yield database
        finally:
            await database.close()

    @classmethod
    @asynccontextmanager
    async def awaited(
        cls, url: DatabaseUrl | str, say: Callable[[str], None], *, patience: float = PATIENCE
    ) -> "AsyncIterator[Database]":
        """Open the database of *url* like `opened`, but wait for one that is away, and *say* that once.

        Raises:
            ConfigError: it is wrong, or has not the tables of this version: waiting does not mend that.
        """
        database = cls(url, patience=patience)
        delay = SOONEST
        try:
            while True:
                try:
                    await database.ready()
                    break
                except DatabaseDown as error:
                    if delay == SOONEST:
                        say(f"waiting for the database: {error}")
                await anyio.sleep(delay * (1 + random()) / 2)
                delay = min(LATEST, 2 * delay)
            yield database
        finally:
            await database.close()

    @property
    def is_sqlite(self) -> bool:
        """Whether it is SQLite, where one transaction at a time writes."""
        return self.url.kind == "sqlite"

    @asynccontextmanager
    async def begin(self, *, patience: float | None = None) -> "AsyncIterator[AsyncConnection]":
        """Begin a transaction that may write; it is committed at the end, or undone by an error.

        *patience*: seconds for all of it, if not those of the database.

        Raises:
            DatabaseDown: no connection, no answer or no end in time.
            RowRefused: a row breaks a constraint, or holds what cannot be stored.
            DatabaseError: the database refused for another reason.
        """
        writing = self._writing if self.is_sqlite else nullcontext()
        async with self._bounded(patience), writing, self._engine.begin() as connection:
            yield connection

    @asynccontextmanager
    async def reading(self, *, patience: float | None = None) -> "AsyncIterator[AsyncConnection]":
        """Begin a transaction that only reads: in SQLite it neither waits for a writer nor keeps one waiting.

        Raises:
            DatabaseDown: no connection, no answer or no end in time.
            DatabaseError: the database refused for another reason.
        """
        async with self._bounded(patience), self._engine.connect() as connection:
            await connection.execution_options(**self._read_only)
            async with connection.begin():
                yield connection

    async def ready(self) -> None:
        """See that the database answers and has the tables of this version; a new SQLite file gets them.

        Raises:
            DatabaseDown: it cannot be reached now.
            ConfigError: login, database, file or tables are wrong; the sentence says what to do.
        """
        from flow.records.migrating import state

        async with self._checked(), self.begin() as connection:
            found = await connection.run_sync(state)
        if found.empty and self.is_sqlite:
            await self.migrate()
        elif not found.current:
            raise ConfigError(f"{self.url.place} {found.sentence}")

    async def migrate(self) -> list[str]:
        """Give the database the tables of this version, rows kept; return what was done, oldest first.

        All of it or nothing happens; of several processes that do it at once one does.

        Raises:
            DatabaseDown: it cannot be reached now.
            ConfigError: it is of a newer flow, or of another program, or the account may not do it.
        """
        from flow.records.migrating import upgrade

        async with self._checked(), self.begin(patience=MIGRATION) as connection:
            return await connection.run_sync(upgrade)

    async def clear_log(self) -> None:
        """Empty the log that SQLite keeps beside its file, where erased rows would stay readable for a while.

        Raises:
            DatabaseDown: readers kept it in use for too long.
        """
        if not self.is_sqlite:
            return
        from sqlalchemy import text

        async with self._bounded(None), self._writing, self._engine.connect() as connection:
            await connection.execution_options(flow_begin="")
            busy = await connection.scalar(text("PRAGMA wal_checkpoint(TRUNCATE)"))
        if busy:
            raise DatabaseDown(f"{self.url.place} is in use: its log still holds what was erased")

    async def close(self) -> None:
        """Close the connections, after 10 seconds without waiting for them."""
        with anyio.move_on_after(CONNECT, shield=True):
            await self._engine.dispose()
        if self._passing is not None:
            self._passing.cleanup()

    @property
    def _read_only(self) -> dict[str, Any]:
        return {"flow_begin": "BEGIN"} if self.is_sqlite else {"postgresql_readonly": True}

    @asynccontextmanager
    async def _bounded(self, patience: float | None) -> AsyncIterator[None]:
        """Translate errors, and end what takes longer than *patience*."""
        seconds = self._patience if patience is None else patience
        with translated(self.url.place), anyio.move_on_after(seconds) as scope:
            yield
        if scope.cancelled_caught:
            raise DatabaseDown(f"{self.url.place} did not answer in {seconds:g} seconds")

    @asynccontextmanager
    async def _checked(self) -> AsyncIterator[None]:
        """Turn what does not mend itself into a `ConfigError`."""
        try:
            yield
        except DatabaseDown:
            raise
        except DatabaseError as error:
            raise ConfigError(f"The database cannot be used: {error}") from error

    def _made(self) -> "AsyncEngine":
        try:
            from flow.records.engines import postgresql, sqlite
        except ModuleNotFoundError as error:
            raise ConfigError(f"A database needs {error.name}: install proca-flow[sql]") from None
        if not self.is_sqlite:
            return postgresql(self.url, connect=CONNECT, patience=max(1.0, self._patience - SPARE))
        path = self.url.path
        if path is None:
            self._passing = tempfile.TemporaryDirectory(prefix="flow-records-")
            path = Path(self._passing.name) / "records.db"
        private_file(path, "the database")
        return sqlite(path, patience=max(1.0, self._patience - SPARE))
