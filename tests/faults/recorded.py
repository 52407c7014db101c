"""The pipelines of the fault tests with a ledger: killed, or stopped, at an exact point of it."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar

import anyio
import anyio.lowlevel

from flow import Batch, Batching, Claim, Message, Secret
from flow.ledger import Row
from flow.records.ledger import SqlLedger
from flow.stages import claimant
from tests.faults.worker import Batches, Numbered, SinkSettings, Telling


class PointSettings(SinkSettings):
    """As before, with points in the way of a decision."""

    prefix: ClassVar = "SINK"
    token: Secret
    url: str
    killed_written: int = 0  # killed when so many rows are written, and before the broker is told
    stuck_written: int = 0  # the same, but it stands still


class Recorded(Batches):
    """Tells batches of ten, one after another."""

    queue = "acme.crm"
    settings: PointSettings
    batching = Batching(size=10, timeout=0.3, concurrency=1)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        write, count = SqlLedger.write, 0

        async def written(ledger: SqlLedger, rows: Sequence[Row]) -> Any:
            nonlocal count
            result = await write(ledger, rows)
            count += len(rows)
            if 0 < self.settings.killed_written <= count:
                os.kill(os.getpid(), signal.SIGKILL)
            if 0 < self.settings.stuck_written <= count:
                os.kill(os.getpid(), signal.SIGSTOP)
            return result

        SqlLedger.write = written  # type: ignore[method-assign]
        async with super().lifespan():
            yield


class Mailed(Telling):
    """Tells each message for itself, none of them twice; its claims end soon."""

    queue = "acme.crm"
    batching = Batching(size=10, timeout=0.3, concurrency=2)
    batch_timeout = 5.0
    claim = Claim(key=lambda message: message.body.id, unknown="park")

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        claimant.MARGIN = 1.0  # type: ignore[attr-defined]
        async with super().lifespan():
            yield

    async def handle_message(self, message: Message[Numbered]) -> Numbered:
        return message.body

    async def handle_batch(self, batch: Batch[Numbered]) -> None:
        for message in batch:
            async with batch.sending(message):
                await self.tell([message])
            await anyio.lowlevel.checkpoint()
