"""Which queues a message goes to, and what is said when there are none."""

import pytest
from pamqp.commands import Basic, Exchange, Queue

from tests.devbroker.client import Client, Closed, Content
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

TOPICS = [
    ("a.b.c", "a.b.c", True),
    ("a.*.c", "a.b.c", True),
    ("a.*.c", "a.b.d", False),
    ("a.*", "a.b.c", False),
    ("*", "", False),
    ("#", "", True),
    ("#", "a.b.c", True),
    ("a.#", "a", True),
    ("a.#", "a.b.c", True),
    ("#.c", "a.b.c", True),
    ("#.c", "c", True),
    ("a.#.c", "a.c", True),
    ("a.#.c", "a.b.b.c", True),
    ("#.b.#", "a.c.b", True),
    ("#.b.#", "a.c.d", False),
    ("*.#", "a", True),
    ("*.#", "", False),
    ("#.*.x", "x", False),
    ("a..c", "a..c", True),
    ("a.*.c", "a..c", True),
    ("*.*", ".", True),
    ("", "", True),
    ("a", "A", False),
]


@pytest.mark.parametrize(("pattern", "key", "fits"), TOPICS)
async def test_a_topic_matches_words(client: Client, pattern: str, key: str, fits: bool) -> None:
    await client.exchange("x", "topic")
    await client.declare("q")
    await client.bind("q", "x", pattern)
    await client.confirm()

    await client.confirmed(b"m", key, exchange="x")

    assert await client.drain("q") == ([b"m"] if fits else [])


async def test_a_direct_exchange_compares_the_whole_key(client: Client) -> None:
    await client.exchange("x")
    await client.declare("q")
    await client.bind("q", "x", "a.*")
    await client.confirm()

    await client.confirmed(b"1", "a.*", exchange="x")
    await client.confirmed(b"2", "a.b", exchange="x")

    assert await client.drain("q") == [b"1"]


async def test_capital_letters_are_other_letters(client: Client) -> None:
    await client.exchange("x")
    await client.declare("q")
    await client.bind("q", "x", "a.b")
    await client.confirm()

    for key in ("a.b", "A.b", "a.B", "a.b"):
        await client.confirmed(key.encode(), key, exchange="x")

    assert await client.drain("q") == [b"a.b", b"a.b"]


async def test_a_fanout_exchange_ignores_the_key(client: Client) -> None:
    await client.exchange("x", "fanout")
    for queue in ("q", "p"):
        await client.declare(queue)
        await client.bind(queue, "x", "unused")
    await client.confirm()

    await client.confirmed(b"1", "anything", exchange="x")

    assert await client.drain("q") == await client.drain("p") == [b"1"]


async def test_a_queue_gets_one_copy_however_many_bindings_match(client: Client) -> None:
    await client.exchange("x", "topic")
    await client.declare("q")
    for key in ("a.b", "a.*", "#"):
        await client.bind("q", "x", key)
    await client.confirm()

    await client.confirmed(b"1", "a.b", exchange="x")

    assert await client.drain("q") == [b"1"]


async def test_the_default_exchange_knows_every_queue_by_its_name(client: Client) -> None:
    await client.declare("q")
    await client.confirm()

    await client.confirmed(b"1", "q")

    got = await client.get("q")
    assert got is not None
    assert (got.method.exchange, got.method.routing_key) == ("", "q")


async def test_a_taken_away_binding_leads_nowhere(client: Client) -> None:
    await client.exchange("x")
    await client.declare("q")
    await client.bind("q", "x", "k")
    await client.confirm()
    await client.confirmed(b"1", "k", exchange="x")

    await client.call(Queue.Unbind(queue="q", exchange="x", routing_key="k"))
    await client.confirmed(b"2", "k", exchange="x")

    assert await client.drain("q") == [b"1"]


async def test_a_binding_without_queue_and_key_binds_the_last_queue_by_its_name(client: Client) -> None:
    await client.exchange("x")
    await client.declare("q")
    await client.bind("", "x", "")
    await client.confirm()

    await client.confirmed(b"1", "q", exchange="x")

    assert await client.drain("q") == [b"1"]


