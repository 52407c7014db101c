"""Asks supporters by mail to confirm what was signed with their address, as docs/mail.md says."""

import os
from collections.abc import AsyncIterator, Hashable, Sequence
from contextlib import asynccontextmanager

from flow import Batch, Batching, Claim, Message, Pipeline, RateLimit, Retries, Skip
from flow.schema import ActionMessage, IdsMessage
from flow.targets.letters import Letter
from flow.targets.links import ConfirmLinks
from flow.targets.mail import MailTarget, Recipient, Recipients, SupporterMailSettings
from flow.targets.senders import paced


class ConfirmSettings(SupporterMailSettings):
    """What mails need, and where their links lead to: MAIL_HOST, MAIL_SENDER, MAIL_LINK_URL and so on."""

    link_url: str  # where `flow serve` is reached by supporters
    confirm_template: str = "confirm"  # for pages that name none

    def __post_init__(self) -> None:
        super().__post_init__()
        ConfirmLinks(self.link_url)


class Confirm(Pipeline[IdsMessage | ActionMessage]):
    """Mail each supporter a link to confirm and one to deny."""

    queue = "system.email.confirm"
    batching = Batching(size=50, timeout=2.0)
    batch_timeout = 300.0  # what is claimed here is free again after a crash so much later, and a minute
    retries = Retries(attempts=12)
    rate_limit: RateLimit | None = RateLimit(messages=20, per=1.0)  # for each sender: MAIL_RATE
    claim = Claim(key=lambda message: str(message.body.action_id), unknown="park")  # nobody is mailed twice
    settings: ConfirmSettings

    def __init__(self, settings: ConfirmSettings) -> None:
        super().__init__(settings)
        self.rate_limit = paced(self.rate_limit, settings.rate, self.sender)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.links = ConfirmLinks(self.settings.link_url)
        async with Recipients.opened(os.environ) as self.recipients:
            self.mail = MailTarget(self.settings, self.recipients.database, self.rate_limit)
            yield

    async def prepare_messages(self, messages: Sequence[Message[IdsMessage | ActionMessage]]) -> None:
        await self.mail.senders.look_up({message.body.org_id for message in messages})

    def sender(self, message: Message[IdsMessage | ActionMessage]) -> Hashable:
        """Return whose share of mails *message* takes."""
        return self.mail.senders.of(message.body.org_id)

    def batch_key(self, message: Message[IdsMessage | ActionMessage]) -> Hashable:
        return message.body.action_page_id, message.body.org_id

    async def handle_batch(self, batch: Batch[IdsMessage | ActionMessage]) -> None:
        found = await self.recipients.find(batch.bodies)
        await self.mail.deliver(batch, found, self.letter)

    def letter(self, to: Recipient) -> Letter:
        """Write the letter, or raise why there is none."""
        if to.status not in (None, "confirming"):
            raise Skip(f"the supporter is {to.status}: there is nothing to confirm")
        template = to.confirm_template or self.settings.confirm_template
        return self.mail.letter(template, to, self.links.variables(to))
