"""Thanks supporters by mail for what they did, as docs/mail.md says."""

import os
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager

from flow import Batch, Batching, Claim, Message, Pipeline, RateLimit, Retries, Skip
from flow.schema import ActionMessage, EventMessage, IdsMessage
from flow.targets.letters import Letter
from flow.targets.links import UnsubscribeLinks
from flow.targets.mail import MailTarget, Recipient, Recipients, SupporterMailSettings
from flow.targets.senders import paced


class ThankYouSettings(SupporterMailSettings):
    """What mails need, and how people end them: MAIL_HOST, MAIL_SENDER, MAIL_UNSUBSCRIBE_URL and so on."""

    unsubscribe_url: str | None = None  # may hold {contact_ref}, {action_id} and {org}
    unsubscribe_address: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        UnsubscribeLinks(self.unsubscribe_url, self.unsubscribe_address)


class ThankYou(Pipeline[IdsMessage | ActionMessage | EventMessage, IdsMessage | ActionMessage]):
    """Mail each supporter who consented the template of the action page."""

    queue = "system.email.thankyou"
    batching = Batching(size=50, timeout=2.0)
    batch_timeout = 300.0  # what is claimed here is free again after a crash so much later, and a minute
    retries = Retries(attempts=12)
    rate_limit: RateLimit | None = RateLimit(messages=20, per=1.0)  # for each sender: MAIL_RATE
    claim = Claim(key=lambda message: str(message.body.action_id), unknown="park")  # nobody is mailed twice
    settings: ThankYouSettings

    def __init__(self, settings: ThankYouSettings) -> None:
        super().__init__(settings)
        self.rate_limit = paced(self.rate_limit, settings.rate, self.sender)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.links = UnsubscribeLinks(self.settings.unsubscribe_url, self.settings.unsubscribe_address)
        async with Recipients.opened(os.environ) as self.recipients:
            self.mail = MailTarget(self.settings, self.recipients.database, self.rate_limit)
            yield

    async def prepare_messages(
        self, messages: Sequence[Message[IdsMessage | ActionMessage | EventMessage]]
    ) -> None:
        await self.mail.senders.look_up({message.body.org_id for message in messages})

    def sender(self, message: Message[IdsMessage | ActionMessage]) -> Hashable:
        """Return whose share of mails *message* takes."""
        return self.mail.senders.of(message.body.org_id)

    def handle_message(
        self, message: Message[IdsMessage | ActionMessage | EventMessage]
    ) -> IdsMessage | ActionMessage:
        if isinstance(message.body, EventMessage):  # events travel with the deliveries of an organisation
            raise Skip("an event")
        return message.body

    def batch_key(self, message: Message[IdsMessage | ActionMessage]) -> Hashable:
        return message.body.action_page_id, message.body.org_id

    async def handle_batch(self, batch: Batch[IdsMessage | ActionMessage]) -> None:
        found = await self.recipients.find(batch.bodies)
        await self.mail.deliver(batch, found, self.letter)

    def letter(self, to: Recipient) -> Letter:
        """Write the letter, or raise why there is none."""
        if not to.with_consent:
            raise Skip("there is no consent")
        if to.email_status == "unsub":
            raise Skip("they want no mail")
        template = to.duplicate_template if to.dupe_rank else to.thank_you_template
        if template is None:
            raise Skip("the action page has no template for it")
        return self.mail.letter(template, to, self.links.variables(to), self.links.headers(to))
