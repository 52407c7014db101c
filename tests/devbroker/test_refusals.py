"""What is refused, with which code and words, and what is not."""

from typing import Any

import pytest
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection, Exchange, Queue
from pamqp.header import ContentHeader

from tests.devbroker.client import Client, Closed
from tests.devbroker.conftest import Party

pytestmark = pytest.mark.anyio

LOCKED = (
    "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '{vhost}'. It could "
    "be originally declared on another connection or the exclusive property value does not match that of the "
    "original declaration."
)
EMPTY = ContentHeader(0, 0, Basic.Properties())


def queue(**arguments: Any) -> Queue.Declare:
    return Queue.Declare(
        queue="q", arguments={name.replace("_", "-"): value for name, value in arguments.items()}
    )


def quorum(**arguments: Any) -> Queue.Declare:
    method = queue(x_queue_type="quorum", **arguments)
    method.durable = True
    return method


def durable_quorum(**flags: bool) -> Queue.Declare:
    return Queue.Declare(queue="q", arguments={"x-queue-type": "quorum"}, **{"durable": True} | flags)


def exchange(kind: str = "direct", **options: Any) -> Exchange.Declare:
    return Exchange.Declare(exchange="x", exchange_type=kind, **options)


def message(key: str = "q", exchange: str = "", **properties: Any) -> tuple[Any, ...]:
    return Basic.Publish(routing_key=key, exchange=exchange), ContentHeader(
        0, 0, Basic.Properties(**properties)
    )


def invalid(argument: str, why: str) -> str:
    return f"PRECONDITION_FAILED - invalid arg '{argument}' for queue 'q' in vhost '{{vhost}}'{why}"


def differs(kind: str, argument: str, why: str) -> str:
    name = "q" if kind == "queue" else "x"
    return (
        f"PRECONDITION_FAILED - inequivalent arg '{argument}' for {kind} '{name}' in vhost '{{vhost}}': {why}"
    )


def wrong_type(argument: str, where: str) -> str:
    return f"PRECONDITION_FAILED - invalid type 'byte' for arg '{argument}' in {where} in vhost '{{vhost}}'"


NO_QUEUE = "NOT_FOUND - no queue 'nope' in vhost '{vhost}'"
NO_EXCHANGE = "NOT_FOUND - no exchange 'nope' in vhost '{vhost}'"
DEFAULT = "ACCESS_REFUSED - operation not permitted on the default exchange"
IN_USE = "ACCESS_REFUSED - queue 'q' in vhost '{vhost}' in exclusive use"

