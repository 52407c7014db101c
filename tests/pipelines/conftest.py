"""A real CRM over HTTP, and the callbacks of the pipeline called as the engine calls them."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from copy import deepcopy
from typing import Any

import pytest

from flow.batch import Batch, Trigger
from flow.demo import signatures
from flow.demo.crm_server import CrmServer
from flow.message import Message
from flow.outcome import Verdict
from flow.settings import load
from pipelines.crm import Crm, CrmSettings
from tests.bodies import codec
from tests.messages import MemoryOrigin

TOKEN = "canary-token-5c0d"


class Desk:
    """One running pipeline, without engine and broker."""

    def __init__(self, pipeline: Crm) -> None:
        self.pipeline = pipeline
        self.origin = MemoryOrigin("acme.crm")
        self.codec = codec(Crm.message_types())

    def message(self, body: Any, attempt: int = 1) -> Message[Any]:
        raw = body if isinstance(body, bytes) else signatures.body(body)
        message = self.origin.message(raw, attempt=attempt)
        self.codec.decode(message)
        return message

    async def deliver(self, *bodies: Any, attempt: int = 1) -> list[Verdict | None]:
        """Return what becomes of each of *bodies*, worked in batches by key; None: delivered."""
        messages = [self.message(body, attempt) for body in bodies]
        verdicts: dict[Message[Any], Verdict | None] = {}
        batches: dict[Any, list[Message[Any]]] = {}
        for message in messages:
            try:
                message.body = self.pipeline.handle_message(message)
            except Verdict as verdict:
                verdicts[message] = verdict
                continue
            batches.setdefault(self.pipeline.batch_key(message), []).append(message)
        for key, waiting in batches.items():
            verdicts |= await self.deliver_batch(Batch(waiting, key, "default", Trigger.SIZE))
        return [verdicts[message] for message in messages]

    async def deliver_batch(self, batch: Batch[Any]) -> dict[Message[Any], Verdict | None]:
        whole: Verdict | None = None
        try:
            await self.pipeline.handle_batch(batch)
        except Verdict as verdict:
            whole = verdict
        return {message: batch.marks.get(message, whole) for message in batch}


OpenDesk = Callable[..., AbstractAsyncContextManager[Desk]]


@pytest.fixture
async def crm() -> AsyncIterator[CrmServer]:
    async with CrmServer(token=TOKEN) as server:
        yield server


@pytest.fixture
def open_desk(crm: CrmServer) -> OpenDesk:
    """Open a desk with settings from the environment, given by name without the prefix."""

    @asynccontextmanager
    async def open_one(**settings: str) -> AsyncIterator[Desk]:
        environment = {"CRM_URL": crm.url, "CRM_TOKEN": TOKEN}
        environment |= {f"CRM_{name.upper()}": value for name, value in settings.items()}
        desk = Desk(Crm(load(CrmSettings, environment)))
        async with desk.pipeline.lifespan():
            yield desk

    return open_one


@pytest.fixture
async def desk(open_desk: OpenDesk) -> AsyncIterator[Desk]:
    async with open_desk() as one:
        yield one


def signature(number: int = 7, **privacy: Any) -> dict[str, Any]:
    """Return an action on one page, of a person whose name and address are canaries."""
    body = deepcopy(signatures.action(1))
    body["actionId"] = number
    body["contact"] |= {"email": "canary@example.org", "firstName": "Kanarienvogel"}
    body["privacy"] = {"withConsent": True, "optIn": True, "emailStatus": None} | privacy
    return body


def told(verdict: Verdict | None) -> tuple[str, str]:
    assert verdict is not None
    return type(verdict).__name__, verdict.reason
