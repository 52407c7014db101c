"""Several queues on a real broker: they come and go while running, and one that is wrong touches no other."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import msgspec
import pytest
from pamqp.commands import Basic, Channel, Connection, Queue
from sqlalchemy import select

from flow.broker.line import Line
from flow.broker.url import BrokerUrl
from flow.errors import ConfigError, ConnectionLost, NotFound
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.outcome import Unavailable
from flow.pipeline import Pipeline
from flow.records.database import Database
from flow.records.tables import ledger
from flow.runner import Runner, RunOptions
from flow.stages.engine import Engine
from flow.subscription import Subscription
from tests.broker.peer import Peer
from tests.broker.queues import Queues, connected, eventually, until
from tests.broker.wire import frame
from tests.nodes.rabbitmq_control import QueueLength, RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


class Number(msgspec.Struct):
    """What the messages of these tests hold."""

    n: int


class Changing(Pipeline[Number]):
    """Consumes the queues that the test sends."""

    dead_letter = "assume"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.send, self.lists = anyio.create_memory_object_stream[list[str]](10)
        self.seen: list[tuple[str, int]] = []
        self.down = False
        self.go = anyio.Event()
        self.go.set()

    async def queues(self) -> AsyncIterator[Sequence[str]]:
        async with self.lists:
            async for names in self.lists:
                yield names

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        if self.down:
            raise Unavailable("closed")
        await self.go.wait()
        self.seen.append((message.queue, message.body.n))


@pytest.fixture
async def queues(amqp_url: str) -> AsyncIterator[Queues]:
    connection = await connected(amqp_url)
    made = Queues(await connection.channel())
    for name in ("a", "b"):
        await made.make(name)
    yield made
    with anyio.move_on_after(3):
        await connection.close()


@asynccontextmanager
async def running(pipeline: Changing, amqp_url: str, **options: Any) -> AsyncIterator[Runner]:
    runner = Runner(pipeline, BrokerUrl.parse(amqp_url), RunOptions(shutdown_timeout=10.0, **options))
    async with pipeline.send, anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        yield runner
        runner.stop()


def body(n: int) -> bytes:
    return msgspec.json.encode(Number(n))


async def test_queues_come_and_go_while_running(queues: Queues, amqp_url: str) -> None:
    pipeline = Changing()
    for name in ("a", "b"):
        await queues.fill(name, [body(1)])

    async with running(pipeline, amqp_url) as runner:
        await pipeline.send.send(["a"])
        await until(lambda: pipeline.seen == [("a", 1)])
        await pipeline.send.send(["b"])
        await until(lambda: ("b", 1) in pipeline.seen)
        await until(lambda: runner.metrics.consumer_up == {"b": True})
        await queues.fill("a", [body(2)])
        await queues.fill("b", [body(2)])
        await until(lambda: ("b", 2) in pipeline.seen)

    assert await queues.drain("a") == [body(2)]
    assert runner.account.delivered == runner.account.received == 3
    assert runner.metrics.connected is False


async def test_a_deleted_queue_touches_no_other_and_comes_back(queues: Queues, amqp_url: str) -> None:
    pipeline = Changing()

    async with running(pipeline, amqp_url) as runner:
        await pipeline.send.send(["a", "b"])
        await until(lambda: runner.unready() is None)
        await queues.channel.queue_delete("b")
        await until(lambda: runner.unready() is not None)
        told = str(runner.unready())
        await queues.fill("a", [body(1)])
        await until(lambda: ("a", 1) in pipeline.seen)

    assert told.startswith("changing: 1 of 2 queues wait: The")
    assert runner.metrics.reconnects["cancelled"] == 1
    assert runner.metrics.reconnects["lost"] == 0
    assert runner.account.delivered == 1


async def test_a_queue_that_is_missing_at_start_touches_no_other(queues: Queues, amqp_url: str) -> None:
    pipeline = Changing()
    await queues.fill("a", [body(1)])

    async with running(pipeline, amqp_url) as runner:
        await pipeline.send.send(["missing", "a"])
        await until(lambda: pipeline.seen == [("a", 1)])
        told = str(runner.unready())

    assert "1 of 2 queues wait: The queue missing does not exist" in told


@pytest.fixture
def one_is_probed(rabbitmq: RabbitMQControl, vhost: str) -> Callable[[], Awaitable[bool]]:
    """Tells whether one message of 50 in the queue a is out, and no more."""

    async def probed() -> bool:
        lengths = await rabbitmq.queue_lengths(vhost)
        return lengths["a"] == QueueLength(ready=49, unacknowledged=1)

    return probed


async def test_a_queue_that_is_lost_while_it_rests_is_still_probed_with_one_message(
    queues: Queues, amqp_url: str, one_is_probed: Callable[[], Awaitable[bool]]
) -> None:
    """F41: so it is when the whole session is lost."""
    pipeline = Changing()
    pipeline.down = True
    await queues.fill("a", [body(n) for n in range(50)])
    prefetches: list[int] = []

    async with running(pipeline, amqp_url, longest_hold=0.5) as runner:

        def line() -> Line | None:
            return None if runner._session is None else runner._session.lines.get("a")

        async def consumed_again(old: Line | None) -> None:
            await until(lambda: line() not in (None, old))
            new = line()
            assert new is not None
            prefetches.append(new.consumer.prefetch)

        await pipeline.send.send(["a", "b"])
        await eventually(one_is_probed)
        first = line()
        assert first is not None
        first._fail(ConnectionLost("The broker closed the channel"))
        await consumed_again(first)
        second, session = line(), runner._session
        assert session is not None
        session.abort()
        await consumed_again(second)
        pipeline.down = False
        await until(lambda: len(pipeline.seen) == 50)

    assert prefetches == [1, 1]
    assert runner.account.open == 0


class Slow(Peer):
    """Answers for the queue `late` only when told."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()
        self.slow = True

    def _answer(self, method: Any) -> Any:
        if self.slow and isinstance(method, Queue.Declare) and method.queue == "late":
            self.asked.set()
            return None
        return super()._answer(method)


