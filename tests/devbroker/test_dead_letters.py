"""What dies, why, where it goes and what is written on it."""

from typing import Any

import pytest
from pamqp.commands import Basic, Queue

from tests.devbroker.client import Client, Content
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

SHORT = 100  # milliseconds
LONGER = 0.3  # seconds


async def rejected(client: Client, queue: str) -> Content:
    """Take the next message of *queue* and reject it."""
    content = await client.get(queue, no_ack=False)
    assert content is not None
    await client.send(Basic.Reject(content.method.delivery_tag, False))
    return content


async def grave(client: Client, **arguments: Any) -> None:
    """Declare the queue q, which sends what dies by the default exchange to the queue dead."""
    await client.declare("dead")
    names = {name.replace("_", "-"): value for name, value in arguments.items()}
    await client.declare(
        "q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"} | names
    )
    await client.confirm()


def deaths(content: Content) -> list[tuple[Any, ...]]:
    return [(death["queue"], death["reason"], death["count"]) for death in content.headers["x-death"]]


async def test_a_rejected_message_dies_with_its_story_on_it(client: Client) -> None:
    await client.exchange("x", "topic")
    await client.exchange("x.dead", "fanout")
    await client.declare("q", arguments={"x-dead-letter-exchange": "x.dead"})
    await client.declare("dead")
    await client.bind("q", "x", "a.#")
    await client.bind("dead", "x.dead")
    await client.publish(
        b"m", "a.b", exchange="x", headers={"zz": 1, "aa": "x"}, message_id="i", delivery_mode=2
    )
    await client.reach("q", 1)

    await rejected(client, "q")

    got = await client.take("dead")
    (death,) = got.headers["x-death"]
    assert (got.body, got.properties.message_id, got.properties.delivery_mode) == (b"m", "i", 2)
    assert (got.method.exchange, got.method.routing_key, got.method.redelivered) == ("x.dead", "a.b", False)
    assert list(got.headers) == [
        "aa",
        "x-death",
        "x-first-death-exchange",
        "x-first-death-queue",
        "x-first-death-reason",
        "zz",
    ]
    assert got.headers["x-first-death-exchange"] == "x"
    assert got.headers["x-first-death-queue"] == "q"
    assert got.headers["x-first-death-reason"] == "rejected"
    assert list(death) == ["count", "reason", "queue", "time", "exchange", "routing-keys"]
    assert (death["count"], death["reason"], death["queue"]) == (1, "rejected", "q")
    assert (death["exchange"], death["routing-keys"]) == ("x", ["a.b"])
    assert death["time"].tzinfo is not None
    assert b"\x05countl" in got.octets
    assert b"\x04timeT" in got.octets
    assert b"\x0crouting-keysA" in got.octets


async def test_an_expired_message_loses_its_expiration_and_tells_it(broker: Party, client: Client) -> None:
    await grave(client)
    await client.confirmed(b"m", "q", expiration=str(SHORT))

    await broker.wait(LONGER)

    got = await client.take("dead")
    (death,) = got.headers["x-death"]
    assert got.properties.expiration in (None, "")
    assert list(death) == [
        "count",
        "reason",
        "queue",
        "time",
        "exchange",
        "routing-keys",
        "original-expiration",
    ]
    assert death["original-expiration"] == str(SHORT)
    assert death["reason"] == "expired"
    assert (got.method.exchange, got.method.routing_key) == ("", "dead")


async def test_a_message_pushed_out_dies_of_maxlen(client: Client) -> None:
    await grave(client, x_max_length=1)

    await client.confirmed(b"1", "q")
    await client.confirmed(b"2", "q")

    got = await client.take("dead")
    assert got.body == b"1"
    assert deaths(got) == [("q", "maxlen", 1)]
    assert await client.drain("q") == [b"2"]


async def test_a_message_refused_by_reject_publish_dlx_dies_of_maxlen(client: Client) -> None:
    await grave(client, x_max_length=1, x_overflow="reject-publish-dlx")

    answers = [await client.confirmed(body, "q") for body in (b"1", b"2")]

    got = await client.take("dead")
    assert [answer.name for answer in answers] == ["Basic.Ack", "Basic.Nack"]
    assert got.body == b"2"
    assert deaths(got) == [("q", "maxlen", 1)]


