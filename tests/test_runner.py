"""What a runner counts and waits for, on a real broker."""

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.errors import NotFound
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.outcome import Unavailable
from flow.pipeline import Pipeline
from flow.plumbing.dead import Selection, visit
from flow.ratelimit import RateLimit
from flow.runner import Runner, RunOptions
from flow.schema import IdsMessage
from flow.topology import DEAD_QUEUE, PARK_EXCHANGE
from tests.broker.queues import Queues, until
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio


Start = Callable[[], Runner]


BODY = b'{"schema": "proca:ids:1", "stage": "deliver", "actionId": 1, "actionPageId": 3, "orgId": 2}'


class Ids(Pipeline[IdsMessage]):
    """Delivers at once."""

    queue = "ids"
    dead_letter = "refuse"

    def handle_message(self, message: Message[IdsMessage]) -> IdsMessage:
        return message.body


@pytest.fixture
async def running(amqp_url: str) -> AsyncIterator[Start]:
    """Starts a runner that looks for its queue ten times a second; it is stopped at the end."""
    async with anyio.create_task_group() as tasks:
        started: list[Runner] = []

        def start() -> Runner:
            options = RunOptions(wait=True, slow_retry=0.1)
            started.append(Runner(Ids(), BrokerUrl.parse(amqp_url), options))
            tasks.start_soon(started[-1].run)
            return started[-1]

        yield start
        for runner in started:
            runner.stop()


async def hopeless(queues: Queues) -> None:
    """Make a queue with a message that nobody can read, and the park for it."""
    await queues.make("ids")
    await queues.make(DEAD_QUEUE)
    await queues.channel.exchange_declare(PARK_EXCHANGE, exchange_type="fanout", durable=True)
    await queues.channel.queue_bind(DEAD_QUEUE, PARK_EXCHANGE)
    await queues.fill("ids", [b"{"])


def published(metrics: PipelineMetrics) -> dict[str, int]:
    return {outcome: count for outcome, count in metrics.published.items() if count}


async def test_a_confirmed_copy_in_the_park_is_counted(queues: Queues, running: Start) -> None:
    await hopeless(queues)

    runner = running()
    await until(lambda: runner.account.parked == 1)

    assert published(runner.metrics) == {"confirmed": 1}


async def test_what_is_logged_of_a_parked_message_finds_it_in_the_park(
    queues: Queues, running: Start, amqp_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    await hopeless(queues)

    runner = running()
    await until(lambda: runner.account.parked == 1)
    look = await visit(BrokerUrl.parse(amqp_url), Selection(), lambda message, parked: None)

    [name] = look.found
    assert f" at attempt 1 as {name}: " in caplog.text


async def test_a_copy_that_no_queue_takes_is_counted_as_returned(queues: Queues, running: Start) -> None:
    await queues.make("ids")
    await queues.channel.exchange_declare(PARK_EXCHANGE, exchange_type="fanout", durable=True)
    await queues.fill("ids", [b"{"])

    runner = running()
    await until(lambda: published(runner.metrics))

    assert published(runner.metrics) == {"returned": 1}


async def test_a_park_that_is_not_there_is_counted_as_a_failure(queues: Queues, running: Start) -> None:
    await queues.make("ids")
    await queues.fill("ids", [b"{"])

    runner = running()
    await until(lambda: published(runner.metrics))

    assert published(runner.metrics) == {"failed": 1}


async def test_a_deleted_queue_is_counted_as_a_cancelled_consumer_and_waited_for(
    queues: Queues, running: Start
) -> None:
    await queues.make("ids")
    runner = running()
    await until(lambda: runner.unready() is None)

    await queues.channel.queue_delete("ids")
    await until(lambda: runner.metrics.reconnects["configuration"] > 0)
    await queues.make("ids")
    await until(lambda: runner.unready() is None)

    assert (runner.metrics.reconnects["cancelled"], runner.metrics.reconnects["lost"]) == (1, 0)


async def test_a_limit_too_slow_for_the_window_is_told(
    running: Start, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker would end the channel, again and again."""
    running().pipeline.rate_limit = RateLimit(calls=3, per=60.0)  # as its settings may say

    await until(lambda: "ids: the rate limit needs 2000 s" in caplog.text)
    assert caplog.text.count("the rate limit") == 1
    assert "for the 100 messages of a full prefetch, but after 1800 s a broker" in caplog.text
    assert "ends the channel: set prefetch to 45 or less" in caplog.text


async def test_waiting_starts_to_consume_once_the_queue_appears(queues: Queues, running: Start) -> None:
    runner = running()
    await until(lambda: runner.metrics.reconnects["configuration"] > 1)
    assert "ids" in runner.unready()

    await queues.make("ids")
    await queues.fill("ids", [b'{"actionId": 1}'])

    await until(lambda: runner.account.received == 1)
    assert runner.unready() is None


async def test_without_waiting_a_missing_queue_ends_the_run(amqp_url: str) -> None:
    runner = Runner(Ids(), BrokerUrl.parse(amqp_url), RunOptions(slow_retry=0.1))

    with pytest.RaisesGroup(NotFound, flatten_subgroups=True):
        await runner.run()


async def test_a_password_that_was_changed_is_read_again(
    queues: Queues, rabbitmq: RabbitMQControl, vhost: str, tmp_path: Path
) -> None:
    """F46: the session lives on; the next one is opened with what the file says by then."""
    await queues.make("ids")
    user, file = f"changing-{vhost}", tmp_path / "url"
    await rabbitmq.add_user(user, "old")
    await rabbitmq.permit(user, vhost, "^$", ".*", ".*")
    file.write_text(rabbitmq.url(vhost, user=user, password="old") + "\n")
    url = BrokerUrl.from_environment({"FLOW_AMQP_URL_FILE": str(file)})
    runner = Runner(Ids(), url, RunOptions(slow_retry=0.1))

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await until(lambda: runner.unready() is None)
            await rabbitmq.change_password(user, "new")
            await queues.fill("ids", [BODY])
            await until(lambda: runner.account.delivered == 1)
            await rabbitmq.close_all_connections()
            await until(lambda: runner.metrics.reconnects["configuration"])
            told = runner.unready()
            file.write_text(rabbitmq.url(vhost, user=user, password="new") + "\n")
            await until(lambda: runner.unready() is None)
            runner.stop()
    finally:
        await rabbitmq.delete_user(user)

    assert "refused the login of user" in str(told)


class Away(Ids):
    """Has a target that is down."""

    queue = "ids"

    def handle_message(self, message: Message[IdsMessage]) -> IdsMessage:
        raise Unavailable("closed", after=60.0)


@pytest.mark.parametrize("kind", ["classic", "quorum"])
async def test_what_a_drain_gives_back_is_not_delivered_here_again(
    queues: Queues, amqp_url: str, kind: str
) -> None:
    """Each time would count as a delivery, of which a quorum queue allows some only."""
    await queues.make("ids", **{"x-queue-type": kind})
    await queues.fill("ids", [BODY] * 20)
    counted = [await drained(Runner(Away(), BrokerUrl.parse(amqp_url)), 20) for _ in range(5)]

    assert counted == [(20, 20)] * 5


async def drained(runner: Runner, messages: int) -> tuple[int, int]:
    """Stop *runner* once it waits for its target; return how many it received and gave back."""
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await until(lambda: runner.account.received == messages and runner.metrics.circuit_open["default"])
        runner.stop()
    return runner.account.received, runner.account.returned
