"""Several queues in one pipeline: they share the workers, take turns, and leave each other alone."""

from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Retry, Unavailable
from flow.pipeline import Pipeline
from tests.messages import MemoryOrigin
from tests.stages.conftest import Line, Number, Start, number, quiet

pytestmark = pytest.mark.anyio


class Several(Pipeline[Number, int]):
    """Consumes `one` and `two`; the target of a queue in `down` does not work."""

    concurrency = 1
    retry_delay = 30.0

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.handled: list[tuple[str, int]] = []
        self.down: set[str] = set()
        self.go = anyio.Event()
        self.go.set()

    async def queues(self) -> AsyncIterator[Sequence[str]]:
        yield ["one", "two"]

    async def handle_message(self, message: Message[Number]) -> int:
        await self.go.wait()
        self.handled.append((message.queue, message.body.n))
        if message.queue in self.down:
            raise Unavailable("closed")
        if message.body.n == 99:
            raise Retry("held", after=10.0)
        return message.body.n


class SeveralBatches(Several):
    """As before, but the target is called by `handle_batch`."""

    batching = Batching(size=3, timeout=0.2, concurrency=1)

    async def handle_message(self, message: Message[Number]) -> int:
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        self.handled += [(batch.queue, n) for n in batch.bodies]
        if batch.queue in self.down:
            raise Unavailable("closed")


class Queue:
    """One of the queues of a line."""

    def __init__(self, line: Line, name: str) -> None:
        self.line = line
        self.origin = MemoryOrigin(name)
        line.metrics.account(name)

    async def push(self, *numbers: int) -> None:
        now = self.line.clock.now()
        self.line.engine.receive([self.origin.message({"n": n}, received_at=now) for n in numbers])
        await quiet()

    @property
    def acked(self) -> list[int]:
        return [number(message) for message in self.origin.acked]

    @property
    def released(self) -> list[int]:
        return [number(message) for message in self.origin.released]


async def opened(start: Start, kind: type[Several]) -> tuple[Line, Any, Queue, Queue]:
    line = await start(kind)
    one, two = Queue(line, "one"), Queue(line, "two")
    line.engine.origins = [one.origin, two.origin]
    return line, line.engine.pipeline, one, two


async def test_queues_take_turns(start: Start) -> None:
    """A queue with much to do does not hold up another one."""
    _, pipeline, one, two = await opened(start, Several)
    pipeline.go = anyio.Event()
    await one.push(1, 2, 3, 4)
    await two.push(5, 6)

    pipeline.go.set()
    await quiet()

    assert pipeline.handled == [
        *[("one", 1), ("one", 2), ("two", 5), ("one", 3), ("two", 6), ("one", 4)],
    ]


@pytest.mark.parametrize("kind", [Several, SeveralBatches])
async def test_a_target_that_is_down_holds_up_only_its_queue(start: Start, kind: type[Several]) -> None:
    line, pipeline, one, two = await opened(start, kind)
    pipeline.down = {"one"}
    await one.push(1, 2, 3)
    await two.push(4, 5, 6)
    down = line.engine.down()
    pipeline.down = set()

    await line.advance(2.0)

    assert two.acked == [4, 5, 6]
    assert list(down) == ["one"]
    assert one.acked == [1, 2, 3]
    assert line.engine.down() == {}


async def test_a_batch_is_of_one_queue(start: Start) -> None:
    line, pipeline, one, two = await opened(start, SeveralBatches)

    await one.push(1, 2)
    await two.push(3, 4)
    await line.advance(0.2)

    assert pipeline.handled == [("one", 1), ("one", 2), ("two", 3), ("two", 4)]
    assert line.metrics.batch_size["default"].total == 4


@pytest.mark.parametrize("kind", [Several, SeveralBatches])
async def test_what_waits_of_one_queue_can_be_given_back(start: Start, kind: type[Several]) -> None:
    line, pipeline, one, two = await opened(start, kind)
    pipeline.down = {"one"}
    await one.push(1, 2, 3)
    await line.advance(0.2)
    waited = line.engine.waited("one")

    line.engine.give_back("one")
    await two.push(4, 5, 6)

    assert waited == pytest.approx(0.2)
    assert sorted(one.released) == [1, 2, 3]
    assert two.acked == [4, 5, 6]
    assert line.engine.waited("one") == 0.0
    assert line.engine.unfinished == 0


async def test_what_is_held_of_one_queue_can_be_given_back(start: Start) -> None:
    line, _, one, two = await opened(start, Several)
    await one.push(99)
    await two.push(99)

    line.engine.give_back("one")

    assert (one.released, two.released) == ([99], [])


async def test_the_loss_of_one_queue_leaves_the_others_alone(start: Start) -> None:
    line, pipeline, one, two = await opened(start, SeveralBatches)
    await one.push(1, 2)
    await two.push(3, 4)

    one.origin.alive = False
    line.engine.lost(one.origin.made, [])
    await line.advance(0.2)

    assert pipeline.handled == [("two", 3), ("two", 4)]
    assert line.metrics.accounts["one"].stale == 2
    assert line.engine.unfinished == 0


@pytest.mark.parametrize("kind", [Several, SeveralBatches])
async def test_a_queue_that_is_left_waits_for_its_target_no_more(start: Start, kind: type[Several]) -> None:
    line, pipeline, one, two = await opened(start, kind)
    pipeline.down = {"one"}
    await one.push(1, 2, 3)
    await two.push(4, 5, 6)

    circuit_open = dict(line.metrics.circuit_open)
    line.engine.leave("one")
    line.engine.leave("two")

    assert sorted(one.released) == [1, 2, 3]
    assert two.acked == [4, 5, 6]
    assert line.engine.down() == {}
    assert (circuit_open, line.metrics.circuit_open) == ({"default": True}, {"default": False})
    assert line.engine.unfinished == 0


async def test_a_queue_that_waits_for_a_worker_does_not_starve_another(start: Start) -> None:
    line, pipeline, one, two = await opened(start, SeveralBatches)
    two.origin.prefetch = 2
    line.engine._processor.gates.ended("one", -1, Unavailable("closed", after=60.0))
    await one.push(1, 2)

    await two.push(3, 4)

    assert pipeline.handled == [("two", 3), ("two", 4)]
    assert len(line.engine._processor.reception) == 2