async def test_a_stop_waits_for_a_queue_that_is_being_added() -> None:
    """Given up half-way, the connection would be dropped, and with it what was acknowledged a moment ago."""
    pipeline = Changing()

    async with Slow() as peer:
        async with running(pipeline, peer.url.partition("?")[0]) as runner:
            await pipeline.send.send(["a"])
            await until(lambda: runner.unready() is None)
            await pipeline.send.send(["a", "late"])
            await peer.asked.wait()
            runner.stop()
            await anyio.lowlevel.checkpoint()
            channel = next(number for number, one in peer.received if getattr(one, "queue", "") == "late")
            peer.send(frame(Queue.DeclareOk("late", 0, 0), channel))

        assert len(peer.methods(Basic.Cancel)) == 2
        assert len(peer.methods(Connection.Close)) == 1, "closed in order"


class Wide(Changing):
    """Would have 700 messages of one queue."""

    prefetch = 700


def windows(runner: Runner) -> dict[str, int]:
    lines = {} if runner._session is None else runner._session.lines
    return {queue: line.consumer.prefetch for queue, line in lines.items()}


async def test_the_window_of_a_queue_follows_the_number_of_queues(queues: Queues, amqp_url: str) -> None:
    """4,000 messages are shared; who has half to twice its share keeps what it has."""
    names = [f"n{number}" for number in range(100)]
    for name in names:
        await queues.make(name)
    pipeline = Wide()

    async with running(pipeline, amqp_url) as runner:
        await pipeline.send.send(["a"])
        await until(lambda: windows(runner) == {"a": 700})
        await pipeline.send.send(["a", *names[:9]])
        await until(lambda: windows(runner) == {"a": 700, **dict.fromkeys(names[:9], 400)})
        await pipeline.send.send(["a", *names[:99]])
        await until(lambda: windows(runner) == dict.fromkeys(["a", *names[:99]], 40))
        await queues.fill("n98", [body(1)])
        await until(lambda: pipeline.seen == [("n98", 1)])
        await pipeline.send.send(["a", "n98"])
        await until(lambda: windows(runner) == {"a": 700, "n98": 700})
        await queues.fill("n98", [body(2)])
        await until(lambda: pipeline.seen == [("n98", 1), ("n98", 2)])

    assert runner.account.delivered == runner.account.received == 2
    assert runner.metrics.reconnects == dict.fromkeys(runner.metrics.reconnects, 0)


class One(Pipeline[Number]):
    """Consumes one queue for ever."""

    queue = "a"
    dead_letter = "assume"
    down = True

    async def handle_message(self, message: Message[Number]) -> None:  # type: ignore[override]
        if self.down:
            raise Unavailable("closed")


