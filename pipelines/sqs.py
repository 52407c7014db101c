"""Forwards signatures to Amazon SQS: ten in one call, each as it is in the queue, as docs/sqs.md says."""

import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import ClassVar

import msgspec

from flow import Batch, Batching, Message, Pipeline, Reject, Retries, Retry, Settings, Skip
from flow.schema import ActionMessage, EventMessage
from flow.targets.sqs import Entry, SqsTarget


class SqsSettings(Settings):
    """Where the queue is: SQS_QUEUE_URL and so on. Credentials and region are found the usual way of AWS."""

    prefix: ClassVar = "SQS"
    queue_url: str
    region: str | None = None
    endpoint: str | None = None  # a server that speaks like SQS
    limit: int = 262_144  # bytes of one call; AWS takes 1,048,576 where the queue is set so
    timeout: float = 20.0  # seconds for one call

    def __post_init__(self) -> None:
        self.target()  # refuses what is wrong before anything starts

    def target(self) -> SqsTarget:
        return SqsTarget(
            self.queue_url,
            region=self.region,
            endpoint=self.endpoint,
            limit=self.limit,
            timeout=self.timeout,
        )


class Named(msgspec.Struct):
    """What the bytes in the queue call themselves; the body was perhaps lifted from an older schema."""

    schema: str


class Sqs(Pipeline[ActionMessage | EventMessage, Entry]):
    """Forward what was signed, byte for byte, with a few attributes to filter by."""

    queue = "system.sqs"
    batching = Batching(size=10, timeout=0.5, concurrency=4)
    retries = Retries(attempts=8)
    settings: SqsSettings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        async with self.settings.target() as self.target:
            yield

    def handle_message(self, message: Message[ActionMessage | EventMessage]) -> Entry:
        body = message.body
        if body.action is not None and body.action.testing:
            raise Skip("a test action")
        return Entry(
            body=message.raw,
            attributes={
                "Schema": msgspec.json.decode(message.raw, type=Named).schema,
                "Stage": (body.stage or "") if isinstance(body, ActionMessage) else body.event_type,
                "CampaignName": body.campaign.name if body.campaign else "",
                "ActionType": body.action.action_type if body.action else "",
            },
            group=f"page-{body.action_page_id}",
            deduplication=hashlib.sha256(message.raw).hexdigest(),
        )

    async def handle_batch(self, batch: Batch[Entry]) -> None:
        for message, verdict in zip(batch, await self.target.send(batch.bodies), strict=True):
            if isinstance(verdict, Reject):
                batch.reject(message, verdict.reason)
            elif isinstance(verdict, Retry):
                batch.retry(message, verdict.reason, verdict.after)
