"""Records for the mail pipelines: an organisation, pages in three languages, and who signed on them."""

from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import select, update

from flow.plumbing.submission import Action, ActionPage, Campaign, Organisation, Privacy
from flow.plumbing.submitting import Submitted, Submitting
from flow.records.database import Database
from flow.records.tables import action_pages, actions, outbox, supporters

LOCALES = ("en", "de_AT", "fr")


@dataclass
class Signatures:
    """What was signed at one organisation."""

    database: Database
    confirm: bool
    name: str = "river_club"
    mail_from: str | None = None
    campaign: str = "clean_water"
    decides: bool = False
    """Whether the organisation confirms its supporters itself, and moderates what they do."""
    pages: dict[str, int] = field(default_factory=dict)

    async def define(self, **page: Any) -> None:
        """Make the organisation with a page for each language; *page*: what is said of all of them."""
        submitting = Submitting(self.database)
        await submitting.define(
            Organisation(
                name=self.name,
                title="River Club",
                mail_from=self.mail_from,
                supporter_confirm=self.confirm,
                custom_supporter_confirm=self.decides,
                action_confirm=self.decides,
            )
        )
        await submitting.define(Campaign(name=self.campaign, organisation=self.name, title="Clean water"))
        for locale in LOCALES:
            values = {"thank_you_template": "thank_you", **page}
            await submitting.define(
                ActionPage(
                    name=f"{self.name}/{locale}",
                    campaign=self.campaign,
                    organisation=self.name,
                    locale=locale,
                    **values,
                )
            )
        async with self.database.reading() as connection:
            rows = await connection.execute(select(action_pages.c.locale, action_pages.c.id))
            self.pages = {row[0]: row[1] for row in rows}

    async def sign(
        self, email: str, locale: str = "en", *, first_name: str = "Ada", **more: Any
    ) -> dict[str, Any]:
        """Sign, and return the message that names the action by its ids."""
        privacy = Privacy(with_consent=more.pop("consent", True), opt_in=more.pop("opt_in", None))
        contact = {"email": email, "firstName": first_name, "lastName": "Waters"}
        signed = Action(action_page=f"{self.name}/{locale}", contact=contact, privacy=privacy, **more)
        [result] = await Submitting(self.database).submit([signed])
        assert isinstance(result, Submitted), result
        return await self.ids(result.action_id)

    async def ids(self, action_id: int) -> dict[str, Any]:
        """Return `proca:ids:1` about an action and its supporter."""
        columns = (actions.c.action_page_id, actions.c.organisation_id, actions.c.supporter_id)
        async with self.database.reading() as connection:
            row = (await connection.execute(select(*columns).where(actions.c.id == action_id))).one()
        return {
            "schema": "proca:ids:1",
            "actionId": action_id,
            "actionPageId": row[0],
            "orgId": row[1],
            "supporterId": row[2],
        }

    async def change(self, action_id: int, **values: Any) -> None:
        """Change the supporter of an action."""
        async with self.database.begin() as connection:
            of = select(actions.c.supporter_id).where(actions.c.id == action_id).scalar_subquery()
            await connection.execute(update(supporters).where(supporters.c.id == of).values(**values))

    async def email_status(self, action_id: int) -> str | None:
        """Return what the records know of the address of an action's supporter."""
        query = select(supporters.c.email_status).join(actions, actions.c.supporter_id == supporters.c.id)
        async with self.database.reading() as connection:
            found: str | None = await connection.scalar(query.where(actions.c.id == action_id))
            return found

    async def outgoing(self) -> list[bytes]:
        """Return the bodies in the outbox."""
        async with self.database.reading() as connection:
            rows = await connection.execute(select(outbox.c.body).order_by(outbox.c.id))
            return [bytes(row[0]) for row in rows]
