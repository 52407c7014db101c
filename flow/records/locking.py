"""Locks by name: who holds one does its part of the work alone, also among several processes."""

from collections.abc import Iterable
from hashlib import blake2b
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


async def hold(connection: "AsyncConnection", kind: str, names: Iterable[str]) -> None:
    """Hold the locks called *names*, of one *kind*, until the transaction of *connection* ends.

    All of a kind are taken by one call, in an order that is the same for everybody, so that two
    transactions never wait for each other. SQLite needs none: a transaction there writes alone.

    Raises:
        DatabaseDown: somebody else held one for too long.
    """
    from sqlalchemy import text

    if connection.dialect.name != "postgresql":
        return
    numbers = sorted({_number(kind, name) for name in names})
    if numbers:
        locking = text("SELECT pg_advisory_xact_lock(n) FROM unnest(CAST(:numbers AS bigint[])) AS n")
        await connection.execute(locking, {"numbers": numbers})


def _number(kind: str, name: str) -> int:
    return int.from_bytes(blake2b(f"flow {kind} {name}".encode(), digest_size=8).digest(), signed=True)
