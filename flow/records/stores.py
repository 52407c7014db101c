"""Where a pipeline's ledger and claims are kept: in a database, in memory, or nowhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from flow.claim import Claims
from flow.errors import ConfigError
from flow.ledger import Ledger
from flow.pipeline import Pipeline
from flow.records.database import Database
from flow.records.memory_ledger import MemoryLedger
from flow.records.starts import Starts

if TYPE_CHECKING:
    from flow.records.ledger import SqlStarts


def kept(pipeline: Pipeline[Any, Any], database: Database | None) -> tuple[Ledger, Claims] | None:
    """Return the ledger and the claims of *pipeline*: in *database*, else in memory if it has a claim.

    Raises:
        ConfigError: its claims must outlive the process, and there is no database.
    """
    if database is not None:
        from flow.records.claims import SqlClaims
        from flow.records.ledger import SqlLedger

        return SqlLedger(database), SqlClaims(database)
    if pipeline.claim is None:
        return None
    if reason := forgetful(type(pipeline)):
        raise ConfigError(reason)
    memory = MemoryLedger()
    return memory, memory


def starts(database: Database | None, state_dir: Path | None) -> "SqlStarts | Starts | None":
    """Return where it is noted which suspect messages were started: in *database*, or else in *state_dir*.

    Raises:
        ConfigError: the folder cannot be written.
    """
    if database is not None:
        from flow.records.ledger import SqlStarts

        return SqlStarts(database)
    return None if state_dir is None else Starts(state_dir)


def forgetful(cls: type[Pipeline[Any, Any]]) -> str | None:
    """Return why *cls* must not run without a database, or None."""
    if cls.claim is None or cls.claim.unknown == "again":
        return None
    return (
        f'{cls.__name__}.claim parks what is unknown (unknown = "park"), so it must outlive the process: '
        "set FLOW_DATABASE_URL"
    )
