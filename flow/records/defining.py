"""Making and changing what actions refer to, by name: organisations, campaigns and action pages."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Table
    from sqlalchemy.ext.asyncio import AsyncConnection


async def define(connection: "AsyncConnection", kind: str, name: str, values: dict[str, Any]) -> bool:
    """Make the row called *name* in the table *kind*, or change it to *values*; return whether it is new."""
    from sqlalchemy import update

    table = _table(kind)
    found = await identify(connection, kind, name)
    if found is None:
        await connection.execute(table.insert(), {"name": name} | values)
    elif values:
        await connection.execute(update(table).where(table.c.id == found).values(**values))
    return found is None


async def identify(connection: "AsyncConnection", kind: str, name: str) -> int | None:
    """Return the id of the row called *name* in the table *kind*."""
    from sqlalchemy import select

    table = _table(kind)
    found: int | None = await connection.scalar(select(table.c.id).where(table.c.name == name))
    return found


def _table(kind: str) -> "Table":
    from flow.records.tables import metadata

    return metadata.tables[kind]