async def test_one_queue_that_cannot_be_consumed_after_a_rest_is_told_and_waited_for(
    queues: Queues, rabbitmq: RabbitMQControl, vhost: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Never alive, not consuming and silent."""
    pipeline = One()
    await queues.fill("a", [body(1)])
    user = f"reader-{vhost}"
    await rabbitmq.add_user(user, "p")
    await rabbitmq.permit(user, vhost, "^$", ".*", ".*")
    url = BrokerUrl.parse(rabbitmq.url(vhost, user=user, password="p"))
    runner = Runner(pipeline, url, RunOptions(longest_hold=1.0, slow_retry=0.2))

    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            await until(lambda: runner.account.received == 1)
            await rabbitmq.permit(user, vhost, "^$", ".*", "^$")
            await until(lambda: runner.metrics.reconnects["configuration"] > 0)
            told = str(runner.unready())
            await rabbitmq.permit(user, vhost, "^$", ".*", ".*")
            pipeline.down = False
            await until(lambda: runner.account.delivered == 1)
            runner.stop()
    finally:
        await rabbitmq.delete_user(user)

    sentence = f"User {user} may not read the queue a"
    assert sentence in told
    assert f"lost its session and opens a new one: {sentence}" in caplog.text


class Deaf(Peer):
    """Hears no request to stop consuming."""

    def _answer(self, method: Any) -> Any:
        return None if isinstance(method, Basic.Cancel) else super()._answer(method)


async def test_a_broker_that_does_not_stop_delivering_does_not_hold_up_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is asked of it has an end, else the drain never begins."""
    monkeypatch.setattr("flow.broker.line.REPLY", 0.3)
    pipeline = Changing()

    async with Deaf() as peer:
        with anyio.fail_after(8):  # seconds; less than the silence after which a connection is given up
            async with running(pipeline, peer.url.partition("?")[0]) as runner:
                await pipeline.send.send(["a", "b"])
                await until(lambda: runner.unready() is None)
                await pipeline.send.send(["a"])
                await until(lambda: peer.methods(Basic.Cancel))
                runner.stop()
                await runner.ended.wait()


@pytest.mark.parametrize("running_before", [False, True], ids=["at the start", "later"])
async def test_the_first_queue_is_lost_before_the_second_is_there(running_before: bool) -> None:
    """F15: it is no reason to begin anew with all of them."""
    pipeline = Changing()

    async with Slow() as peer:
        async with running(pipeline, peer.url.partition("?")[0]) as runner:
            if running_before:
                await pipeline.send.send(["a"])
                await until(lambda: runner.unready() is None)
            await pipeline.send.send(["a", "late"])
            await peer.asked.wait()
            await until(lambda: peer.methods(Basic.Consume))
            channel, consumed = next(one for one in peer.received if isinstance(one[1], Basic.Consume))
            peer.send(frame(Basic.Cancel(consumed.consumer_tag), channel))
            await until(lambda: runner.metrics.reconnects["cancelled"] == 1)
            channel = next(number for number, one in peer.received if getattr(one, "queue", "") == "late")
            peer.send(frame(Queue.DeclareOk("late", 0, 0), channel))
            await until(lambda: runner.metrics.consumer_up == {"a": True, "late": True})

        assert len(peer.connections) == 1


@pytest.mark.parametrize("running_before", [False, True], ids=["at the start", "later"])
async def test_without_a_second_queue_the_loss_of_the_first_ends_the_session(running_before: bool) -> None:
    pipeline = Changing()

    async with Slow() as peer:
        async with running(pipeline, peer.url.partition("?")[0]) as runner:
            if running_before:
                await pipeline.send.send(["a"])
                await until(lambda: runner.unready() is None)
            await pipeline.send.send(["a", "late"])
            await peer.asked.wait()
            await until(lambda: peer.methods(Basic.Consume))
            channel, consumed = next(one for one in peer.received if isinstance(one[1], Basic.Consume))
            peer.send(frame(Basic.Cancel(consumed.consumer_tag), channel))
            await until(lambda: runner.metrics.reconnects["cancelled"] == 1)
            channel = next(number for number, one in peer.received if getattr(one, "queue", "") == "late")
            peer.slow = False
            peer.send(frame(Channel.Close(405, "locked by another consumer", 50, 10), channel))
            await until(lambda: len(peer.connections) == 2)
            await until(lambda: runner.metrics.consumer_up == {"a": True, "late": True})

        assert runner.metrics.reconnects["lost"] == 0, "it is left for this, not for its silence"


async def test_the_age_of_the_oldest_delivery_is_told_until_it_is_settled(
    queues: Queues, amqp_url: str
) -> None:
    """M08: whether it waits or is being worked, and of a queue that is left as well."""
    pipeline = Changing()
    pipeline.go = anyio.Event()
    await queues.fill("a", [body(1)])

    async with running(pipeline, amqp_url) as runner:
        await pipeline.send.send(["a", "b"])
        await until(lambda: runner.account.received == 1)
        await queues.fill("b", [body(2)])
        await until(lambda: runner.account.received == 2)
        await pipeline.send.send(["b"])
        await until(lambda: runner.metrics.consumer_up == {"b": True})
        session = runner._session
        assert session is not None
        first = min(message.received_at for message in session.outstanding() if message.queue == "a")
        least = anyio.current_time() - first
        age = runner.metrics.oldest_seconds()
        most = anyio.current_time() - first
        pipeline.go.set()
        await until(lambda: not session.outstanding())
        settled = runner.metrics.oldest_seconds()

    assert least <= age <= most
    assert settled == 0.0


async def test_what_is_lost_of_a_retired_queue_is_no_fault(queues: Queues, amqp_url: str) -> None:
    """Nobody wants it any more, or it is consumed anew."""
    pipeline = Changing()
    pipeline.go = anyio.Event()
    await queues.fill("b", [body(1)])

    async with running(pipeline, amqp_url) as runner:
        await pipeline.send.send(["a", "b"])
        await until(lambda: runner.account.received == 1)
        await pipeline.send.send(["a"])
        await until(lambda: runner.metrics.consumer_up == {"a": True})
        session = runner._session
        assert session is not None
        (retired,) = session._retired
        retired._fail(ConnectionLost("The broker closed the channel"))
        told = runner.unready()
        pipeline.go.set()

    assert told is None
    assert runner.account.stale == 1


@pytest.mark.parametrize("running_still", [False, True])
async def test_what_was_done_of_a_queue_that_is_left_answers_nothing_any_more(
    queues: Queues, amqp_url: str, tmp_path: Path, running_still: bool
) -> None:
    """The broker knows of it once it has closed the channel, also at the end of a drain."""
    pipeline = Changing()
    pipeline.go = anyio.Event()
    await queues.fill("b", [body(n) for n in range(5)])

    async with Database.opened(f"sqlite:///{tmp_path / 'records.db'}") as database:
        async with running(pipeline, amqp_url, database=database) as runner:
            await pipeline.send.send(["a", "b"])
            await until(lambda: runner.account.received == 5)
            await pipeline.send.send(["a"])
            await until(lambda: runner.metrics.consumer_up == {"a": True})
            session = runner._session
            assert session is not None
            if not running_still:
                pipeline.go.set()
                await until(lambda: not session._retired)
            runner.stop()
            pipeline.go.set()
        async with database.reading() as connection:
            unsettled = (await connection.scalars(select(ledger.c.unsettled))).all()

    assert runner.account.delivered == 5
    assert unsettled == [False] * 5


async def test_without_any_queue_the_set_up_is_wrong(amqp_url: str) -> None:
    pipeline = Changing()

    with pytest.RaisesGroup(NotFound, flatten_subgroups=True):
        async with running(pipeline, amqp_url):
            await pipeline.send.send(["missing", "absent"])
            await anyio.sleep_forever()


async def test_what_waits_too_long_for_its_target_goes_back_and_one_message_probes(
    queues: Queues, amqp_url: str, one_is_probed: Callable[[], Awaitable[bool]]
) -> None:
    """F41: no attempt is spent, the broker keeps the rest, and afterwards everything is delivered."""
    pipeline = Changing()
    pipeline.down = True
    await queues.fill("a", [body(n) for n in range(50)])

    async with running(pipeline, amqp_url, longest_hold=0.5) as runner:
        await pipeline.send.send(["a", "b"])
        await eventually(one_is_probed)
        await queues.fill("b", [body(99)])
        pipeline.down = False
        await until(lambda: len(pipeline.seen) == 51)

    account = runner.account
    assert sorted(n for _, n in pipeline.seen) == [*range(50), 99]
    assert (account.delivered, account.retrying, account.parked, account.open) == (51, 0, 0, 0)
    assert runner.metrics.accounts["a"].returned >= 49


class Listing(Pipeline[Number]):
    """Yields what the test gives it."""

    def __init__(self, lists: Sequence[Any]) -> None:
        super().__init__()
        self.lists = lists

    async def queues(self) -> AsyncIterator[Sequence[str]]:
        for names in self.lists:
            yield names

    async def handle_message(self, message: Message[Number]) -> Number:
        return message.body


async def followed(*lists: object) -> list[str]:
    """Return the queues that are wanted after *lists*."""

    async def park(message: Message[Any], reason: str) -> None:
        raise NotImplementedError

    pipeline = Listing(lists)
    engine = Engine(pipeline, PipelineMetrics(pipeline.name), park)
    subscription = Subscription(pipeline, engine, longest_hold=600.0)
    await subscription.follow()
    return subscription.wanted


@pytest.mark.parametrize("broken", [None, "a", b"a", [1], [""], ["\u00e9" * 200]])
async def test_a_list_that_names_no_queues_is_refused(broken: object) -> None:
    with pytest.raises(ConfigError, match=r"Listing\.queues must yield lists of names of queues"):
        await followed(broken)


async def test_queues_that_end_without_a_list_are_refused() -> None:
    """Else nothing would ever be consumed, and nothing said."""
    with pytest.raises(ConfigError, match=r"Listing\.queues ended before it yielded a list"):
        await followed()


async def test_a_list_may_be_made_while_it_is_read() -> None:
    assert await followed(iter(["a", "b", "a"])) == ["a", "b"]
