"""The pipelines that the tests of faults run: they tell a sink over HTTP, and do what a setting orders."""

import asyncio
import inspect
import os
import signal
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import msgspec

from flow import Batch, Batching, Message, Pipeline, Retries, Secret, Settings
from flow.targets.http import HttpTarget, bare_client


class Numbered(msgspec.Struct):
    """What the messages hold."""

    id: str
    n: int
    name: str


class Result(msgspec.Struct):
    """What the sink says of one message."""

    id: str
    status: str


class SinkSettings(Settings):
    """Where the sink is, and at which number something goes wrong; 0: nowhere."""

    prefix: ClassVar = "SINK"
    url: str
    token: Secret
    timeout: float = 10.0
    authority: str = ""  # a file: who signs certificates; "": those whom the system trusts
    exits_at: int = 0  # the process ends in the middle of handle_message
    killed_at: int = 0  # the process is killed after the sink has answered
    slow_at: int = 0  # handle_message takes `slow` seconds before it tells the sink
    hangs_at: int = 0  # handle_message never ends
    slow: float = 8.0
    cancels_at: int = 0  # handle_message cancels every task whose name holds `cancels`
    cancels: str = ""


class Trusting(HttpTarget):
    """Takes another authority for the one who signs the certificate of the target."""

    def __init__(self, name: str, url: str, token: Secret, *, timeout: float, authority: str) -> None:
        super().__init__(name, url, token, timeout=timeout)
        if authority:
            headers = {"Authorization": f"Bearer {token.reveal()}"}
            trust = ssl.create_default_context(cafile=authority)
            self._http = bare_client(timeout, base_url=url, headers=headers, verify=trust)


class Telling(Pipeline[Numbered]):
    """Tells the sink what it is given."""

    settings: SinkSettings
    retries = Retries(attempts=5)
    retry_delay = 1.0

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        sink = self.settings
        target = Trusting("the sink", sink.url, sink.token, timeout=sink.timeout, authority=sink.authority)
        async with target as self.sink:
            yield

    async def tell(self, messages: Sequence[Message[Numbered]]) -> dict[str, Result]:
        """Tell the sink about *messages*; return what it says of each, by id."""
        items = [{"id": message.body.id, "attempt": message.attempt} for message in messages]
        results = await self.sink.call("POST", "contacts", list[Result], body=items)
        if any(message.body.n == self.settings.killed_at for message in messages):
            os.kill(os.getpid(), signal.SIGKILL)
        return {result.id: result for result in results}

    def cancel_tasks(self) -> bool:
        """Do what no callback may do; tell whether those tasks were there, and had begun."""
        found = [
            task
            for task in asyncio.all_tasks()
            if self.settings.cancels in task.get_name() and task is not asyncio.current_task()
        ]
        if not found or any(inspect.getcoroutinestate(task.get_coro()) == "CORO_CREATED" for task in found):
            return False
        for task in found:
            task.cancel()
        return True

    async def trouble(self, message: Message[Numbered]) -> None:
        """Do what is ordered for *message*."""
        if message.body.n == self.settings.exits_at:
            os._exit(9)
        if message.body.n == self.settings.cancels_at:
            while not self.cancel_tasks():  # noqa: ASYNC110 (a part that begins tells nobody)
                await anyio.sleep(0.01)
        if message.body.n == self.settings.slow_at:
            await anyio.sleep(self.settings.slow)
        if message.body.n == self.settings.hangs_at:
            await anyio.sleep_forever()


class Singles(Telling):
    """Tells one message at a time."""

    queue = "acme.crm"
    concurrency = 4

    async def handle_message(self, message: Message[Numbered]) -> None:  # type: ignore[override]
        await self.trouble(message)
        await self.tell([message])


class Impatient(Singles):
    """Gives a handler up before the broker does for the second time, and tries twice."""

    queue = "acme.crm"
    handler_timeout = 11.0
    retries = Retries(attempts=2)


class Batches(Telling):
    """Tells batches of ten."""

    queue = "acme.crm"
    batching = Batching(size=10, timeout=0.3)

    async def handle_message(self, message: Message[Numbered]) -> Numbered:
        await self.trouble(message)
        return message.body

    async def handle_batch(self, batch: Batch[Numbered]) -> None:
        results = await self.tell(batch)
        for message in batch:
            result = results.get(message.body.id)
            if result is None:
                batch.retry(message, "the sink did not say what became of it")
            elif result.status == "invalid":
                batch.reject(message, "the sink calls it invalid")
            elif result.status != "ok":
                batch.retry(message, "the sink does not take it now")


class Persistent(Batches):
    """Tries again and again."""

    queue = "acme.crm"
    retries = Retries(attempts=1000)


class Patient(Batches):
    """Waits long for full batches."""

    queue = "acme.crm"
    batching = Batching(size=10, timeout=100.0)


def settings(url: str, token: str, **more: Any) -> dict[str, str]:
    """Return the environment for the settings of these pipelines."""
    return {"SINK_URL": url, "SINK_TOKEN": token, **{name: str(value) for name, value in more.items()}}
