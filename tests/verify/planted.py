"""Pipelines of somebody else: one is right, and each of the others loses messages in its own way."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from typing import ClassVar

import httpx2
from msgspec import Struct

from flow import Batch, Batching, Claim, Message, Pipeline, Reject, Retry, Settings, Unavailable
from flow.records.mailing import of_message
from flow.schema import ActionMessage
from flow.targets.letters import Letter
from flow.targets.mail import MailSettings, MailTarget
from flow.targets.session import MailSession


class TargetSettings(Settings):
    prefix: ClassVar = "TARGET"
    url: str


class Calling(Pipeline[ActionMessage]):
    settings: TargetSettings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        self.tasks: set[asyncio.Task[None]] = set()
        async with httpx2.AsyncClient(base_url=self.settings.url, trust_env=False) as self.http:
            yield

    async def deliver(self, ids: Sequence[int]) -> None:
        (await self.http.post("/actions", json=ids)).raise_for_status()


def ids(batch: Batch[ActionMessage]) -> list[int]:
    return [one.action_id for one in batch.bodies]


class Right(Calling):
    queue = "acme.crm"
    batching = Batching(size=10)

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        await self.deliver(ids(batch))


class EarlyBatch(Calling):
    """Delivers in the background and returns at once."""

    queue = "acme.crm"
    batching = Batching(size=10)

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        self.tasks.add(asyncio.create_task(self.deliver(ids(batch))))


class EarlyMessage(Calling):
    """Returns before its work is done."""

    queue = "acme.crm"

    def handle_message(self, message: Message[ActionMessage]) -> None:
        self.tasks.add(asyncio.create_task(self.deliver([message.body.action_id])))


class Swallowing(Calling):
    """Takes a failure of its target for a success."""

    queue = "acme.crm"
    batching = Batching(size=10)

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        with suppress(httpx2.HTTPError):
            await self.deliver(ids(batch))


class Half(Calling):
    """Delivers one half of a batch."""

    queue = "acme.crm"
    batching = Batching(size=10)

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        await self.deliver(ids(batch)[: (len(batch) + 1) // 2])


class Forgetting(Calling):
    """Delivers nothing at all."""

    queue = "acme.crm"

    async def handle_message(self, message: Message[ActionMessage]) -> None:
        await asyncio.sleep(0)


class Refusing(Calling):
    """Takes nothing."""

    queue = "acme.crm"

    async def handle_message(self, message: Message[ActionMessage]) -> None:
        raise Reject("no good")


class Picky(Calling):
    """Right, and reads another answer than the double usually gives."""

    queue = "acme.crm"
    batching = Batching(size=10)

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        answer = await self.http.post("/members", json=[{"id": one} for one in ids(batch)])
        if not all(isinstance(one, str) for one in answer.raise_for_status().json()):
            raise Retry("the answer cannot be read")


class Down(Calling):
    """Waits for ever."""

    queue = "acme.crm"

    async def handle_message(self, message: Message[ActionMessage]) -> None:
        raise Unavailable("it is away")


class Blind(Pipeline[ActionMessage]):
    """Delivers where flow does not look."""

    async def queues(self) -> AsyncIterator[Sequence[str]]:
        yield ["any.one"]

    async def handle_message(self, message: Message[ActionMessage]) -> None:
        await asyncio.sleep(0)


class Mailing(Pipeline[ActionMessage]):
    """Mails as it is right."""

    queue = "acme.mail"
    batching = Batching(size=10)
    claim = Claim(key=lambda message: str(message.body.action_id), unknown="park")
    settings: MailSettings

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        async def mail(session: MailSession, message: Message[ActionMessage]) -> None:
            await self.send(session, batch, message)

        await MailTarget(self.settings).each(batch, mail)

    def letter(self, message: Message[ActionMessage]) -> Letter:
        target, to = MailTarget(self.settings), of_message(message.body)
        return target.letter("thank_you", to, {"unsubscribe_link": ""})

    async def send(
        self, session: MailSession, batch: Batch[ActionMessage], message: Message[ActionMessage]
    ) -> None:
        await session.send(self.letter(message), batch.sending(message))


class Uncovered(Mailing):
    """Mails outside of `batch.sending`."""

    async def send(
        self, session: MailSession, batch: Batch[ActionMessage], message: Message[ActionMessage]
    ) -> None:
        await session.send(self.letter(message))


class MailingTwice(Mailing):
    """Mails everybody two times."""

    async def send(
        self, session: MailSession, batch: Batch[ActionMessage], message: Message[ActionMessage]
    ) -> None:
        async with batch.sending(message):
            await session.send(self.letter(message))
            await session.send(self.letter(message))


class SwallowingMail(Mailing):
    """Takes a mail that was refused for one that was sent."""

    async def send(
        self, session: MailSession, batch: Batch[ActionMessage], message: Message[ActionMessage]
    ) -> None:
        with suppress(Retry):
            await super().send(session, batch, message)


class Tagging(Calling):
    """Delivers, and does something more whose failure does not matter."""

    queue = "acme.crm"

    async def handle_message(self, message: Message[ActionMessage]) -> None:
        await self.deliver([message.body.action_id])
        with suppress(httpx2.HTTPError):
            (await self.http.post("/tags", json=[message.body.action_id])).raise_for_status()


class Own(Struct):
    number: str


class OwnType(Pipeline[Own]):
    queue = "own"
    settings: TargetSettings

    async def handle_message(self, message: Message[Own]) -> None:
        async with httpx2.AsyncClient(trust_env=False) as http:
            answer = await http.post(self.settings.url, json={"number": message.body.number})
            assert answer.raise_for_status().json() == {"accepted": message.body.number}


def accepted(_: str, __: str, body: dict[str, str]) -> dict[str, str]:
    """Answer as the target of `OwnType` does."""
    return {"accepted": body["number"]}


def nobody(_: str, __: str, ___: object) -> list[str]:
    """Name nobody, as `Picky` expects."""
    return []


def numbered(_: str, __: str, ___: object) -> list[int]:
    """Answer with what `Picky` does not expect."""
    return [4711]


def unwritable(_: str, __: str, body: object) -> object:
    """Answer with what is no JSON."""
    return {body is None}


def forgetful(_: str, __: str, ___: object) -> object:
    """Do not know what to answer."""
    return dict[str, str]()["answer"]
