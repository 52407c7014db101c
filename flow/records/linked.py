"""What a link to an action leads to."""

from dataclasses import dataclass

from flow.records.database import Database


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """An action that somebody may decide about; nothing in it is personal but the reference."""

    action_id: int
    contact_ref: str | None
    """None: the action has no supporter."""
    organisation: str
    """The name of the organisation of the action page."""
    locale: str
    """Language, with or without a country, of the action page."""
    campaign: str
    """The title of the campaign for people, or else its name."""

    def __repr__(self) -> str:
        return f"<Linked: action {self.action_id}>"


async def find(database: Database, action_id: int) -> Linked | None:
    """Return what leads to *action_id*, or None when there is no such action.

    Raises:
        DatabaseDown: the database does not answer.
    """
    from sqlalchemy import func, select

    from flow.records.tables import (
        action_pages,
        actions,
        campaigns,
        organisations,
        placed_actions,
        supporters,
    )

    query = (
        select(
            actions.c.id.label("action_id"),
            supporters.c.contact_ref,
            organisations.c.name.label("organisation"),
            action_pages.c.locale,
            func.coalesce(func.nullif(campaigns.c.title, ""), campaigns.c.name).label("campaign"),
        )
        .select_from(placed_actions)
        .where(actions.c.id == action_id)
    )
    async with database.reading() as connection:
        row = (await connection.execute(query)).one_or_none()
    return None if row is None else Linked(**row._mapping)