async def test_deaths_of_one_queue_and_reason_are_counted_as_one(client: Client) -> None:
    await grave(client)
    headers: dict[str, Any] = {}
    for _ in range(3):
        await client.confirmed(b"m", "q", headers=headers)
        await rejected(client, "q")
        headers = (await client.take("dead")).headers

    (death,) = headers["x-death"]
    assert death["count"] == 3
    assert list(death) == ["count", "exchange", "queue", "reason", "routing-keys", "time"]


async def test_the_newest_death_stands_first_and_the_first_is_remembered(
    broker: Party, client: Client
) -> None:
    """The retry loop: rejected in q, expired in wait, back in q, rejected again."""
    await client.exchange("fail", "topic")
    await client.exchange("again", "topic")
    await client.declare("q", arguments={"x-dead-letter-exchange": "fail", "x-dead-letter-routing-key": "q"})
    await client.declare("wait", arguments={"x-message-ttl": SHORT, "x-dead-letter-exchange": "again"})
    await client.bind("wait", "fail", "#")
    await client.bind("q", "again", "q")
    await client.confirm()
    await client.confirmed(b"m", "q")

    for round in range(1, 4):
        content = await client.take_held("q")
        assert content.method.redelivered is False
        if round > 1:
            assert deaths(content) == [("wait", "expired", round - 1), ("q", "rejected", round - 1)]
            assert content.headers["x-first-death-queue"] == "q"
            assert content.headers["x-first-death-reason"] == "rejected"
            assert content.headers["x-death"][0]["routing-keys"] == ["q"]
            assert content.headers["x-death"][0]["exchange"] == "fail"
            first = ["count", "reason", "queue", "time", "exchange", "routing-keys"]
            orders = [list(death) for death in content.headers["x-death"]]
            assert orders == [sorted(first), first if round == 2 else sorted(first)]
        await client.send(Basic.Reject(content.method.delivery_tag, False))
        await client.reach("q", 0)
        await broker.wait(LONGER)


async def test_a_message_that_goes_round_without_being_rejected_is_dropped(
    broker: Party, client: Client
) -> None:
    await client.declare("a", arguments=ring("b"))
    await client.declare("b", arguments=ring("a"))
    await client.confirm()
    await client.confirmed(b"m", "a")

    await broker.wait(LONGER)
    await broker.wait(LONGER)
    await broker.wait(LONGER)

    assert [await client.drain(queue) for queue in ("a", "b")] == [[], []]


async def test_a_message_that_was_rejected_on_its_round_goes_on(broker: Party, client: Client) -> None:
    await client.declare("a", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "b"})
    await client.declare("b", arguments=ring("a"))
    await client.confirm()
    await client.confirmed(b"m", "a")

    for _ in range(2):
        content = await client.take_held("a")
        await client.send(Basic.Reject(content.method.delivery_tag, False))
        await broker.wait(LONGER)

    assert deaths(await client.take("a")) == [("b", "expired", 2), ("a", "rejected", 2)]


