"""A pipeline whose callbacks do everything that callbacks must not do."""

import asyncio
import time

import anyio

from flow import Batch, Batching, Message, Retries
from tests.faults.ledger import NAME
from tests.faults.worker import Numbered, Result, Telling

STUCK, BLOCKING, CANCELLED, EXITING, RAISING, TWICE, FOREIGN = range(1, 8)


class Wrong(Telling):
    """Goes wrong at some numbers, at every attempt."""

    queue = "acme.crm"
    handler_timeout = 1.0
    retries = Retries(attempts=3)  # the last two are made alone
    batching = Batching(size=10, timeout=0.2)

    async def handle_message(self, message: Message[Numbered]) -> Numbered:
        match message.body.n:
            case 1:
                await anyio.sleep_forever()
            case 2:
                time.sleep(2)  # noqa: ASYNC251 (that is what is wrong)
            case 3:
                task = asyncio.current_task()
                assert task is not None
                task.cancel()
                await asyncio.sleep(0)
            case 4:
                raise SystemExit(7)
            case 5:
                raise KeyError(NAME)
        self.last = message
        return message.body

    async def handle_batch(self, batch: Batch[Numbered]) -> None:
        for message in batch:
            if message.body.n == TWICE:
                batch.retry(message, "once")
                batch.reject(message, "twice")
            elif message.body.n == FOREIGN:
                batch.skip(Message(*foreign(message)), "of another batch")
        items = [{"id": message.body.id} for message in batch]
        await self.sink.call("POST", "contacts", list[Result], body=items)


def foreign(message: Message[Numbered]) -> tuple[object, ...]:
    """Return what makes another message like *message*."""
    return (
        message.origin,
        message.tag,
        False,
        message.routing,
        message.header,
        message.raw,
        message.received_at,
    )
