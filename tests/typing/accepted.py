"""What users write: `mypy --strict` has nothing to say about any of it."""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal, assert_type

from msgspec import Struct

from flow import (
    Batch,
    Batching,
    Message,
    Pipeline,
    RateLimit,
    Reject,
    Retries,
    Retry,
    Secret,
    Settings,
    Skip,
    Unavailable,
    testing,
)
from flow.outcome import Outcome
from flow.pytest_plugin import Configure
from flow.schema import ActionMessage, EventMessage, IdsMessage
from flow.testing import InBatch, Result, action, event, ids, run_messages


class Action(Struct):
    page: int
    testing: bool


class Erased(Struct):
    email: str


class Contact(Struct):
    name: str
    page: int


class CrmSettings(Settings):
    prefix: ClassVar = "CRM"
    url: str
    token: Secret
    timeout: float = 10.0
    mode: Literal["all", "opt_in"] = "all"
    proxy: str | None = None


class Client:
    async def upsert(self, contacts: list[Contact]) -> list[bool]:
        return [True for _ in contacts]


class Crm(Pipeline[Action, Contact]):
    """Asynchronous, with a body that becomes another."""

    queue = "acme.crm"
    concurrency = 10
    batching = Batching(size=100, timeout=2.0, weight=lambda message: len(message.raw), max_weight=1000)
    retries = Retries(attempts=8, per={ConnectionError: 3})
    rate_limit = RateLimit(calls=10, per=1.0, key=lambda message: message.queue)
    prefetch = 500
    park = "loop"
    dead_letter = "assume"
    settings: CrmSettings
    client: Client

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        assert_type(self.settings.token.reveal(), str)
        self.client = Client()
        yield

    async def handle_message(self, message: Message[Action]) -> Contact:
        if message.body.testing:
            raise Skip("test action")
        if message.attempt > 3:
            raise Reject("too often")
        if message.redelivered:
            raise Retry("again", after=30.0)
        if message.record_id is None:
            raise Unavailable("maintenance")
        return Contact("name", message.body.page)

    def batch_key(self, message: Message[Contact]) -> Hashable:
        return message.body.page, message.body.name

    async def handle_batch(self, batch: Batch[Contact]) -> None:
        assert_type(batch.bodies, list[Contact])
        assert_type(batch[0].body, Contact)
        for message, taken in zip(batch, await self.client.upsert(batch.bodies), strict=True):
            if not taken:
                batch.reject(message, "invalid")
                batch.retry(message, "busy", after=30.0)
                batch.skip(message, "known")

    async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
        assert_type(message.record_id, str | None)


class Sync(Pipeline[Action | Erased]):
    """Plain functions, several bodies, several batchings."""

    queue = "acme.moderate"
    batching = {"bulk": Batching(), "single": Batching(size=1)}  # noqa: RUF012 # as users write it

    def handle_message(self, message: Message[Action | Erased]) -> Action | Erased:
        return message.body

    def batcher(self, message: Message[Action | Erased]) -> str:
        return "bulk" if isinstance(message.body, Action) else "single"

    def handle_batch(self, batch: Batch[Action | Erased]) -> None:
        assert_type(batch.bodies, list[Action | Erased])


class WithoutBatches(Pipeline[Action, None]):
    """The delivery happens in `handle_message`."""

    queue = "acme.hook"

    async def handle_message(self, message: Message[Action]) -> None:
        assert_type(message.body.page, int)


class Inherited(Crm):
    """Another queue with another key."""

    queue = "acme.other"

    def batch_key(self, message: Message[Contact]) -> int:
        return message.body.page


crm = Crm(CrmSettings(url="https://crm", token=Secret("x")))
assert_type(crm.concurrency, int)
assert_type(crm.settings.url, str)


async def test_it(configured: Configure) -> None:
    pipeline = configured(Crm, {"CRM_URL": "https://crm"}, handler_timeout=0.1)
    assert_type(pipeline, Crm)
    assert_type(action(testing=True), ActionMessage)
    assert_type(event("email_status", email="ada@example.org"), EventMessage)
    assert_type(ids(page=1), IdsMessage)
    assert_type(testing.message(action(), attempt=2, headers={"a": 1}), Message[ActionMessage])
    assert_type(testing.message({"page": 1}, queue="acme.crm"), Message[Any])
    assert_type(await run_messages(pipeline, []), list[Result])
    for result in await run_messages(
        pipeline, [action(), event(), {"page": 1}, b"not JSON", "{}", testing.message("{}")]
    ):
        assert_type(result.outcome, Outcome)
        assert_type(result.error, Exception | None)
        assert_type(result.after, float | None)
        assert_type(result.batch, InBatch | None)
    await run_messages(
        WithoutBatches(), (Action(page, testing=False) for page in range(3)), follow_retries=True
    )
