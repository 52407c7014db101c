"""Rules of tests/BEHAVIOUR.md about a pipeline as a whole, on a real broker: how it runs and stops."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.broker.url import BrokerUrl
from flow.message import Message
from flow.outcome import Retry
from flow.pipeline import Pipeline
from flow.runner import Runner, RunOptions
from tests.broker.queues import Queues, connected, eventually, until
from tests.nodes.rabbitmq_control import QueueLength, RabbitMQControl

pytestmark = pytest.mark.anyio


class Number(msgspec.Struct):
    """What the messages of these tests hold."""

    n: int


class Numbers(Pipeline[Number]):
    """Waits in each handler until it may go on."""

    queue = "numbers"
    dead_letter = "assume"
    concurrency = 2

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.handling: list[int] = []
        self.steps: list[str] = []
        self.go = anyio.Event()

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        self.handling.append(message.body.n)
        await self.go.wait()
        self.steps.append(f"handled {message.body.n}")


@pytest.fixture
async def queues(amqp_url: str) -> AsyncIterator[Queues]:
    """The queue `numbers`, whose rejected messages go to the queue `rejected`."""
    connection = await connected(amqp_url)
    made = Queues(await connection.channel())
    await made.make("rejected")
    back = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "rejected"}
    await made.make("numbers", **back)
    yield made
    with anyio.move_on_after(3):
        await connection.close()


def bodies(numbers: Iterable[int]) -> list[bytes]:
    return [msgspec.json.encode(Number(n)) for n in numbers]


def runner_of(pipeline: Pipeline[Any, Any], amqp_url: str) -> Runner:
    return Runner(pipeline, BrokerUrl.parse(amqp_url), RunOptions(shutdown_timeout=20.0))


async def test_batches_are_acknowledged_and_failures_rejected(
    queues: Queues, amqp_url: str, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    """A07, R05, R06: one session; batches of two; all but the failed one acknowledged, nothing left open."""
    batches: list[list[int]] = []

    class Pairs(Pipeline[Number]):
        queue = "numbers"
        dead_letter = "assume"
        concurrency = 1
        batching = Batching(size=2, timeout=60.0)

        async def handle_message(self, message: Message[Number]) -> Number:
            if message.body.n == 3:
                raise Retry("three")
            return message.body

        async def handle_batch(self, batch: Batch[Number]) -> None:
            batches.append([body.n for body in batch.bodies])

    runner = runner_of(Pairs(), amqp_url)
    for body in bodies([1, 2, 3, 4, 5]):
        await queues.fill("numbers", [body])

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await until(lambda: runner.account.open == 0 and runner.account.received == 5)
        names = await rabbitmq.connection_names(vhost)
        runner.stop()

    lengths = await rabbitmq.queue_lengths(vhost)
    assert batches == [[1, 2], [4, 5]]
    assert [name for name in names if name.startswith("flow")] == ["flow pairs"]
    assert lengths["numbers"] == QueueLength(0, 0)
    assert await queues.drain("rejected") == bodies([3])
    assert (runner.account.delivered, runner.account.retrying) == (4, 1)


async def test_a_handler_may_ask_for_the_stop(queues: Queues, amqp_url: str) -> None:
    """K07: the request returns at once, and the message that made it is settled as usual."""

    class Stopping(Pipeline[Number]):
        queue = "numbers"
        dead_letter = "assume"

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            runner.stop()

    runner = runner_of(Stopping(), amqp_url)
    await queues.fill("numbers", bodies([1]))

    with anyio.fail_after(15):
        await runner.run()

    assert runner.account.delivered == 1
    assert runner.hung == 0
    assert await queues.drain("numbers") == []


async def test_asking_again_changes_nothing(queues: Queues, amqp_url: str) -> None:
    """K08: there is one drain, and everybody who waits for the end sees it."""
    pipeline = Numbers()
    runner = runner_of(pipeline, amqp_url)
    await queues.fill("numbers", bodies([1, 2]))

    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await until(lambda: len(pipeline.handling) == 2)
            for _ in range(2):
                tasks.start_soon(runner.ended.wait)
                runner.stop()
            pipeline.go.set()
            await runner.ended.wait()
            runner.stop()

    assert runner.account.delivered == runner.account.received == 2


async def test_cancelling_the_run_drains_first(queues: Queues, amqp_url: str) -> None:
    """K09: what runs is finished and settled; then the cancellation goes on."""
    pipeline = Numbers()
    runner = runner_of(pipeline, amqp_url)
    await queues.fill("numbers", bodies([1, 2]))
    went_on = False

    async def run(scope: anyio.CancelScope) -> None:
        nonlocal went_on
        with scope:
            await runner.run()
            await anyio.lowlevel.checkpoint()
            went_on = True

    scope = anyio.CancelScope()
    with anyio.fail_after(30):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run, scope)
            await until(lambda: len(pipeline.handling) == 2)
            scope.cancel()
            await until(lambda: runner.unready() == "numbers is draining")
            pipeline.go.set()

    assert runner.account.delivered == 2
    assert scope.cancelled_caught
    assert not went_on


async def test_resources_are_closed_last(
    queues: Queues, amqp_url: str, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    """K10: handlers end, acknowledgements arrive, the connection closes; only then `lifespan` is left."""

    class Surrounded(Numbers):
        queue = "numbers"

        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            yield
            names = await rabbitmq.connection_names(vhost)
            length = (await rabbitmq.queue_lengths(vhost))["numbers"]
            self.steps.append(f"left with {length}, connected {[one for one in names if 'flow' in one]}")

    pipeline = Surrounded()
    runner = runner_of(pipeline, amqp_url)
    await queues.fill("numbers", bodies([1, 2]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await until(lambda: len(pipeline.handling) == 2)
        runner.stop()
        # From the cancel on, what is published stays in the queue.
        await eventually(lambda: without_consumer(queues))
        await queues.fill("numbers", bodies([3]))
        pipeline.go.set()

    assert sorted(pipeline.steps[:2]) == ["handled 1", "handled 2"]
    assert pipeline.steps[2:] == [f"left with {QueueLength(1, 0)}, connected []"]


async def without_consumer(queues: Queues) -> bool:
    declared = await queues.channel.queue_declare("numbers", passive=True)
    return declared.consumer_count == 0
