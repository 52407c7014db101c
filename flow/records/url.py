"""The address of the database: parsed with sentences of our own, shown without its password."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

from flow.errors import ConfigError
from flow.options import variable

VARIABLE = "FLOW_DATABASE_URL"
FORM = "sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"
SCHEMES = {"sqlite": "sqlite", "postgresql": "postgresql", "postgres": "postgresql"}
MEMORY = ":memory:"
PORT = 5432


@dataclass(frozen=True, kw_only=True)
class DatabaseUrl:
    """Where the records are: a file of SQLite, or a database of a PostgreSQL server.

    `str()` and `repr()` show no password.
    """

    kind: str
    """`sqlite` or `postgresql`."""
    place: str
    """The file, or host, port and database, as they are named in sentences."""
    path: Path | None = None
    """The file of SQLite; None: PostgreSQL, or a database that is gone when it is closed."""
    text: str = field(repr=False)
    """The whole URL, for the driver only."""

    @classmethod
    def parse(cls, text: str) -> "DatabaseUrl":
        """Read `sqlite:///FILE`, `sqlite://` (gone when it is closed) or `postgresql://…`.

        After three slashes a file is relative to the current folder, after four its path is absolute. What
        stands behind a `?` of a PostgreSQL URL are parameters of libpq, such as `sslmode`.

        Raises:
            ConfigError: it is none of these; the sentence never quotes the password.
        """
        text = text.strip()
        if not text:
            raise ConfigError(f"The database URL is empty: write {FORM}")
        scheme, marked, rest = text.partition("://")
        kind = SCHEMES.get(scheme.lower().partition("+")[0])
        if not marked or kind is None:
            got = f", not {scheme}://" if marked and re.fullmatch(r"[A-Za-z0-9+]{1,30}", scheme) else ""
            raise ConfigError(
                f"The database URL must begin with sqlite:// or postgresql://{got}: write {FORM}"
            )
        return cls._sqlite(rest) if kind == "sqlite" else cls._postgresql(rest)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "DatabaseUrl | None":
        """Read FLOW_DATABASE_URL, or the file that FLOW_DATABASE_URL_FILE names; None when neither is set.

        Raises:
            ConfigError: it is wrong, or both are set.
        """
        text = variable(environment, VARIABLE)
        return cls.parse(text) if text else None

    @classmethod
    def _sqlite(cls, rest: str) -> "DatabaseUrl":
        if rest and not rest.startswith("/"):
            raise ConfigError(f"The database URL needs a third slash before the file: sqlite:///{rest}")
        name = unquote(rest[1:])
        if "?" in name:
            raise ConfigError("The database URL of a SQLite file takes no parameters: leave out the ?")
        if name in ("", MEMORY):
            return cls(kind="sqlite", place="a passing SQLite file", text="sqlite://")
        path = Path(name).expanduser()
        return cls(kind="sqlite", place=f"the SQLite file {path}", path=path, text=f"sqlite:///{path}")

    @classmethod
    def _postgresql(cls, rest: str) -> "DatabaseUrl":
        authority = re.split("[/?#]", rest, maxsplit=1)[0]
        if "@" in rest.partition("?")[0] and "@" not in authority:
            raise ConfigError(
                "The login of the database URL has a / ? or # in it: write %2F, %3F or %23 for it"
            )
        text = f"postgresql://{rest}"
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            raise ConfigError(
                "The host or the port of the database URL cannot be read: a port is a number from 1 to 65535"
            ) from None
        name = unquote(parts.path[1:])
        if not name:
            raise ConfigError(f"The database URL names no database: write {FORM}")
        if parts.fragment:
            raise ConfigError("The database URL has a # in it: write %23 for it")
        host = parts.hostname or "the local socket"
        host = f"[{host}]" if ":" in host else host
        return cls(kind="postgresql", place=f"{host}:{port or PORT}, database {name}", text=text)

    def __str__(self) -> str:
        """Show where it is, without the login."""
        return self.place