REFUSED: list[tuple[list[Any], int, str]] = [
    ([Queue.Declare(queue="nope", passive=True)], 404, NO_QUEUE),
    ([Exchange.Declare(exchange="nope", passive=True)], 404, NO_EXCHANGE),
    (
        [Queue.Declare(queue="amq.x")],
        403,
        "ACCESS_REFUSED - queue name 'amq.x' contains reserved prefix 'amq.*'",
    ),
    (
        [Exchange.Declare(exchange="amq.x")],
        403,
        "ACCESS_REFUSED - exchange name 'amq.x' contains reserved prefix 'amq.*'",
    ),
    ([Exchange.Declare(exchange="")], 403, DEFAULT),
    ([Exchange.Delete(exchange="")], 403, DEFAULT),
    (
        [Exchange.Delete(exchange="amq.topic")],
        403,
        "ACCESS_REFUSED - deletion of system exchange 'amq.topic' in vhost '{vhost}' not allowed",
    ),
    ([exchange("nope")], 503, "COMMAND_INVALID - unknown exchange type 'nope'"),
    (
        [exchange(), exchange("topic")],
        406,
        differs("exchange", "type", "received 'topic' but current is 'direct'"),
    ),
    (
        [exchange(), exchange(durable=True)],
        406,
        differs("exchange", "durable", "received 'true' but current is 'false'"),
    ),
    (
        [exchange(), exchange(auto_delete=True)],
        406,
        differs("exchange", "auto_delete", "received 'true' but current is 'false'"),
    ),
    (
        [exchange(), exchange(internal=True)],
        406,
        differs("exchange", "internal", "received 'true' but current is 'false'"),
    ),
    (
        [exchange(), exchange(arguments={"alternate-exchange": "y"})],
        406,
        differs(
            "exchange", "alternate-exchange", "received the value 'y' of type 'longstr' but current is none"
        ),
    ),
    (
        [exchange(arguments={"alternate-exchange": 5})],
        406,
        wrong_type("alternate-exchange", "exchange 'x'"),
    ),
    (
        [
            queue(),
            exchange(),
            Queue.Bind(queue="q", exchange="x"),
            Exchange.Delete(exchange="x", if_unused=True),
        ],
        406,
        "PRECONDITION_FAILED - exchange 'x' in vhost '{vhost}' in use",
    ),
    ([exchange(), Queue.Bind(queue="nope", exchange="x")], 404, NO_QUEUE),
    ([queue(), Queue.Bind(queue="q", exchange="nope")], 404, NO_EXCHANGE),
    ([queue(), Queue.Bind(queue="q", exchange="")], 403, DEFAULT),
    ([queue(), Queue.Unbind(queue="q", exchange="", routing_key="q")], 403, DEFAULT),
    ([Queue.Purge(queue="nope")], 404, NO_QUEUE),
    ([Basic.Consume(queue="nope")], 404, NO_QUEUE),
    ([Basic.Get(queue="nope")], 404, NO_QUEUE),
    ([Basic.Consume(queue="")], 404, "NOT_FOUND - no previously declared queue"),
    ([exchange(), Queue.Bind(queue="", exchange="x")], 404, "NOT_FOUND - no previously declared queue"),
    (
        [queue(), Queue.Declare(queue="q", durable=True)],
        406,
        differs("queue", "durable", "received 'true' but current is 'false'"),
    ),
    (
        [queue(), Queue.Declare(queue="q", auto_delete=True)],
        406,
        differs("queue", "auto_delete", "received 'true' but current is 'false'"),
    ),
    ([queue(), Queue.Declare(queue="q", exclusive=True)], 405, LOCKED.replace("{name}", "q")),
    (
        [queue(), queue(x_message_ttl=3000)],
        406,
        differs("queue", "x-message-ttl", "received the value '3000' of type 'short' but current is none"),
    ),
    (
        [queue(x_message_ttl=3000), queue()],
        406,
        differs("queue", "x-message-ttl", "received none but current is the value '3000' of type 'short'"),
    ),
    (
        [queue(x_message_ttl=3000), queue(x_message_ttl=300000)],
        406,
        differs("queue", "x-message-ttl", "received '300000' but current is '3000'"),
    ),
    (
        [queue(x_dead_letter_exchange="a"), queue(x_dead_letter_exchange="b")],
        406,
        differs("queue", "x-dead-letter-exchange", "received 'b' but current is 'a'"),
    ),
    (
        [quorum(x_delivery_limit=2), quorum(x_delivery_limit=3)],
        406,
        differs("queue", "x-delivery-limit", "received '3' but current is '2'"),
    ),
    (
        [quorum(), Queue.Declare(queue="q", durable=True)],
        406,
        differs("queue", "x-queue-type", "received none but current is the value 'quorum' of type 'longstr'"),
    ),
    ([queue(x_message_ttl="abc")], 406, invalid("x-message-ttl", ': "expected integer, got longstr"')),
    ([queue(x_message_ttl=-1)], 406, invalid("x-message-ttl", ": {{value_negative,-1}}")),
    (
        [queue(x_message_ttl=99999999999999)],
        406,
        invalid("x-message-ttl", ": {{value_too_large,99999999999999}}"),
    ),
    ([queue(x_expires=0)], 406, invalid("x-expires", ": {{value_zero,0}}")),
    ([queue(x_max_length=-1)], 406, invalid("x-max-length", ": {{value_negative,-1}}")),
    ([queue(x_overflow="abc")], 406, invalid("x-overflow", ": invalid_overflow")),
    ([queue(x_queue_mode="zap")], 406, invalid("x-queue-mode", ": \"unsupported queue mode 'zap'\"")),
    ([queue(x_queue_type="abc")], 406, invalid("x-queue-type", ": \"unsupported queue type 'abc'\"")),
    ([queue(x_queue_type=3)], 406, invalid("x-queue-type", ": {{unacceptable_type,byte}}")),
    (
        [queue(x_dead_letter_routing_key="k")],
        406,
        invalid("x-dead-letter-routing-key", ": routing_key_but_no_dlx_defined"),
    ),
    (
        [queue(x_dead_letter_exchange=5)],
        406,
        wrong_type("x-dead-letter-exchange", "queue 'q'"),
    ),
    ([queue(x_delivery_limit=3)], 406, invalid("x-delivery-limit", " of queue type rabbit_classic_queue")),
    (
        [queue(x_dead_letter_strategy="at-least-once")],
        406,
        invalid("x-dead-letter-strategy", " of queue type rabbit_classic_queue"),
    ),
    (
        [quorum(x_dead_letter_strategy="zap")],
        406,
        invalid("x-dead-letter-strategy", ": invalid_dlx_strategy"),
    ),
    (
        [queue(x_single_active_consumer="yes")],
        406,
        invalid("x-single-active-consumer", ": {{unacceptable_type,longstr}}"),
    ),
    *(
        ([queue(**{name: 3})], 406, invalid(name.replace("_", "-"), " of queue type rabbit_classic_queue"))
        for name in ("x_quorum_initial_group_size", "x_max_in_memory_length", "x_max_in_memory_bytes")
    ),
    ([quorum(x_queue_mode="lazy")], 406, invalid("x-queue-mode", " of queue type rabbit_quorum_queue")),
    ([quorum(x_queue_version=2)], 406, invalid("x-queue-version", " of queue type rabbit_quorum_queue")),
    (
        [Queue.Declare(queue="", durable=True, arguments={"x-queue-type": "quorum"})],
        406,
        "PRECONDITION_FAILED - Cannot declare a server-named queue for type rabbit_quorum_queue",
    ),
    ([queue(), Queue.Declare(queue="", passive=True)], 404, "NOT_FOUND - no queue '' in vhost '{vhost}'"),
    (
        [Queue.Declare(queue="q" * 255), Queue.Declare(queue="q" * 255, durable=True)],
        406,
        differs("queue", "durable", "").replace("'q'", f"'{'q' * 255}'"),
    ),
    ([quorum(x_max_priority=3)], 406, invalid("x-max-priority", " of queue type rabbit_quorum_queue")),
    (
        [durable_quorum(durable=False)],
        406,
        "PRECONDITION_FAILED - invalid property 'non-durable' for queue 'q' in vhost '{vhost}'",
    ),
    (
        [durable_quorum(exclusive=True)],
        406,
        "PRECONDITION_FAILED - invalid property 'exclusive-owner' for queue 'q' in vhost '{vhost}'",
    ),
    (
        [durable_quorum(auto_delete=True)],
        406,
        "PRECONDITION_FAILED - invalid property 'auto-delete' for queue 'q' in vhost '{vhost}'",
    ),
    (
        [queue(), Basic.Consume(queue="q", consumer_tag="t"), Queue.Delete(queue="q", if_unused=True)],
        406,
        "PRECONDITION_FAILED - queue 'q' in vhost '{vhost}' in use",
    ),
    (
        [queue(), Basic.Consume(queue="q", consumer_tag="t"), Basic.Consume(queue="q", consumer_tag="t")],
        530,
        "NOT_ALLOWED - attempt to reuse consumer tag 't'",
    ),
    ([queue(), Basic.Consume(queue="q", exclusive=True), Basic.Consume(queue="q")], 403, IN_USE),
    ([queue(), Basic.Consume(queue="q"), Basic.Consume(queue="q", exclusive=True)], 403, IN_USE),
    ([Channel.Flow(False)], 540, "NOT_IMPLEMENTED - active=false"),
    ([Channel.Open()], 504, "CHANNEL_ERROR - second 'channel.open' seen"),
    ([Basic.Qos(prefetch_size=1)], 540, "NOT_IMPLEMENTED - prefetch_size!=0 (1)"),
    ([Connection.Open("/")], 503, "COMMAND_INVALID - unimplemented method"),
    ([Channel.OpenOk()], 503, "COMMAND_INVALID - unimplemented method"),
]


