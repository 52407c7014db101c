"""Which version of the tables a database has, and the way to this one."""

from dataclasses import dataclass
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect, text

from flow.errors import ConfigError
from flow.records.tables import metadata

FOLDER = Path(__file__).parent / "migrations"
VERSION_TABLE = (
    "records_version"  # not alembic's usual name, which another program may use in the same database
)
LOCK = 0x666C6F77  # of PostgreSQL's advisory locks: one process migrates, the others wait
HOW = "run flow records migrate"


@dataclass(frozen=True, kw_only=True)
class State:
    """Which version a database has."""

    version: str | None
    """None: it has no tables of ours."""
    known: bool
    """Whether this flow knows the version."""
    foreign: list[str]
    """Tables called like ours in a database that has no version: they are of another program."""
    current: bool

    @property
    def empty(self) -> bool:
        """Whether it is a new database, or one that holds only what others made."""
        return self.version is None and not self.foreign

    @property
    def sentence(self) -> str:
        """What is wrong with it, and what to do; it follows the name of the database."""
        if self.foreign:
            names = ", ".join(self.foreign[:3])
            return (
                f"has tables of another program ({names}): give flow a database, or a search_path, of its own"
            )
        if self.version is None:
            return f"has no records yet: {HOW}"
        if not self.known:
            return f"holds the records of a newer flow ({self.version}): update flow"
        return f"holds the records of an older flow ({self.version}): {HOW}"


def state(connection: Connection) -> State:
    """Return which version the database has."""
    context = MigrationContext.configure(connection, opts={"version_table": VERSION_TABLE})
    version = context.get_current_revision()
    scripts = ScriptDirectory.from_config(config(connection))
    present = set(inspect(connection).get_table_names()) if version is None else set()
    return State(
        version=version,
        known=version in {script.revision for script in scripts.walk_revisions()},
        foreign=sorted(present & set(metadata.tables)),
        current=version == scripts.get_current_head(),
    )


def upgrade(connection: Connection, revision: str = "head") -> list[str]:
    """Bring the database to *revision* inside its transaction; return what was done, oldest first.

    Raises:
        ConfigError: it is of a newer flow, or of another program.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL statement_timeout = 0"))
        connection.execute(text("SET LOCAL lock_timeout = 0"))
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": LOCK})
    found = state(connection)
    if found.foreign or (found.version is not None and not found.known):
        raise ConfigError(f"The database {found.sentence}")
    command.upgrade(config(connection), revision)
    scripts = ScriptDirectory.from_config(config(connection))
    after = state(connection).version
    steps = scripts.iterate_revisions(after, found.version) if after else ()
    return [f"{step.revision} {step.doc}" for step in reversed(list(steps))]


def config(connection: Connection) -> Config:
    """Return what alembic has to know; `migrations/env.py` takes the connection from it."""
    made = Config(attributes={"connection": connection, "version_table": VERSION_TABLE})
    made.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return made
