"""Asks an organisation to decide about its actions or its supporters, as docs/moderation.md says."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from flow import Batch, Batching, Claim, Message, Pipeline, RateLimit, Retries, Skip
from flow.schema import ActionMessage
from flow.targets.forwarding import ForwardSettings, Question, check_mail, forwarding
from flow.targets.links import DecisionLinks
from flow.targets.senders import paced


class ModerateSettings(ForwardSettings):
    """Whom to ask, and where the links lead to: MODERATE_URL or MODERATE_TO, MODERATE_LINK_URL and so on."""

    prefix: ClassVar = "MODERATE"
    link_url: str  # where `flow serve` is reached by who decides

    def __post_init__(self) -> None:
        super().__post_init__()
        DecisionLinks(self.link_url, os.environ)
        check_mail(self, os.environ)


class Moderate(Pipeline[ActionMessage, Question]):
    """Ask for each action, or for each supporter, whether it is accepted: by webhook or by mail."""

    queue = "acme.moderate"  # or acme.confirm: the message says what is to be decided
    batching = Batching(size=10, timeout=2.0, concurrency=1)
    batch_timeout = 300.0  # what is claimed here is free again after a crash so much later, and a minute
    retries = Retries(attempts=12)
    rate_limit: RateLimit | None = RateLimit(messages=20, per=1.0)  # MODERATE_RATE
    claim = Claim(key=lambda message: message.body.key, unknown="park")  # nobody is mailed twice
    settings: ModerateSettings

    def __init__(self, settings: ModerateSettings) -> None:
        super().__init__(settings)
        self.rate_limit = paced(self.rate_limit, settings.rate)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.links = DecisionLinks(self.settings.link_url, os.environ)
        async with forwarding(self.settings, os.environ, self.rate_limit) as self.moderators:
            yield

    def handle_message(self, message: Message[ActionMessage]) -> Question:
        body = message.body
        if body.action.testing:
            raise Skip("a test action")
        about, accept, reject = self.links.of(body)
        return Question(about=about, accept=accept, reject=reject, body=body, raw=message.raw)

    async def handle_batch(self, batch: Batch[Question]) -> None:
        await self.moderators.deliver(batch)