@pytest.mark.parametrize(
    ("methods", "code", "text"), REFUSED, ids=[f"refusal {n}" for n in range(len(REFUSED))]
)
async def test_a_refusal_has_its_code_its_words_and_its_method(
    broker: Party, client: Client, methods: list[Any], code: int, text: str
) -> None:
    for method in methods[:-1]:
        await client.call(method)

    with pytest.raises(Closed) as refused:
        await client.call(methods[-1])

    assert refused.value.code == code
    assert refused.value.text == shortened(text.format(vhost=broker.vhost))
    assert refused.value.method == (methods[-1].index >> 16, methods[-1].index & 0xFFFF)


def shortened(text: str) -> str:
    """Return *text* as it fits in a reply."""
    return text if len(text) <= 255 else text[:252] + "..."


WRONG_FRAMES: list[tuple[tuple[Any, ...], int, str, tuple[int, int]]] = [
    (message(exchange="nope"), 404, NO_EXCHANGE, (60, 40)),
    (message(expiration="abc"), 406, "PRECONDITION_FAILED - invalid expiration 'abc': no_integer", (60, 40)),
    (
        message(expiration="-1"),
        406,
        "PRECONDITION_FAILED - invalid expiration '-1': {{value_negative,-1}}",
        (60, 40),
    ),
    (
        message(expiration="5x"),
        406,
        "PRECONDITION_FAILED - invalid expiration '5x': {{leftover_string,\"x\"}}",
        (60, 40),
    ),
    *(
        (
            message(headers={name: value}),
            406,
            f'PRECONDITION_FAILED - invalid message: {{{{unacceptable_type_in_header,"{name}",{kind}}}}}',
            (60, 40),
        )
        for name, value, kind in [("CC", "a2", "longstr"), ("BCC", 5, "byte"), ("CC", None, "void")]
    ),
    (
        message(expiration="315360000001"),
        406,
        "PRECONDITION_FAILED - invalid expiration '315360000001': {{value_too_large,315360000001}}",
        (60, 40),
    ),
    (
        message(expiration="9999999999999999"),
        406,
        "PRECONDITION_FAILED - invalid expiration '9999999999999999': {{value_too_large,9999999999999999}}",
        (60, 40),
    ),
    (
        message(user_id="nobody"),
        406,
        "PRECONDITION_FAILED - user_id property set to 'nobody' but authenticated user was 'guest'",
        (60, 40),
    ),
    ((Basic.Publish(immediate=True), EMPTY), 540, "NOT_IMPLEMENTED - immediate=true", (60, 40)),
    ((Basic.Ack(5),), 406, "PRECONDITION_FAILED - unknown delivery tag 5", (60, 80)),
    ((Basic.Ack(0),), 406, "PRECONDITION_FAILED - unknown delivery tag 0", (60, 80)),
    ((Basic.Ack(5, True),), 406, "PRECONDITION_FAILED - unknown delivery tag 5", (60, 80)),
    ((Basic.Nack(5),), 406, "PRECONDITION_FAILED - unknown delivery tag 5", (60, 120)),
    ((Basic.Reject(5),), 406, "PRECONDITION_FAILED - unknown delivery tag 5", (60, 90)),
    ((EMPTY,), 505, "UNEXPECTED_FRAME - expected method frame, got non method frame instead", (0, 0)),
    (
        (ContentBody(b"x"),),
        505,
        "UNEXPECTED_FRAME - expected method frame, got non method frame instead",
        (0, 0),
    ),
    (
        (Basic.Publish(), Channel.Close(200, "", 0, 0)),
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        (60, 40),
    ),
    (
        (Basic.Publish(), Basic.Qos()),
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        (60, 40),
    ),
    (
        (Basic.Publish(), ContentBody(b"x")),
        505,
        "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead",
        (60, 40),
    ),
    (
        (Basic.Publish(), ContentHeader(0, 5, Basic.Properties()), Basic.Qos()),
        505,
        "UNEXPECTED_FRAME - expected content body, got non content body frame instead",
        (60, 40),
    ),
]


