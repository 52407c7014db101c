"""A running engine without a broker, with time that the test turns."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import msgspec
import pytest

from flow.errors import PublishFailed
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.pipeline import Pipeline
from flow.stages.engine import Engine
from flow.stages.suspects import Journal
from tests.messages import ManualClock, MemoryOrigin
from tests.stages.faulty import FaultyLedger


class Number(msgspec.Struct):
    """What the messages of these tests hold."""

    n: int


class Line:
    """A pipeline between a queue in memory and a park in memory."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        prefetch: int,
        *,
        rejectable: bool,
        journal: Journal | None = None,
        ledger: Any = None,
    ) -> None:
        self.clock = ManualClock()
        self.origin = MemoryOrigin(getattr(pipeline, "queue", "numbers"), prefetch)
        self.metrics = PipelineMetrics(pipeline.name, list(pipeline.batchings()))
        self.metrics.account(self.origin.queue)
        self.parked: list[tuple[int, str]] = []
        self.park_fails = False
        if ledger is True:
            ledger = FaultyLedger(self.clock.now)
        self.engine = Engine(
            pipeline,
            self.metrics,
            self._park,
            self.clock,
            rejectable=lambda _: rejectable,
            journal=journal,
            store=ledger if ledger is None or isinstance(ledger, tuple) else (ledger, ledger),
        )
        self.engine.origins = [self.origin]

    async def _park(self, message: Message[Any], reason: str) -> None:
        await anyio.lowlevel.checkpoint()
        if self.park_fails:
            raise PublishFailed("the park is full")
        self.parked.append((number(message), reason))

    async def push(self, *numbers: object, **properties: Any) -> None:
        """Deliver *numbers* in one burst and let everything run that can."""
        self.send(*numbers, **properties)
        await quiet()

    def send(self, *numbers: object, **properties: Any) -> None:
        """Deliver *numbers* in one burst."""
        bodies = [{"n": one} if isinstance(one, int) else one for one in numbers]
        now = self.clock.now()
        self.engine.receive([self.origin.message(body, received_at=now, **properties) for body in bodies])

    async def advance(self, seconds: float) -> None:
        """Let *seconds* pass and everything run that can."""
        self.clock.advance(seconds)
        await quiet()

    def lose(self) -> None:
        """End the session: what is unsettled belongs to nobody any more; a new queue takes its place."""
        old, outstanding = self.origin, self.unsettled()
        old.alive = False
        self.engine.lost(outstanding, [])
        self.origin = MemoryOrigin(old.queue, old.prefetch)
        self.engine.origins = [self.origin]

    def unsettled(self) -> list[Message[Any]]:
        settled = self.origin.settled
        return [one for one in self.origin.made if all(one is not other for other in settled)]

    @property
    def acked(self) -> list[int]:
        return [number(message) for message in self.origin.acked]

    @property
    def rejected(self) -> list[int]:
        return [number(message) for message in self.origin.rejected]

    @property
    def released(self) -> list[int]:
        return [number(message) for message in self.origin.released]

    @property
    def account(self) -> dict[str, int]:
        """The numbers of the account that are not 0."""
        account = self.metrics.accounts[self.origin.queue]
        names = type(account).__dataclass_fields__
        return {name: value for name in names if (value := getattr(account, name))}


async def quiet() -> None:
    """Let everything run that can: nothing here waits for anything outside of the loop."""
    for _ in range(100):
        await asyncio.sleep(0)


def number(message: Message[Any]) -> int:
    """Return the number that *message* was sent with, or -1 for bytes that are none."""
    try:
        return msgspec.json.decode(message.raw, type=Number).n
    except msgspec.MsgspecError:
        return -1


Start = Callable[..., Awaitable[Line]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start engines; they are stopped when the test ends."""
    async with anyio.create_task_group() as tasks:

        async def begin(
            kind: type[Pipeline[Any, Any]],
            prefetch: int = 1000,
            *,
            rejectable: bool = True,
            journal: Journal | None = None,
            ledger: Any = None,
        ) -> Line:
            line = Line(kind(), prefetch, rejectable=rejectable, journal=journal, ledger=ledger)
            tasks.start_soon(line.engine.run)
            await quiet()
            return line

        yield begin
        tasks.cancel_scope.cancel()