async def test_a_deleted_exchange_is_gone_and_so_are_its_bindings(client: Client) -> None:
    await client.exchange("x")
    await client.declare("q")
    await client.bind("q", "x", "k")
    await client.call(Exchange.Delete(exchange="x"))
    await client.exchange("x")
    await client.confirm()

    await client.confirmed(b"1", "k", exchange="x")

    assert await client.drain("q") == []


async def test_an_auto_delete_exchange_goes_with_its_last_binding(client: Client) -> None:
    await client.exchange("x", auto_delete=True)
    await client.declare("q")
    await client.bind("q", "x", "k")
    await client.call(Queue.Delete(queue="q"))

    with pytest.raises(Closed) as refused:
        await client.call(Exchange.Declare(exchange="x", passive=True))

    assert refused.value.code == 404


async def test_what_nothing_matches_takes_the_alternate_way(client: Client) -> None:
    await client.exchange("other", "fanout")
    await client.exchange("x", arguments={"alternate-exchange": "other"})
    for queue in ("q", "p"):
        await client.declare(queue)
    await client.bind("q", "x", "k")
    await client.bind("p", "other")
    await client.confirm()

    await client.confirmed(b"1", "k", exchange="x")
    await client.confirmed(b"2", "nope", exchange="x", mandatory=True)

    assert await client.drain("q") == [b"1"]
    got = await client.get("p")
    assert got is not None
    assert got.body == b"2"
    assert (got.method.exchange, got.method.routing_key) == ("x", "nope")


async def test_the_default_exchange_is_no_alternate_way(client: Client) -> None:
    await client.declare("q")
    await client.exchange("x", arguments={"alternate-exchange": ""})

    await client.publish(b"m", "q", exchange="x", mandatory=True)

    assert (await client.receive()).method.reply_code == 312
    assert await client.length("q") == 0


async def test_alternate_ways_may_form_a_ring(client: Client) -> None:
    await client.exchange("x", arguments={"alternate-exchange": "y"})
    await client.exchange("y", arguments={"alternate-exchange": "x"})
    await client.confirm()

    answer = await client.confirmed(b"1", "k", exchange="x", mandatory=True)

    assert isinstance(answer.method, Basic.Return)


async def test_a_mandatory_message_without_a_queue_comes_back_before_it_is_confirmed(client: Client) -> None:
    await client.confirm()

    returned = await client.confirmed(b"1", "nope", mandatory=True, headers={"a": 1}, message_id="m")
    confirm = await client.receive()

    assert isinstance(returned, Content)
    assert isinstance(returned.method, Basic.Return)
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == ("", "nope")
    assert (returned.body, returned.headers, returned.properties.message_id) == (b"1", {"a": 1}, "m")
    assert (confirm.name, confirm.delivery_tag) == ("Basic.Ack", 1)


async def test_a_message_without_a_queue_is_confirmed_all_the_same(client: Client) -> None:
    await client.confirm()

    confirm = await client.confirmed(b"1", "nope")

    assert (confirm.name, confirm.delivery_tag) == ("Basic.Ack", 1)


async def test_cc_and_bcc_are_routing_keys_and_only_bcc_is_taken_off(client: Client) -> None:
    for queue in ("q", "p", "o"):
        await client.declare(queue)
    await client.confirm()

    await client.confirmed(b"1", "q", headers={"CC": ["p"], "BCC": ["o"], "a": 1})

    for queue in ("q", "p", "o"):
        got = await client.get(queue)
        assert got is not None
        assert got.headers == {"CC": ["p"], "a": 1}
        assert got.method.routing_key == "q"


async def test_another_vhost_is_another_world(broker: Party, client: Client) -> None:
    with pytest.raises(Closed) as refused:
        await broker.connect(vhost="nope")

    assert (refused.value.code, refused.value.text) == (530, "NOT_ALLOWED - vhost nope not found")