@pytest.mark.parametrize(
    ("frames", "code", "text", "method"), WRONG_FRAMES, ids=[f"frames {n}" for n in range(len(WRONG_FRAMES))]
)
async def test_a_frame_without_an_answer_is_refused_the_same_way(
    broker: Party, client: Client, frames: tuple[Any, ...], code: int, text: str, method: tuple[int, int]
) -> None:
    await client.send(*frames)

    with pytest.raises(Closed) as refused:
        await client.call(Basic.Qos())

    assert refused.value.code == code
    assert refused.value.text == text.format(vhost=broker.vhost)
    assert refused.value.method == method


RAW: list[tuple[str, int, str]] = [
    (
        "01 0001 00000004 003c000a 00",
        501,
        "FRAME_ERROR - type 1, all octets = <<0,60,0,10>>: {invalid_frame_end_marker,0}",
    ),
    ("09 0001 00000004 003c000a ce", 501, "FRAME_ERROR - type 9, all octets = <<0,60,0,10>>: unknown_frame"),
    (
        "03 0001 000f4240 003c000a ce",
        501,
        "FRAME_ERROR - type 3, all octets = <<>>: {frame_too_large,1000000,131064}",
    ),
    ("01 0001 00000003 003c00 ce", 501, "FRAME_ERROR - type 1, all octets = <<0,60,0>>: unknown_frame"),
    ("01 0001 00000000 ce", 501, "FRAME_ERROR - type 1, all octets = <<>>: unknown_frame"),
    ("01 0001 00000005 003c000a01 ce", 501, "FRAME_ERROR - cannot decode <<1>>"),
    (
        "01 0001 0000000e 003c000a00000000000000616263 ce",
        501,
        "FRAME_ERROR - cannot decode <<0,0,0,0,0,0,0,97,98,99>>",
    ),
    ("01 0001 0000000e 0032000a000002ffff0000000000 ce", 501, "FRAME_ERROR - Malformed UTF-8 in shortstr"),
    ("08 0001 00000000 ce", 505, "UNEXPECTED_FRAME - type 8, all octets = <<>>"),
    (
        "01 0000 0000000b 003c000a00000000000000 ce",
        504,
        "CHANNEL_ERROR - unexpected method in connection state running",
    ),
]


