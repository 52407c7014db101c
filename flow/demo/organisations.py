"""The two organisations of the story: what they demand, and their action pages."""

from typing import NamedTuple

from flow.plumbing.submission import ActionPage, Campaign, Definition, Organisation

CAMPAIGN = "clean_water"


class Party(NamedTuple):
    """An organisation, and how its signatures go their way."""

    name: str
    title: str
    pages: tuple[int, ...]
    """Which pages of `flow.demo.signatures` are its own."""
    supporter_confirm: bool
    """Whether its supporters confirm by a link in a mail."""
    action_confirm: bool
    """Whether somebody of its own looks at each signature."""
    sqs: bool
    thankful: tuple[int, ...]
    """Which pages have a thank-you template."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What it has on the broker."""
        return ("crm", *(("moderate",) if self.action_confirm else ()), *(("sqs",) if self.sqs else ()))

    @property
    def queue(self) -> str:
        """The queue of its CRM."""
        return f"{self.name}.crm"

    @property
    def asking(self) -> str:
        """The queue of what somebody is asked about."""
        return "system.email.confirm" if self.supporter_confirm else f"{self.name}.moderate"

    def page(self, number: int) -> str:
        """Return the name of the action page with this *number*."""
        return f"{CAMPAIGN}/{self.name}/{number}"

    def definitions(self, locales: dict[int, str]) -> list[Definition]:
        """Return what must be submitted before its signatures, with the language of each page."""
        return [
            Organisation(
                name=self.name,
                title=self.title,
                supporter_confirm=self.supporter_confirm,
                action_confirm=self.action_confirm,
            ),
            *(
                ActionPage(
                    name=self.page(number),
                    campaign=CAMPAIGN,
                    organisation=self.name,
                    locale=locales[number],
                    thank_you_template="thank_you" if number in self.thankful else None,
                )
                for number in self.pages
            ),
        ]


ACME = Party(
    name="acme",
    title="Acme for Rivers",
    pages=(21, 22, 23, 51, 52),
    supporter_confirm=True,
    action_confirm=False,
    sqs=True,
    thankful=(21, 22, 23, 51, 52),
)
SADY = Party(
    name="sady",
    title="Sady i Łąki",
    pages=(31, 32),
    supporter_confirm=False,
    action_confirm=True,
    sqs=False,
    thankful=(31,),
)
PARTIES = (ACME, SADY)


def campaign() -> Campaign:
    """Return the campaign that both are part of."""
    return Campaign(
        name=CAMPAIGN,
        organisation=ACME.name,
        title="Clean water – for all of us",
        external_id=614,
        contact_schema="basic",
    )
