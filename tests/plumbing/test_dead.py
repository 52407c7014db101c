from datetime import UTC, datetime

import anyio
import pytest

from flow.broker.declaring import Declarer, declare
from flow.broker.publisher import Publisher
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import AccessDenied, ConnectionLost, NotFound
from flow.parking import Parked, parked_headers
from flow.plumbing import park as reading
from flow.plumbing.dead import Look, Selection, came_back, drop, replay, visit
from flow.plumbing.park import opened_park
from flow.plumbing.setup import set_up, topology_for
from flow.topology import DEAD_QUEUE, Queue, Topology
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.plumbing.consumer import Consumer

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
EVERYTHING = Selection()


@pytest.fixture(params=["quorum", "classic"])
async def plumbing(request: pytest.FixtureRequest, url: BrokerUrl) -> Topology:
    """The plumbing with the queues acme.crm and other.crm, and a short retry delay."""
    topology = topology_for(["acme", "other"], queue_type=request.param, retry_delay=0.1)
    await set_up(url, topology)
    return topology


async def park(publisher: Publisher, body: bytes, queue: str = "acme.crm") -> None:
    headers: dict[str, str | int] = {
        "x-flow-queue": queue,
        "x-flow-pipeline": "Crm",
        "x-flow-attempts": 10,
        "x-flow-reason": "refused",
        "x-flow-parked-at": NOW.isoformat(),
        "x-flow-message-id": f"id of {body.decode()}",
    }
    await publisher.publish("system.park", "", body, headers=headers)


async def ready(url: BrokerUrl, queue: str, count: int) -> None:
    """Wait until *queue* has *count* messages ready: given back or acknowledged ones take a moment."""
    async with Declarer(url) as declarer:
        with anyio.fail_after(30):
            while (await declarer.look(queue)).ready != count:
                continue


async def listed(
    url: BrokerUrl, selection: Selection = EVERYTHING, limit: int = 100
) -> tuple[Look, list[bytes]]:
    bodies: list[bytes] = []
    look = await visit(url, selection, lambda _, body: bodies.append(body), limit)
    return look, bodies


async def replayed(url: BrokerUrl, selection: Selection = EVERYTHING) -> tuple[Look, list[Parked]]:
    done: list[Parked] = []
    look = await replay(url, selection, done.append)
    return look, done


