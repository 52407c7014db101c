"""The connections to each kind of database, with a limit to every wait."""

import logging
import sqlite3
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import aiosqlite
import psycopg  # noqa: F401  (the drivers are looked for here, where their absence is told)
from sqlalchemy import Connection, event, make_url
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from flow.errors import ConfigError
from flow.records.url import DatabaseUrl

CONNECTIONS = 5  # of one process; as many more while there is much to do
RECYCLE = 1800  # seconds after which a connection to a server is replaced: firewalls forget idle ones
SETTINGS = (
    "PRAGMA journal_mode = WAL",  # readers and the one writer do not wait for each other
    "PRAGMA synchronous = FULL",  # what is committed survives a loss of power
    "PRAGMA foreign_keys = ON",
    "PRAGMA secure_delete = ON",  # what is erased is overwritten, not only unlinked
)


def sqlite(path: Path, *, patience: float) -> AsyncEngine:
    """Return connections to the SQLite file *path*; *patience*: seconds for a lock.

    Transactions begin with BEGIN IMMEDIATE, for two that read first and write then would end one another; the
    execution option `flow_begin` names another statement, or "" for no transaction.
    """
    engine = create_async_engine(
        f"sqlite+aiosqlite:///{path}",
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=patience,
        # Without an isolation level the driver begins nothing by itself.
        connect_args={"async_creator_fn": connected, "timeout": patience, "isolation_level": None},
    )

    @event.listens_for(engine.sync_engine, "connect")
    def set_up(connection: Any, _: Any) -> None:
        cursor = connection.cursor()
        for setting in SETTINGS:
            cursor.execute(setting)
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        if statement := connection.get_execution_options().get("flow_begin", "BEGIN IMMEDIATE"):
            connection.exec_driver_sql(statement)

    return engine


class EndingConnection(sqlite3.Connection):
    """A connection whose transaction ends with it: a cursor that is still around would keep it open."""

    def close(self) -> None:
        """Undo what was not committed, and close it."""
        with suppress(sqlite3.Error):
            self.rollback()
        super().close()


class Answer:
    """The future of a call to a connection's thread; once its loop has ended, nobody waits for it."""

    def __init__(self, future: Any) -> None:
        """Stand in for *future* in the thread."""
        self._future = future

    def get_loop(self) -> "Answer":
        """Return what the thread takes for the loop."""
        return self

    def call_soon_threadsafe(self, settle: Any, _: Any, outcome: Any) -> None:
        """Settle the future in its loop, if that still runs; a thread may wait for a lock longer than it."""
        with suppress(RuntimeError):
            self._future.get_loop().call_soon_threadsafe(settle, self._future, outcome)


class Calls:
    """The queue through which a connection's thread is called."""

    def __init__(self, queue: Any) -> None:
        """Hand calls on to *queue*."""
        self._queue = queue
        self.get = queue.get

    def put_nowait(self, call: tuple[Any, Any]) -> None:
        """Add a future, or None, and the function whose result it gets."""
        future, function = call
        self._queue.put_nowait((future and Answer(future), function))


class SQLiteConnection(aiosqlite.Connection):
    """A connection whose thread is stopped once, with what it is doing and what it holds.

    A connection that is cancelled in the middle is closed in two ways at once: the second would wait for ever
    for a thread that has ended, and neither would end the transaction.
    """

    _stopped = False

    def __init__(self, connector: Any, iter_chunk_size: int) -> None:
        """Prepare a connection that *connector* makes in a thread of its own."""
        super().__init__(connector, iter_chunk_size)
        self._tx: Any = Calls(self._tx)

    def stop(self) -> Any:
        """Stop the thread; None when that was asked for before."""
        if self._stopped:
            return None
        self._stopped = True
        if (connection := self._connection) is not None:
            connection.interrupt()
            self._tx.put_nowait((None, connection.close))  # done by the thread, before it stops
        return super().stop()


def connected(database: str, **options: Any) -> SQLiteConnection:
    """Return a connection to the file *database*, not made yet; its thread keeps no process from ending."""
    made = partial(sqlite3.connect, database, factory=EndingConnection, **options)
    connection = SQLiteConnection(made, iter_chunk_size=64)
    thread: Any = getattr(connection, "_thread", connection)  # before aiosqlite 0.22 it was one itself
    thread.daemon = True
    return connection


def postgresql(url: DatabaseUrl, *, connect: float, patience: float) -> AsyncEngine:
    """Return connections to a PostgreSQL server: *connect* seconds to connect, *patience* for a statement.

    Raises:
        ConfigError: the URL cannot be read by the driver.
    """
    logging.getLogger("psycopg").setLevel(
        logging.CRITICAL
    )  # it warns in the server's words, which quote rows
    milliseconds = int(patience * 1000)
    arguments = {
        "connect_timeout": int(connect),
        "application_name": "flow",
        "keepalives_idle": 30,
        "tcp_user_timeout": milliseconds,
        "options": (
            f"-c timezone=UTC -c statement_timeout={milliseconds} -c lock_timeout={milliseconds} "
            f"-c idle_in_transaction_session_timeout={2 * milliseconds}"
        ),
    }
    try:
        parsed = make_url(url.text).set(drivername="postgresql+psycopg")
    except (ValueError, TypeError):  # SQLAlchemy's ArgumentError is neither: it is for URLs without a scheme
        raise ConfigError("The database URL cannot be read: check host, port and parameters") from None
    options = parsed.query.get("options")
    if isinstance(options, str):  # such as a search_path of its own
        arguments["options"] = f"{arguments['options']} {options}"
        parsed = parsed.difference_update_query(["options"])
    return create_async_engine(
        parsed,
        hide_parameters=True,
        pool_size=CONNECTIONS,
        max_overflow=CONNECTIONS,
        pool_timeout=patience,
        pool_pre_ping=True,
        pool_recycle=RECYCLE,
        connect_args={name: value for name, value in arguments.items() if name not in parsed.query},
    )
