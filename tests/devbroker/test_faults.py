"""Faults on purpose: each does what it says, once, at its moment."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest
from pamqp.commands import Basic, Channel, Connection
from pamqp.header import ContentHeader

from flow.devbroker.faults import IN_WORDS, Moment
from flow.devbroker.server import DevBroker
from tests.devbroker.client import Client, Closed

pytestmark = pytest.mark.anyio


@pytest.fixture
async def dev() -> AsyncIterator[DevBroker]:
    async with DevBroker() as broker:
        yield broker


@pytest.fixture
async def client(dev: DevBroker) -> AsyncIterator[Client]:
    async with await Client.connect(dev.url()) as client:
        await client.declare("q")
        await client.confirm()
        yield client


async def held(client: Client, count: int) -> list[int]:
    """Put *count* messages into q and have them delivered, unsettled; return their tags."""
    for number in range(count):
        await client.confirmed(b"%d" % number, "q")
    found = [await client.take_held("q") for _ in range(count)]
    return [content.method.delivery_tag for content in found]


@pytest.mark.parametrize(("when", "left"), [("before ack", 2), ("after ack", 1)])
async def test_a_connection_drops_before_or_after_an_ack(
    dev: DevBroker, client: Client, when: Moment, left: int
) -> None:
    tags = await held(client, 3)
    dev.faults.drop_connection(when, 2)
    await client.send(Basic.Ack(tags[0]), Basic.Ack(tags[1]), Basic.Ack(tags[2]))

    with pytest.raises(Closed) as ended:
        await client.receive()

    assert ended.value.code == 0
    assert dev.lengths() == {"q": left}
    assert dev.faults.struck == [f"connection dropped {IN_WORDS[when]}"]


async def test_a_connection_closes_with_a_code(dev: DevBroker, client: Client) -> None:
    dev.faults.close_connection("publish", 2, 320, "maintenance")
    await client.confirmed(b"1", "q")
    await client.publish(b"2", "q")

    with pytest.raises(Closed) as ended:
        await client.receive()

    assert (ended.value.code, ended.value.text) == (320, "CONNECTION_FORCED - maintenance")
    assert dev.lengths() == {"q": 2}


async def test_a_channel_closes_with_a_code(dev: DevBroker, client: Client) -> None:
    (tag,) = await held(client, 1)
    dev.faults.close_channel("after ack", 1, 406, "timeout")
    await client.send(Basic.Ack(tag))

    with pytest.raises(Closed) as ended:
        await client.receive()

    assert (ended.value.code, ended.value.text) == (406, "PRECONDITION_FAILED - timeout")
    await client.open(1)
    assert await client.length("q") == 0


async def test_a_connection_drops_at_a_delivery(dev: DevBroker, client: Client) -> None:
    async with await Client.connect(dev.url()) as consumer:
        await consumer.consume("q")
        dev.faults.drop_connection("delivery", 2)
        await client.confirmed(b"1", "q")
        await client.confirmed(b"2", "q")
        found = [await consumer.receive()]

        with pytest.raises(Closed):
            found += [await consumer.receive() for _ in range(2)]

    await client.reach("q", 2)


async def test_a_lost_ack_brings_the_message_again(dev: DevBroker, client: Client) -> None:
    await client.consume("q")
    await client.publish(b"1", "q")
    first = [await client.receive() for _ in range(2)]
    dev.faults.lose_ack()

    await client.send(Basic.Ack(1))

    again = await client.receive()
    assert {getattr(content, "body", None) for content in first} == {b"1", None}
    assert (again.body, again.method.redelivered, again.method.delivery_tag) == (b"1", True, 2)


async def test_a_delivery_is_duplicated_and_marked_redelivered(dev: DevBroker, client: Client) -> None:
    told: list[tuple[bytes, str]] = []
    dev.watch(lambda _, message, how: told.append((message.body, how)))
    dev.faults.duplicate_delivery(2)
    for body in (b"1", b"2", b"3"):
        await client.confirmed(body, "q")

    async with await Client.connect(dev.url()) as consumer:
        await consumer.call(Basic.Qos(prefetch_count=1))
        await consumer.consume("q")
        found = [await consumer.receive()]
        await consumer.send(Basic.Ack(1))
        found += [await consumer.receive() for _ in range(2)]
        await consumer.send(Basic.Ack(3, multiple=True))
        found.append(await consumer.receive())
        await consumer.send(Basic.Ack(4))
        await client.reach("q", 0)

    seen = [(one.body, one.method.redelivered, one.method.delivery_tag) for one in found]
    assert seen == [(b"1", False, 1), (b"2", False, 2), (b"2", True, 3), (b"3", False, 4)]
    assert dev.faults.struck == ["a delivery duplicated"]
    assert told[:3] == [(b"1", "ack"), (b"2", "duplicate"), (b"2", "ack")]
    assert dev.lengths() == {"q": 0}


async def test_a_watcher_is_told_what_is_settled_and_a_queue_shows_what_it_holds(
    dev: DevBroker, client: Client
) -> None:
    told: list[tuple[str, bytes, str]] = []
    dev.watch(lambda queue, message, how: told.append((queue, message.body, how)))
    for body in (b"1", b"2", b"3", b"4"):
        await client.confirmed(body, "q")

    async with await Client.connect(dev.url()) as other:
        for _ in range(4):
            await other.get("q", no_ack=False)
        await other.send(Basic.Ack(1), Basic.Reject(2, False), Basic.Nack(3, requeue=True))
        await other.call(Channel.Flow(True))
    await client.reach("q", 2)

    assert told == [("q", b"1", "ack"), ("q", b"2", "reject"), ("q", b"3", "requeue"), ("q", b"4", "return")]
    assert [message.body for message in dev.messages("q")] == [b"3", b"4"]
    assert [message.key for message in dev.messages("q")] == ["q", "q"]


async def test_consumers_are_cancelled(dev: DevBroker, client: Client) -> None:
    await client.consume("q", "t")

    dev.faults.cancel_consumers("q")

    cancel = await client.receive()
    assert (cancel.name, cancel.consumer_tag) == ("Basic.Cancel", "t")
    await client.publish(b"1", "q")
    assert isinstance(await client.receive(), Basic.Ack)
    assert dev.lengths() == {"q": 1}


async def test_confirms_are_withheld_and_never_come(dev: DevBroker, client: Client) -> None:
    dev.faults.confirms_withheld = True
    await client.publish(b"1", "q")
    assert await client.nothing()
    dev.faults.clear()

    answer = await client.confirmed(b"2", "q")

    assert (answer.delivery_tag, answer.multiple) == (2, False)
    assert dev.lengths() == {"q": 2}


async def test_confirms_are_late(dev: DevBroker, client: Client) -> None:
    dev.faults.confirm_delay = 5
    for number in range(3):
        await client.publish(b"%d" % number, "q")
    assert await client.nothing()

    dev.clock.advance(4)
    assert await client.nothing()
    dev.clock.advance(2)

    assert await confirmed(client, 3) == ["Ack", "Ack", "Ack"]


async def confirmed(client: Client, count: int) -> list[str]:
    """Receive the confirms of *count* messages, of which none was confirmed; return them in order."""
    found = [""] * count
    while not all(found):
        answer = await client.receive()
        first = found.index("") if answer.multiple else answer.delivery_tag - 1
        for place in range(first, answer.delivery_tag):
            assert not found[place]
            found[place] = answer.name.removeprefix("Basic.")
    return found


async def test_each_confirm_is_as_late_as_the_fault_says(dev: DevBroker, client: Client) -> None:
    dev.faults.confirm_delay = 60
    await client.publish(b"1", "q")
    assert await client.nothing()
    dev.clock.advance(40)
    await client.publish(b"2", "q")
    assert await client.nothing()

    dev.clock.advance(30)

    assert (await client.receive()).delivery_tag == 1
    assert await client.nothing()
    dev.clock.advance(30)
    assert (await client.receive()).delivery_tag == 2
    assert not dev.faults._late._waiting


async def test_late_confirms_come_when_the_faults_are_cleared(dev: DevBroker, client: Client) -> None:
    dev.faults.confirm_delay = 60
    await client.publish(b"1", "q")
    assert await client.nothing()

    dev.faults.clear()
    await client.publish(b"2", "q")

    assert await confirmed(client, 2) == ["Ack", "Ack"]
    dev.clock.advance(61)
    assert await client.nothing()


async def test_a_confirm_that_is_late_lets_others_go_first(dev: DevBroker, client: Client) -> None:
    dev.faults.confirm_delay = 60
    await client.publish(b"1", "q")
    assert await client.nothing()
    dev.faults.confirm_delay = 0

    await client.send(*message("q"), *message("q"))
    answers = [await client.receive() for _ in range(2)]
    dev.clock.advance(61)
    answers.append(await client.receive())

    assert [(answer.delivery_tag, answer.multiple) for answer in answers] == [
        (2, False),
        (3, False),
        (1, False),
    ]


async def test_a_late_confirm_does_not_come_to_a_channel_that_is_new(dev: DevBroker, client: Client) -> None:
    dev.faults.confirm_delay = 60
    await client.publish(b"1", "q")
    assert await client.nothing()
    await client.call(Channel.Close(200, "", 0, 0))
    await client.open(1)

    dev.clock.advance(61)

    assert await client.nothing()


@pytest.mark.parametrize("fault", ["confirm_delay", "confirms_withheld"])
async def test_a_refusal_by_a_queue_waits_like_any_confirm(
    dev: DevBroker, client: Client, fault: str
) -> None:
    await client.declare("full", arguments={"x-max-length": 0, "x-overflow": "reject-publish"})
    setattr(dev.faults, fault, 5)

    await client.send(*message("q"), *message("full"), *message("q"), *message("q"))
    assert await client.nothing()
    dev.clock.advance(6)

    if fault == "confirm_delay":
        assert await confirmed(client, 4) == ["Ack", "Nack", "Ack", "Ack"]
    dev.faults.clear()
    assert await client.nothing()
    if fault == "confirms_withheld":
        answer = await client.confirmed(b"", "full")
        assert (answer.name, answer.delivery_tag, answer.multiple) == ("Basic.Nack", 5, False)


def message(key: str) -> tuple[Any, ...]:
    return Basic.Publish(routing_key=key), ContentHeader(0, 0, Basic.Properties())


async def test_a_blocked_broker_says_so_and_reads_no_publishes(dev: DevBroker, client: Client) -> None:
    await client.confirmed(b"1", "q")

    dev.faults.block("low on disk")

    blocked = await client.receive(0)
    assert isinstance(blocked, Connection.Blocked)
    assert blocked.reason == "low on disk"
    await client.publish(b"2", "q")
    async with await Client.connect(dev.url()) as other:
        assert isinstance(await other.receive(0), Connection.Blocked)
        assert await other.length("q") == 1
    dev.faults.unblock()
    assert isinstance(await client.receive(0), Connection.Unblocked)
    assert isinstance(await client.receive(), Basic.Ack)


async def test_a_broker_that_does_not_read_answers_nothing_until_it_does(
    dev: DevBroker, client: Client
) -> None:
    dev.faults.stop_reading()
    await client.send(Basic.Qos())
    with anyio.move_on_after(0.1) as waited:
        await client.receive()

    dev.faults.read_again()

    assert waited.cancelled_caught
    assert isinstance(await client.receive(), Basic.QosOk)


async def test_deliveries_come_in_tiny_segments(dev: DevBroker, client: Client) -> None:
    await client.confirmed(b"m" * 50, "q")
    dev.faults.segment = 3

    got = await client.get("q")

    assert got is not None
    assert got.body == b"m" * 50


async def test_logins_are_refused_as_often_as_asked(dev: DevBroker) -> None:
    dev.faults.refuse_logins(2)
    codes = []
    for _ in range(2):
        with pytest.raises(Closed) as refused:
            await Client.connect(dev.url())
        codes.append(refused.value.code)

    async with await Client.connect(dev.url()):
        pass

    assert codes == [403, 403]


async def test_logins_are_not_refused_when_the_faults_are_cleared(dev: DevBroker) -> None:
    dev.faults.refuse_logins(1)

    dev.faults.clear()

    async with await Client.connect(dev.url()) as client:
        assert await client.nothing()


async def test_all_connections_close_at_once(dev: DevBroker, client: Client) -> None:
    dev.faults.close_connections(320, "by the operator")

    with pytest.raises(Closed) as ended:
        await client.receive()

    assert ended.value.code == 320


def test_a_seed_makes_a_schedule_repeatable() -> None:
    schedules = [DevBroker().faults.schedule(seed, number=8) for seed in (1, 1, 2)]

    assert schedules[0] == schedules[1]
    assert schedules[0] != schedules[2]


def test_schedules_draw_whatever_costs_no_real_time() -> None:
    kinds = {
        text.rsplit(maxsplit=1)[0]
        for seed in range(40)
        for text in DevBroker().faults.schedule(seed, number=10)
    }

    assert kinds == {
        "connection dropped before an ack",
        "connection dropped after an ack",
        "connection dropped at a delivery",
        "connection closed with 320 before an ack",
        "connection closed with 320 after an ack",
        "channel closed with 406 before an ack",
        "channel closed with 406 after an ack",
        "an ack lost",
        "a delivery duplicated",
        "consumers cancelled at a delivery",
        "the clock moved on by 60 s before an ack",
        "the clock moved on by 60 s after an ack",
        "confirms late at a publish",
        "publishers blocked at a publish",
        "tiny segments at a delivery",
    }


def scheduled(dev: DevBroker, words: str) -> None:
    """Set the fault of these *words* at its next moment, by a seed that draws it."""
    for seed in range(1000):
        if dev.faults.schedule(seed, number=1, within=1)[0].startswith(words):
            return
        dev.faults.clear()
    raise AssertionError(f"no seed draws {words}")


async def test_scheduled_late_confirms_come_when_the_clock_has_moved(dev: DevBroker, client: Client) -> None:
    scheduled(dev, "confirms late")
    await client.publish(b"1", "q")
    assert await client.nothing()

    dev.clock.advance(6)
    late = await client.receive()
    at_once = await client.confirmed(b"2", "q")

    assert (late.name, late.delivery_tag) == ("Basic.Ack", 1)
    assert at_once.delivery_tag == 2
    assert dev.faults.struck == ["confirms late at a publish"]


async def test_scheduled_blocking_ends_when_the_clock_has_moved(dev: DevBroker, client: Client) -> None:
    scheduled(dev, "publishers blocked")

    await client.publish(b"1", "q")
    blocked = await client.receive(0)
    dev.clock.advance(6)
    unblocked = await client.receive(0)
    confirm = await client.receive()

    assert [one.name for one in (blocked, unblocked)] == ["Connection.Blocked", "Connection.Unblocked"]
    assert confirm.name == "Basic.Ack"


async def test_scheduled_segments_are_tiny_for_a_while(dev: DevBroker, client: Client) -> None:
    scheduled(dev, "tiny segments")
    await client.consume("q")

    await client.publish(b"m" * 50, "q")
    came = [await client.receive() for _ in range(2)]
    during = dev.faults.segment
    dev.clock.advance(6)

    assert {getattr(one, "body", None) for one in came} == {b"m" * 50, None}
    assert (during, dev.faults.segment) == (7, None)


async def test_scheduled_cancelling_comes_after_the_delivery(dev: DevBroker, client: Client) -> None:
    scheduled(dev, "consumers cancelled")
    async with await Client.connect(dev.url()) as consumer:
        await consumer.consume("q", "t")
        await client.confirmed(b"1", "q")
        content, cancel = await consumer.receive(), await consumer.receive()

        await client.confirmed(b"2", "q")

        assert content.body == b"1"
        assert (cancel.name, cancel.consumer_tag) == ("Basic.Cancel", "t")
        assert dev.lengths() == {"q": 1}


async def test_a_scheduled_jump_of_the_clock_lets_messages_grow_old(dev: DevBroker, client: Client) -> None:
    await client.declare("short", arguments={"x-message-ttl": 59_000})
    await client.confirmed(b"old", "short")
    (tag,) = await held(client, 1)
    scheduled(dev, "the clock moved on")

    await client.send(Basic.Ack(tag))

    await client.reach("short", 0)


async def test_a_schedule_strikes_and_loses_nothing(dev: DevBroker, client: Client) -> None:
    """A consumer that comes back after each fault gets every message; the same seed, the same faults."""
    for number in range(40):
        await client.confirmed(b"%d" % number, "q")
    dev.faults.schedule(7, number=12, within=20)
    seen: list[bytes] = []

    while dev.lengths()["q"]:
        await consume_some(dev, seen)

    assert set(seen) == {b"%d" % number for number in range(40)}
    assert dev.faults.struck


async def consume_some(dev: DevBroker, seen: list[bytes]) -> None:
    """Take and acknowledge until the queue is empty or a fault strikes."""
    try:
        async with await Client.connect(dev.url()) as consumer:
            while (content := await consumer.get("q", no_ack=False)) is not None:
                seen.append(content.body)
                await consumer.send(Basic.Ack(content.method.delivery_tag))
    except (Closed, OSError, anyio.BrokenResourceError):
        return


@pytest.mark.parametrize("call", ["drop_connection", "close_channel"])
def test_a_fault_needs_a_moment_that_can_be(call: str) -> None:
    faults: Any = DevBroker().faults

    with pytest.raises(ValueError, match="counted from 1"):
        getattr(faults, call)("after ack", 0)


def test_a_channel_cannot_be_closed_at_a_delivery() -> None:
    with pytest.raises(ValueError, match="before ack, after ack or at a publish"):
        DevBroker().faults.close_channel("delivery")


async def test_the_clock_rings_on_the_way(dev: DevBroker, client: Client) -> None:
    """Two hops of 30 s each pass in one step of the clock, each at its own time."""
    await client.declare("second", arguments={"x-message-ttl": 30_000, **to("end")})
    await client.declare("first", arguments={"x-message-ttl": 30_000, **to("second")})
    await client.declare("end")
    await client.confirmed(b"m", "first")

    dev.clock.advance(59)
    assert dev.lengths()["second"] == 1
    dev.clock.advance(2)

    assert dev.lengths()["end"] == 1


def to(queue: str) -> dict[str, Any]:
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}
