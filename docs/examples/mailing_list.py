"""Subscribes who opted in to a mailing list, up to 500 people in one call."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, ClassVar

from flow import Batch, Batching, Message, Pipeline, Secret, Settings, Skip
from flow.schema import ActionMessage
from flow.targets.http import HttpTarget


class ListSettings(Settings):
    prefix: ClassVar = "LIST"  # LIST_URL, and LIST_TOKEN or LIST_TOKEN_FILE
    url: str
    token: Secret


class MailingList(Pipeline[ActionMessage, dict[str, Any]]):
    queue = "acme.list"
    dead_letter = "assume"  # flow setup --queue made its retry loop
    batching = Batching(size=500, timeout=5.0)
    settings: ListSettings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with HttpTarget("the list", self.settings.url, self.settings.token) as self.api:
            yield

    def handle_message(self, message: Message[ActionMessage]) -> dict[str, Any]:
        signed = message.body
        if signed.action.testing or not (signed.privacy and signed.privacy.opt_in):
            raise Skip("did not opt in")
        return {"email": signed.contact.email, "name": signed.contact.first_name}

    async def handle_batch(self, batch: Batch[dict[str, Any]]) -> None:
        refused = await self.api.call("POST", "members", list[str], body=batch.bodies)
        for message in batch:
            if message.body["email"] in refused:
                batch.reject(message, "the list refuses the address")
