"""How all actions stand, and what pipelines did with them; for who looks at everything at once."""

from typing import NamedTuple

from flow.records.database import Database


class Standing(NamedTuple):
    """One action."""

    action_id: int
    submission: str | None
    """What its sender calls it."""
    action: str
    """Its status."""
    supporter: str | None
    """The status of its supporter."""


class Deed(NamedTuple):
    """What was done with one action from one queue, in the words of the ledger."""

    queue: str
    record_id: str
    outcome: str
    reason: str | None


async def standings(database: Database) -> list[Standing]:
    """Return how all actions stand, in the order of their ids.

    Raises:
        DatabaseError: the records could not be read.
    """
    from sqlalchemy import select

    from flow.records.tables import actions, supporters

    query = (
        select(
            actions.c.id, actions.c.submission, actions.c.processing_status, supporters.c.processing_status
        )
        .select_from(actions.outerjoin(supporters, supporters.c.id == actions.c.supporter_id))
        .order_by(actions.c.id)
    )
    async with database.reading() as connection:
        return [Standing(*row) for row in await connection.execute(query)]


async def deeds(database: Database, outcome: str) -> set[Deed]:
    """Return what ended with this *outcome* in the ledger; what happened several times is there once.

    Raises:
        DatabaseError: the records could not be read.
    """
    from sqlalchemy import select

    from flow.records.tables import ledger

    query = (
        select(ledger.c.queue, ledger.c.record_id, ledger.c.outcome, ledger.c.reason)
        .where(ledger.c.outcome == outcome, ledger.c.record_id.is_not(None))
        .distinct()
    )
    async with database.reading() as connection:
        return {Deed(*row) for row in await connection.execute(query)}
