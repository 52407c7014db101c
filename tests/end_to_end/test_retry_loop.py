"""The retry loop on a real broker: attempts are counted through many loops, on both kinds of queues."""

import itertools
from typing import Any

import anyio
import msgspec
import pytest

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.message import Message
from flow.outcome import Retry
from flow.pipeline import Pipeline
from flow.plumbing import Plumbing
from flow.plumbing.dead import Selection, visit
from flow.plumbing.setup import set_up, topology_for
from flow.retries import Retries
from flow.runner import Runner, RunOptions
from tests.broker.queues import eventually, until
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

DELAY = 0.3  # seconds


class Number(msgspec.Struct):
    """What the messages of these tests hold."""

    n: int


class Stubborn(Pipeline[Number]):
    """Fails for ever; notes each attempt and when it was."""

    queue = "acme.crm"
    retries = Retries(attempts=7)
    retry_delay = DELAY

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.attempts: list[tuple[int, int]] = []
        self.after: float | None = None
        self.times: list[float] = []

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        self.attempts.append((message.body.n, message.attempt))
        self.times.append(anyio.current_time())
        raise Retry("again", after=self.after)


async def run_until_parked(pipeline: Stubborn, url: BrokerUrl, count: int = 1) -> Runner:
    runner = Runner(pipeline, url, RunOptions(shutdown_timeout=10.0))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await until(lambda: runner.account.parked == count)
        runner.stop()
    return runner


@pytest.fixture
def url(amqp_url: str) -> BrokerUrl:
    return BrokerUrl.parse(amqp_url)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_attempts_are_counted_through_many_loops(url: BrokerUrl, kind: Any) -> None:
    await set_up(url, topology_for(["acme"], queue_type=kind, retry_delay=DELAY))
    publisher, pipeline = Publisher(url), Stubborn()
    await publisher.publish("deliver", "acme.system.action", b'{"n": 1}')

    runner = await run_until_parked(pipeline, url)
    parked: list[int] = []
    await visit(url, Selection(), lambda found, body: parked.append(found.attempts))

    assert pipeline.attempts == [(1, attempt) for attempt in range(1, 8)]
    assert (runner.account.retrying, runner.account.parked) == (6, 1)
    assert parked == [7]
    await publisher.close()


async def test_deaths_in_other_queues_are_no_attempts_of_this_one(url: BrokerUrl) -> None:
    """A message may have gone round the loop of another queue before it came here."""
    await set_up(url, topology_for(["acme", "other"], retry_delay=DELAY))
    publisher = Publisher(url)

    class Other(Stubborn):
        queue = "other.crm"
        retries = Retries(attempts=3)

    other = Other()
    await publisher.publish("deliver", "other.system.action", b'{"n": 2}')
    await run_until_parked(other, url)
    entries: list[object] = []

    class Looking(Stubborn):
        queue = "acme.crm"
        retries = Retries(attempts=2)

        async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
            entries.append(message.headers.get("x-death"))
            await super().handle_message(message)

    # Dead-lettered by the other queue once more, and taken to this one by its key.
    await publisher.publish("system.fail", "acme.crm", b'{"n": 3}')
    looking = Looking()
    await run_until_parked(looking, url)

    assert other.attempts == [(2, 1), (2, 2), (2, 3)]
    assert looking.attempts == [(3, 1), (3, 2)]
    assert all(isinstance(one, list) for one in entries)
    await publisher.close()


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_ten_times_over_it_comes_back_to_its_own_queue_and_to_no_other(
    url: BrokerUrl, kind: Any, rabbitmq: RabbitMQControl
) -> None:
    """The attempts of two messages are right while they go round side by side; no other queue gets any."""
    parts = ["crm", "confirm", "moderate", "sqs"]
    delay = 0.2
    async with Plumbing(url, queue_type=kind, retry_delay=delay) as plumbing:
        await plumbing.set_up_global_queues()
        await plumbing.set_up_organisations({"acme": parts, "other": parts})
        await plumbing.set_up_queues(["acme.crm.copy", "acme"])
        await plumbing.turn_off("acme", "sqs")
        await plumbing.push("deliver", "acme.custom.action", {"n": 1})
        await plumbing.push("deliver", "acme.custom.action", {"n": 2})

    class Ten(Stubborn):
        retries = Retries(attempts=11)
        retry_delay = delay

    pipeline = Ten()
    runner = Runner(pipeline, url, RunOptions(shutdown_timeout=10.0))
    seen: set[str] = set()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        while runner.account.parked < 2:
            lengths = await rabbitmq.queue_lengths(url.vhost)
            seen |= {name for name, length in lengths.items() if length.ready + length.unacknowledged}
        runner.stop()

    assert sorted(pipeline.attempts) == [(n, attempt) for n in (1, 2) for attempt in range(1, 12)]
    assert seen <= {"acme.crm", "system.retry", "system.dead"}
    assert (runner.account.retrying, runner.account.parked) == (20, 2)
    of_the_first = [at for (n, _), at in zip(pipeline.attempts, pipeline.times, strict=True) if n == 1]
    gaps = [later - sooner for sooner, later in itertools.pairwise(of_the_first)]
    assert min(gaps) >= delay

    async def parked_alone() -> bool:
        lengths = await rabbitmq.queue_lengths(url.vhost)
        return {name: length.ready for name, length in lengths.items() if length.ready} == {"system.dead": 2}

    await eventually(parked_alone)  # nobody reads the other queues: what had come there would still be there


@pytest.mark.parametrize("after", [0.05, 1.0])
async def test_after_is_the_least_time_whatever_the_loop_takes(url: BrokerUrl, after: float) -> None:
    await set_up(url, topology_for(["acme"], retry_delay=DELAY))
    publisher, pipeline = Publisher(url), Stubborn()
    pipeline.after = after
    await publisher.publish("deliver", "acme.system.action", b'{"n": 4}')

    await run_until_parked(pipeline, url)

    assert [attempt for _, attempt in pipeline.attempts] == list(range(1, 8))
    gaps = [later - sooner for sooner, later in zip(pipeline.times, pipeline.times[1:], strict=False)]
    assert min(gaps) >= after
    await publisher.close()