@pytest.mark.parametrize(("frame", "code", "text"), RAW, ids=[f"octets {n}" for n in range(len(RAW))])
async def test_octets_that_are_no_frame_close_the_connection(
    client: Client, frame: str, code: int, text: str
) -> None:
    await client.stream.send(bytes.fromhex(frame))

    with pytest.raises(Closed) as refused:
        await client.receive(0)

    assert refused.value.code == code
    assert refused.value.text == text


async def test_a_time_beyond_the_calendar_is_refused_like_any_other(client: Client) -> None:
    value = b"\x0ex-max-priorityT\x7f" + b"\xff" * 7
    declare = b"\x00\x32\x00\x0a\x00\x00\x01q\x00" + len(value).to_bytes(4, "big") + value
    await client.stream.send(b"\x01\x00\x01" + len(declare).to_bytes(4, "big") + declare + b"\xce")

    with pytest.raises(Closed) as refused:
        await client.receive()

    assert refused.value.code == 406
    assert '"expected integer, got timestamp"' in refused.value.text


NOTHING_WRONG: list[list[Any]] = [
    [Exchange.Declare(exchange="amq.direct", durable=True)],
    [Exchange.Delete(exchange="nope")],
    [Queue.Delete(queue="nope")],
    [Queue.Unbind(queue="nope", exchange="amq.direct", routing_key="k")],
    [queue(), Queue.Unbind(queue="q", exchange="nope", routing_key="k")],
    [queue(), Queue.Unbind(queue="q", exchange="amq.direct", routing_key="nope")],
    [queue(x_foo=1), queue(x_foo=2)],
    [queue(), queue(x_queue_type="classic")],
    [Queue.Declare(queue=""), Queue.Purge(queue="")],
    [Basic.Cancel(consumer_tag="nope")],
    [Channel.Flow(True)],
    [quorum(x_overflow="reject-publish-dlx")],
]


@pytest.mark.parametrize("methods", NOTHING_WRONG)
async def test_what_does_no_harm_is_answered(client: Client, methods: list[Any]) -> None:
    for method in methods:
        answer = await client.call(method)

        assert answer.name == f"{method.name}Ok"


async def test_a_closed_channel_can_be_opened_again(client: Client) -> None:
    with pytest.raises(Closed):
        await client.declare("nope", passive=True)

    await client.open(1)

    assert await client.nothing()


async def test_a_refused_channel_leaves_the_others_alone(client: Client) -> None:
    await client.open(2)

    with pytest.raises(Closed):
        await client.declare("nope", passive=True, channel=2)

    assert await client.nothing()


async def test_a_publish_to_an_internal_exchange_is_refused(broker: Party, client: Client) -> None:
    await client.exchange("x", internal=True)
    await client.publish(b"", "q", exchange="x")

    with pytest.raises(Closed) as refused:
        await client.call(Basic.Qos())

    assert (
        refused.value.text
        == f"ACCESS_REFUSED - cannot publish to internal exchange 'x' in vhost '{broker.vhost}'"
    )


async def test_a_queue_with_messages_is_not_deleted_if_empty_is_asked(broker: Party, client: Client) -> None:
    await client.declare("q")
    await client.confirm()
    await client.confirmed(b"", "q")

    with pytest.raises(Closed) as refused:
        await client.call(Queue.Delete(queue="q", if_empty=True))

    assert refused.value.text == f"PRECONDITION_FAILED - queue 'q' in vhost '{broker.vhost}' not empty"


async def test_an_exclusive_queue_is_locked_for_other_connections(broker: Party, client: Client) -> None:
    await client.declare("q", exclusive=True)
    await client.bind("q", "amq.direct", "k")
    other = await broker.connect()
    methods = [
        Queue.Declare(queue="q", exclusive=True),
        Queue.Declare(queue="q", passive=True),
        Basic.Consume(queue="q"),
        Basic.Get(queue="q"),
        Queue.Purge(queue="q"),
        Queue.Delete(queue="q"),
        Queue.Bind(queue="q", exchange="amq.direct"),
        Queue.Unbind(queue="q", exchange="amq.direct", routing_key="k"),
    ]

    for method in methods:
        with pytest.raises(Closed) as refused:
            await other.call(method)
        assert refused.value.code == 405
        assert refused.value.text == LOCKED.format(name="q", vhost=broker.vhost)[:255]
        await other.open(1)