def ring(other: str) -> dict[str, Any]:
    return {"x-message-ttl": SHORT, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": other}


async def test_cc_stays_unless_the_key_is_replaced(client: Client) -> None:
    await grave(client)
    await client.declare("kept", arguments={"x-dead-letter-exchange": "amq.fanout"})
    await client.bind("dead", "amq.fanout")
    await client.confirmed(b"m", "q", headers={"CC": ["kept"]})

    await rejected(client, "q")
    replaced = await client.take("dead")
    await rejected(client, "kept")
    kept = await client.take("dead")

    assert "CC" not in replaced.headers
    assert kept.headers["CC"] == ["kept"]
    assert replaced.headers["x-death"][0]["routing-keys"] == ["q", "kept"]
    assert kept.headers["x-death"][0]["routing-keys"] == ["q", "kept"]
    await client.call(Queue.Unbind(queue="dead", exchange="amq.fanout"))


async def test_what_dies_without_a_place_to_go_is_gone(client: Client) -> None:
    await client.declare("q", arguments={"x-dead-letter-exchange": "nope"})
    await client.declare("p")
    await client.confirm()
    for queue in ("q", "p"):
        await client.confirmed(b"m", queue)
        await rejected(client, queue)

    assert [await client.length(queue) for queue in ("q", "p")] == [0, 0]


async def test_rejecting_many_keeps_their_order(client: Client) -> None:
    await grave(client)
    for number in range(4):
        await client.confirmed(b"%d" % number, "q")
    for _ in range(4):
        last = await client.get("q", no_ack=False)
    assert last is not None

    await client.send(Basic.Nack(last.method.delivery_tag, True, False))

    assert [(await client.take("dead")).body for _ in range(4)] == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize("limit", [0, 1, 2])
async def test_a_quorum_queue_lets_a_message_go_that_came_back_too_often(client: Client, limit: int) -> None:
    await client.declare("dead")
    arguments = {
        "x-queue-type": "quorum",
        "x-delivery-limit": limit,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": "dead",
    }
    await client.declare("q", durable=True, arguments=arguments)
    await client.confirm()
    await client.confirmed(b"m", "q")

    counts = []
    for _ in range(limit + 1):
        content = await client.take_held("q")
        counts.append(content.headers["x-delivery-count"])
        await client.send(Basic.Reject(content.method.delivery_tag, True))

    got = await client.take("dead")
    assert deaths(got) == [("q", "delivery_limit", 1)]
    assert counts == list(range(limit + 1))
    assert "x-delivery-count" not in got.headers


async def test_the_count_of_deliveries_is_written_beside_other_headers(client: Client) -> None:
    await client.declare("q", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 9})
    await client.confirm()
    await client.confirmed(b"m", "q", headers={"zz": 1, "aa": 2})
    content = await client.take_held("q")
    await client.send(Basic.Reject(content.method.delivery_tag, True))

    again = await client.take_held("q")

    assert list(content.headers) == ["aa", "x-delivery-count", "zz"]
    assert list(again.headers) == ["aa", "x-delivery-count", "zz"]
    assert again.headers["x-delivery-count"] == 1
    assert b"x-delivery-countl" in again.octets


FORGED: list[tuple[Any, list[tuple[str, Any]]]] = [
    (
        [{"queue": "q", "reason": "rejected", "count": 3}],
        [("count", 4), ("queue", "q"), ("reason", "rejected")],
    ),
    ([{"queue": "q", "reason": "rejected"}], [("count", 1), ("queue", "q"), ("reason", "rejected")]),
    (
        [{"queue": "q", "reason": "rejected", "count": (1 << 63) - 1}],
        [("count", -(1 << 63)), ("queue", "q"), ("reason", "rejected")],
    ),
]


@pytest.mark.parametrize(("forged", "expected"), FORGED)
async def test_a_story_that_was_made_up_is_continued(
    client: Client, forged: Any, expected: list[tuple[str, Any]]
) -> None:
    await grave(client)
    await client.confirmed(b"m", "q", headers={"x-death": forged})

    await rejected(client, "q")

    (death,) = (await client.take("dead")).headers["x-death"]
    assert list(death.items()) == expected


@pytest.mark.parametrize("forged", ["no list", []])
async def test_a_story_without_deaths_begins_anew(client: Client, forged: Any) -> None:
    await grave(client)
    await client.confirmed(b"m", "q", headers={"x-death": forged})

    await rejected(client, "q")

    got = await client.take("dead")
    first = ["count", "reason", "queue", "time", "exchange", "routing-keys"]
    assert list(got.headers) == ["x-death"]
    assert [list(death) for death in got.headers["x-death"]] == [sorted(first) if forged == [] else first]
    assert deaths(got) == [("q", "rejected", 1)]


@pytest.mark.parametrize("argument", ["x-dead-letter-exchange", "x-dead-letter-routing-key"])
async def test_what_dies_with_a_name_that_is_too_long_is_gone(
    broker: Party, client: Client, argument: str
) -> None:
    arguments = {"x-dead-letter-exchange": "", "x-message-ttl": SHORT, argument: "k" * 300}
    await client.declare("q", arguments=arguments)
    await client.confirm()
    await client.confirmed(b"m", "q")

    await broker.wait(LONGER)

    await client.reach("q", 0)
    other = await broker.connect()
    assert await other.length("q") == 0
