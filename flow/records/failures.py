"""The border of the database: what its drivers raise becomes an error of flow, without any value."""

from collections.abc import Iterator
from contextlib import contextmanager

from flow.errors import DatabaseDown, DatabaseError, RowRefused

READ_ONLY = "25006"  # the SQLSTATE of a server that has become a standby
WRONG_STATEMENT = "SQLITE_ERROR"  # SQLite's driver calls it an OperationalError, like a disk that is full
CONNECTION_ENDED = ("08", "57P")  # SQLSTATEs of a connection that is lost, and of a server that stops

# What does not mend itself, by SQLSTATE, by SQLite's error code, or by the words of a server that refuses a
# connection, which come without a code. Each is said in words of ours: the server's may quote the login.
LASTING = {
    "28P01": "refuses the login: check user and password",
    "28000": "refuses the login: check user, password and pg_hba.conf",
    "3D000": "does not exist: create it first",
    "42501": "may not be used like this by the account: grant it",
    "password authentication failed": "refuses the login: check user and password",
    "no password supplied": "asks for a password: put it into the database URL",
    "no pg_hba.conf entry": "lets nobody in from here: see pg_hba.conf of the server",
    'role "': "refuses the login: the server does not know the user",
    'database "': "does not exist: create it first",
    "could not translate host name": "cannot be found: the host name is not known",
    "failed to resolve host": "cannot be found: the host name is not known",
    "server does not support SSL": "speaks no TLS: change sslmode in the database URL",
    "certificate": "shows a certificate that cannot be verified",
    "invalid connection option": "is named with a parameter that libpq does not know",
    "invalid sslmode": "is named with an sslmode that libpq does not know",
    "SQLITE_NOTADB": "is no SQLite file",
    "SQLITE_READONLY": "may not be written by this account",
    "SQLITE_CANTOPEN": "cannot be opened: see that its folder exists and may be written",
}


# What mends itself, by the words of a server that refuses a connection.
FULL = "has no connection left: run fewer processes, or raise max_connections of the server"
PASSING = {
    "too many clients": FULL,
    "remaining connection slots": FULL,
    "too many connections for": "has no connection left for us: run fewer processes, or raise that limit",
    "not currently accepting connections": "accepts no connections now",
    "starting up": "is starting",
    "shutting down": "is stopping",
    "in recovery mode": "is recovering from a crash",
}


@contextmanager
def translated(place: str) -> Iterator[None]:
    """Raise what the drivers raise inside as an error of flow; *place* says which database it was.

    The errors of the drivers are not its cause: they quote rows.

    Raises:
        DatabaseDown: the connection, the server or its disk failed, or a lock was not to be had in time.
        RowRefused: a row breaks a constraint, or holds what cannot be stored.
        DatabaseError: anything else, such as a table that is missing.
    """
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, OSError, OverflowError, UnicodeEncodeError) as error:
        made = translation(error, place)
        del error
        raise made from None


def translation(error: Exception, place: str) -> DatabaseError:
    """Return the error of flow for one of SQLAlchemy or of a driver."""
    from sqlalchemy.exc import (
        DataError,
        DBAPIError,
        IntegrityError,
        InterfaceError,
        OperationalError,
        SQLAlchemyError,
        StatementError,
    )
    from sqlalchemy.exc import TimeoutError as PoolTimeout

    if isinstance(error, PoolTimeout | OSError):
        return DatabaseDown(f"{place} gives no connection ({type(error).__name__})")
    if isinstance(error, SQLAlchemyError) and not isinstance(error, StatementError):
        return DatabaseError(f"{place} refused a statement ({type(error).__name__})")
    if not isinstance(error, DBAPIError):
        return RowRefused(f"{place} cannot store a row: {type(error).__name__}")
    code = coded(error.orig)
    why = f"{type(error.orig).__name__}{f' {code}' if code else ''}"
    passing = () if code else [said for words, said in PASSING.items() if words in str(error.orig)]
    if passing:
        return DatabaseDown(f"{place} {passing[0]}")
    if hint := lasting(code, str(error.orig)):
        return DatabaseError(f"{place} {hint}")
    if isinstance(error, IntegrityError):
        return RowRefused(f"{place} does not take a row: {constraint(error.orig) or why}")
    if isinstance(error, DataError):
        return RowRefused(f"{place} cannot store a row: {why}")
    if missing_table(error.orig):
        return DatabaseError(f"{place} has not the tables of this version of flow: run flow records migrate")
    lost = error.connection_invalidated or code == READ_ONLY or code.startswith(CONNECTION_ENDED)
    unlucky = isinstance(error, OperationalError | InterfaceError) and code != WRONG_STATEMENT
    if unlucky and not code:
        return DatabaseDown(f"{place} cannot be reached: see that the server runs, and check host and port")
    if lost or unlucky:
        return DatabaseDown(f"{place} is not to be had now ({why})")
    return DatabaseError(f"{place} refused a statement ({why})")


def lasting(code: str, text: str) -> str:
    """Return in words what does not mend itself, or ""."""
    for mark, words in LASTING.items():
        if code.startswith(mark) if mark.isupper() or mark[0].isdigit() else not code and mark in text:
            return words
    return ""


def coded(original: object) -> str:
    """Return the SQLSTATE of PostgreSQL, or the name of SQLite's error code, or ""."""
    return str(getattr(original, "sqlstate", None) or getattr(original, "sqlite_errorname", None) or "")


def constraint(original: object) -> str:
    """Return which constraint was broken: SQLite tells table and column; no value is quoted."""
    if name := getattr(getattr(original, "diag", None), "constraint_name", None):
        return f"it breaks {name}"
    text = str(original)
    return text if text.startswith(("UNIQUE ", "NOT NULL ", "FOREIGN KEY ")) else ""


def missing_table(original: object) -> bool:
    """Whether a table or a column is not there."""
    return coded(original) in ("42P01", "42703") or str(original).startswith(
        ("no such table", "no such column")
    )
