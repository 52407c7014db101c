"""What an administrator does to a PostgreSQL server: databases made, dropped, and statements run."""

import secrets

import psycopg
from sqlalchemy import make_url


class PostgreSQLControl:
    """A server by the URL of one of its databases, with an account that may make others."""

    def __init__(self, url: str) -> None:
        """Take the URL of a database that is there; nothing is done in it."""
        self._url = make_url(url)

    def url(self, name: str = "") -> str:
        """Return the URL of the database *name*; without one, of the one that is there."""
        url = self._url.set(database=name) if name else self._url
        return url.render_as_string(hide_password=False)

    def add_database(self, template: str = "template0") -> str:
        """Make a database, as a copy of *template*, and return its name."""
        name = f"flow_{secrets.token_hex(6)}"
        self.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
        return name

    def drop_database(self, name: str) -> None:
        """Drop a database with whoever is connected to it."""
        self.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')

    def execute(self, statement: str) -> None:
        """Run one statement."""
        with psycopg.connect(self.url(), autocommit=True, connect_timeout=10) as connection:
            connection.execute(statement)  # type: ignore[arg-type]  # names are of our own making
