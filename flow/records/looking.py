"""A look at a database that changes nothing: no file is made, no table, and no log beside the file."""

import sqlite3
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import anyio.to_thread

from flow.errors import ConfigError
from flow.records.database import Database
from flow.records.failures import translated
from flow.records.url import DatabaseUrl

if TYPE_CHECKING:
    from flow.records.migrating import State


async def look(url: DatabaseUrl, *, patience: float) -> "State | None":
    """Return which version the tables of *url* have; None: a file of SQLite that is not there yet.

    *patience*: seconds for the answer.

    Raises:
        DatabaseDown: it cannot be reached now, or is locked.
        DatabaseError: it refuses, or is no SQLite file.
        ConfigError: a library is missing, or the URL cannot be read by the driver.
    """
    if url.path is not None:
        return await anyio.to_thread.run_sync(partial(in_file, url, url.path, patience))
    database = Database(url, patience=patience)
    try:
        from flow.records.migrating import state

        async with database.reading() as connection:
            return await connection.run_sync(state)
    finally:
        await database.close()


def in_file(url: DatabaseUrl, path: Path, patience: float) -> "State | None":
    """Return which version the tables in the file *path* have, opened for reading only."""
    try:
        from sqlalchemy import create_engine
        from sqlalchemy.pool import NullPool

        from flow.records.migrating import state
    except ModuleNotFoundError as error:
        raise ConfigError(f"A database needs {error.name}: install proca-flow[sql]") from None
    if not path.exists():
        return None
    # Even a reader would make the log and its index beside the file, where no writer has made them.
    mode = "mode=ro" if Path(f"{path}-wal").exists() else "immutable=1"
    address = f"file:{quote(str(path.absolute()))}?{mode}"
    engine = create_engine(
        "sqlite://",
        creator=lambda: sqlite3.connect(address, uri=True, timeout=patience),
        poolclass=NullPool,
        hide_parameters=True,
    )
    with translated(url.place), engine.connect() as connection:
        return state(connection)
