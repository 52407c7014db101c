"""What users get wrong: `mypy --strict` names each line that ends with the code of its error."""

from collections.abc import Hashable
from typing import ClassVar

from msgspec import Struct

from flow import Batch, Batching, Message, Pipeline, RateLimit, Retries, Secret, Settings
from flow.testing import action, message, run_messages


class Action(Struct):
    page: int


class Contact(Struct):
    name: str


class CrmSettings(Settings):
    prefix: ClassVar = "CRM"
    url: str
    token: Secret


class WrongBatch(Pipeline[Action, Contact]):
    async def handle_batch(self, batch: Batch[Action]) -> None: ...  # E: override


class WrongBatchSync(Pipeline[Action]):
    def handle_batch(self, batch: Batch[Contact]) -> None: ...  # E: override


class WrongBatchReturn(Pipeline[Action]):
    async def handle_batch(self, batch: Batch[Action]) -> int:  # E: override
        return len(batch)


class WrongMessage(Pipeline[Action, Contact]):
    async def handle_message(self, message: Message[Contact]) -> Contact:  # E: override
        return message.body


class WrongReturn(Pipeline[Action, Contact]):
    async def handle_message(self, message: Message[Action]) -> Action:  # E: override
        return message.body


class WrongReturnSync(Pipeline[Action, Contact]):
    def handle_message(self, message: Message[Action]) -> int:  # E: override
        return message.body.page


class WrongField(Pipeline[Action, Contact]):
    async def handle_message(self, message: Message[Action]) -> Contact:
        return Contact(message.body.name)  # E: attr-defined

    def batch_key(self, message: Message[Action]) -> Hashable:  # E: override
        return message.body.page

    async def batcher(self, message: Message[Contact]) -> str:  # E: override
        return "default"

    def handle_failed(self, message: Message[Action]) -> None: ...  # E: override


class WrongOptions(Pipeline[Action]):
    queue = 3  # E: assignment
    concurrency = "ten"  # E: assignment
    batching = 100  # E: assignment
    retries = 5  # E: assignment
    park = 1  # E: assignment
    handler_timeout = None  # E: assignment


class Untyped(Pipeline):  # E: type-arg
    queue = "q"


Batching(szie=3)  # E: call-arg
Batching(3)  # E: call-arg
Batching(size="3")  # E: arg-type
Retries(per={"ValueError": 1})  # E: dict-item
RateLimit(call=1)  # E: call-arg
CrmSettings(url="x")  # E: call-arg
CrmSettings(url="x", token="y")  # E: arg-type
CrmSettings(url="x", token=Secret("y")).url = "z"  # E: misc
len(Secret("x"))  # E: arg-type


async def test_it() -> None:
    await run_messages(WrongField, [action()])  # E: arg-type
    await run_messages(WrongField(), action())  # E: arg-type
    await run_messages(WrongField(), [3])  # E: list-item
    await run_messages(WrongField(), [], attempts=2)  # E: call-arg
    message(3)  # E: call-overload
    page = message(action()).body.page  # E: attr-defined
    [result] = await run_messages(WrongField(), [action()])
    result.outcome = None  # E: misc, assignment
    page += result.batch.size  # E: union-attr