async def test_a_rejected_message_that_was_parked_comes_back_at_attempt_one(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await publisher.publish("deliver", "acme.system.action", b'{"a": 1}', message_id="m-1")
    async with Consumer(url, "acme.crm") as consumer:
        first = await consumer.next()
        first.origin.reject(first)
        second = await consumer.next()
        headers = parked_headers(second, "refused for ever", "Crm", NOW)
        await publisher.publish("system.park", "", second.raw, headers=headers)
        second.origin.ack(second)

        look, [parked] = await replayed(url)
        again = await consumer.next()
        again.origin.ack(again)

    assert look.failures == []
    assert (parked.queue, parked.attempts, parked.reason) == ("acme.crm", 2, "refused for ever")
    assert (parked.exchange, parked.routing_key) == ("deliver", "acme.system.action")
    assert (again.attempt, again.message_id, again.raw) == (1, "m-1", b'{"a": 1}')
    assert "x-death" not in again.headers
    await ready(url, DEAD_QUEUE, 0)


async def test_looking_leaves_every_message_parked(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    for number in range(30):
        await park(publisher, b"%d" % number)

    look, bodies = await listed(url)
    await ready(url, DEAD_QUEUE, 30)
    again, _ = await listed(url)

    assert sorted(bodies, key=int) == [b"%d" % number for number in range(30)]
    assert (look.waiting, look.seen, len(look.found)) == (30, 30, 30)
    assert sorted(again.found) == sorted(look.found)
    assert len(set(look.found)) == 30


async def test_a_limit_takes_no_more_out_of_the_park(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    for number in range(10):
        await park(publisher, b"%d" % number)

    look, bodies = await listed(url, limit=3)

    assert (look.waiting, look.seen, len(bodies)) == (10, 3, 3)


async def test_messages_are_selected_by_queue_and_by_id(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    for body, queue in [(b"1", "acme.crm"), (b"2", "other.crm"), (b"3", "acme.crm"), (b"4", "other.crm")]:
        await park(publisher, body, queue)

    look, bodies = await listed(url, Selection(queue="other.crm"))
    await ready(url, DEAD_QUEUE, 4)
    _, one = await listed(url, Selection(ids=frozenset(look.found[:1])), limit=1)
    await ready(url, DEAD_QUEUE, 4)
    _, none = await listed(url, Selection(queue="acme.crm", ids=frozenset(look.found)))

    assert sorted(bodies) == [b"2", b"4"]
    assert one == bodies[:1]
    assert none == []


async def test_an_empty_park_is_told_at_once(plumbing: Topology, url: BrokerUrl) -> None:
    with anyio.fail_after(reading.QUIET):
        look, bodies = await listed(url)

    assert (look.waiting, look.seen, bodies) == (0, 0, [])


async def test_messages_in_other_hands_are_not_waited_for_long(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await park(publisher, b"1")
    async with Consumer(url, DEAD_QUEUE) as other:
        await other.next()
        with anyio.fail_after(reading.QUIET):
            look, _ = await listed(url)

    assert (look.waiting, look.seen) == (0, 0)
    await ready(url, DEAD_QUEUE, 1)


async def test_a_park_that_is_taken_away_meanwhile_is_given_up_after_quiet(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await park(publisher, b"1")
    inbox = reading.Inbox()
    session = await Session.open(url, {DEAD_QUEUE: 5}, inbox.receive)
    found = reading.Park(session, inbox, waiting=2)  # as if another had been there a moment ago

    with anyio.fail_after(4 * reading.QUIET):
        messages = [message async for message in found.messages()]
    await session.close()

    assert [message.raw for message in messages] == [b"1"]
    assert found.seen == 1


async def test_only_the_selected_messages_are_replayed(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    for body, queue in [(b"1", "acme.crm"), (b"2", "other.crm"), (b"3", "acme.crm")]:
        await park(publisher, body, queue)

    look, done = await replayed(url, Selection(queue="acme.crm"))

    assert sorted(parked.message_id or "" for parked in done) == ["id of 1", "id of 3"]
    assert look.failures == []
    await ready(url, "acme.crm", 2)
    await ready(url, "other.crm", 0)
    await ready(url, DEAD_QUEUE, 1)


async def test_more_messages_than_the_window_are_replayed(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    async with anyio.create_task_group() as group:
        for number in range(450):
            group.start_soon(park, publisher, b"%d" % number)

    look, done = await replayed(url)

    assert (look.waiting, len(done)) == (450, 450)
    await ready(url, "acme.crm", 450)
    await ready(url, DEAD_QUEUE, 0)


async def test_a_message_whose_queue_is_gone_stays_parked(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await park(publisher, b"1", "gone.crm")

    look, done = await replayed(url)

    assert done == []
    assert look.failures == [f"{look.found[0]} stays parked: its queue gone.crm does not exist"]
    await ready(url, DEAD_QUEUE, 1)


async def test_a_replay_to_a_queue_outside_of_the_loop_is_parked_again_and_keeps_its_beginning(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await declare(url, Topology(queues=(Queue(name="loose.crm"),)))
    await park(publisher, b"1", "loose.crm")

    await replayed(url)

    await ready(url, DEAD_QUEUE, 1)
    found: list[Parked] = []
    await visit(url, EVERYTHING, lambda parked, _: found.append(parked))
    assert (found[0].queue, found[0].message_id, found[0].replays) == ("loose.crm", "id of 1", 1)
    assert found[0].reason == "system.retry found no queue bound with the key loose.crm"


async def test_what_the_alternate_exchange_parked_again_is_told(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    async with opened_park(url, 10) as found:
        await publisher.publish("system.retry", "loose.crm", b"1", headers={"x-flow-replays": 1})
        assert len(await found.newcomers(30)) == 1

        [sentence] = await came_back(found)

    assert sentence[12:] == " is parked again: system.retry found no queue bound with the key loose.crm"


async def test_a_message_that_tells_no_queue_stays_parked(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await publisher.publish("system.park", "", b"foreign")

    look, done = await replayed(url)

    assert done == []
    assert "stays parked: nothing tells the queue in which it failed" in look.failures[0]
    await ready(url, DEAD_QUEUE, 1)


async def test_a_message_of_a_server_whose_retry_exchange_is_missing_stays_parked(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    await declare(url, Topology(queues=(Queue(name="wrk.7.sqs"),)))
    await park(publisher, b"1", "wrk.7.sqs")

    with pytest.raises(NotFound, match=r"org\.7\.retry"):
        await replayed(url)

    await ready(url, DEAD_QUEUE, 1)


async def test_an_account_that_may_not_write_leaves_everything_parked(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    await park(publisher, b"1")
    await rabbitmq.add_user(vhost, "secret")
    await rabbitmq.permit(vhost, vhost, "^$", "^$", ".*")

    try:
        with pytest.raises(AccessDenied, match=r"system\.retry"):
            await replayed(BrokerUrl.parse(rabbitmq.url(vhost, user=vhost, password="secret")))
    finally:
        await rabbitmq.delete_user(vhost)

    await ready(url, DEAD_QUEUE, 1)


async def test_a_missing_park_is_told(url: BrokerUrl) -> None:
    with pytest.raises(NotFound, match=r"system\.dead was not found: run `flow setup`"):
        await listed(url)


async def test_what_is_dropped_is_gone_when_it_is_said(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher
) -> None:
    for number in range(300):
        await park(publisher, b"%d" % number, ["acme.crm", "other.crm"][number % 3 == 0])
    asked: list[int] = []

    async def agreed(count: int) -> bool:
        asked.append(count)
        return True

    look = await drop(url, Selection(queue="acme.crm"), agreed)

    assert (asked, look.deleted, look.waiting, look.seen) == ([200], 200, 300, 300)
    await ready(url, DEAD_QUEUE, 100)
    left, _ = await listed(url)
    assert len(left.found) == 100


async def test_a_connection_that_is_lost_meanwhile_drops_nothing(
    plumbing: Topology, url: BrokerUrl, publisher: Publisher, rabbitmq: RabbitMQControl
) -> None:
    await park(publisher, b"1")

    async def agreed(count: int) -> bool:
        await rabbitmq.close_all_connections()
        return True

    with pytest.raises(ConnectionLost):
        await drop(url, EVERYTHING, agreed)

    await ready(url, DEAD_QUEUE, 1)
