"""Delivers signatures and news to a webhook: one signed POST for each message, as docs/webhook.md says."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

from flow import Message, Pipeline, Retries, Secret, Skip
from flow.schema import ActionMessage, EventMessage
from flow.targets.webhook import CallSettings, WebhookTarget


class WebhookSettings(CallSettings):
    """Where the receiver is: WEBHOOK_URL, WEBHOOK_SECRETS (or WEBHOOK_SECRETS_FILE) and so on."""

    prefix: ClassVar = "WEBHOOK"
    url: str
    secrets: Secret  # several are separated by white space; each of them signs

    def __post_init__(self) -> None:
        self.target()  # refuses what is wrong before anything starts

    def target(self) -> WebhookTarget:
        return self.called("the webhook", self.url, self.secrets)


class Webhook(Pipeline[ActionMessage | EventMessage, None]):
    """Tell a receiver what was signed, byte for byte as it is in the queue."""

    queue = "acme.webhook"
    retries = Retries(attempts=8)
    settings: WebhookSettings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.settings.target() as self.receiver:
            yield

    async def handle_message(self, message: Message[ActionMessage | EventMessage]) -> None:
        if message.body.action is not None and message.body.action.testing:
            raise Skip("a test action")
        # The same at every attempt, so that the receiver applies it once.
        identifier = hashlib.sha256(message.raw).hexdigest()
        await self.receiver.send(identifier, message.raw)
