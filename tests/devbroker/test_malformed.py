"""Nonsense on the wire: never a hang, never much memory, never harm to others."""

import logging
import random
import struct
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from resource import RUSAGE_SELF, getrusage
from typing import Any

import anyio
import pamqp.frame
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from flow.devbroker import properties, tables, wire
from flow.devbroker.connection import Connection as ServerConnection
from flow.devbroker.server import DevBroker
from tests.devbroker.client import Client, Closed
from tests.examples import examples

HEADERS = {
    "a": 1,
    "b": "x",
    "c": [1, {"d": None}],
    "CC": ["q"],
    "x-death": [{"count": 1, "queue": "q", "reason": "expired"}],
}
PROPERTIES = Basic.Properties(
    content_type="t", headers=HEADERS, expiration="60000", message_id="i", user_id="guest"
)
ARGUMENTS = {"x-message-ttl": 60_000, "x-dead-letter-exchange": "amq.topic", "x-max-length": 5}
FRAMES: list[tuple[Any, int]] = [
    (Channel.Open(), 2),
    (Queue.Declare(queue="q", arguments=ARGUMENTS), 1),
    (Exchange.Declare(exchange="x", exchange_type="topic"), 1),
    (Queue.Bind(queue="q", exchange="x", routing_key="a.#"), 1),
    (Confirm.Select(), 1),
    (Basic.Qos(prefetch_count=3), 1),
    (Basic.Consume(queue="q", consumer_tag="t", arguments={"a": 1}), 1),
    (Basic.Publish(exchange="x", routing_key="a.b", mandatory=True), 1),
    (ContentHeader(0, 10, PROPERTIES), 1),
    (ContentBody(b"0123456789"), 1),
    (Basic.Ack(1), 1),
    (Basic.Get(queue="q"), 1),
    (Basic.Reject(2, False), 1),
    (Heartbeat(), 0),
    (Basic.Cancel(consumer_tag="t"), 1),
    (Queue.Purge(queue="q"), 1),
    (Channel.Close(200, "", 0, 0), 2),
]
CONVERSATION = [pamqp.frame.marshal(frame, channel) for frame, channel in FRAMES]
HANDSHAKE = (
    wire.GREETING,
    pamqp.frame.marshal(Connection.StartOk(client_properties={"a": {}}, response="\0guest\0guest"), 0),
    pamqp.frame.marshal(Connection.TuneOk(2047, 131072, 0), 0),
    pamqp.frame.marshal(Connection.Open("/"), 0),
)
ENTRANCE = (wire.GREETING, b"\x05PLAIN", b"\0\0\0\x0c\0guest\0guest", b"\x01/")
"""What nobody gets in without: the protocol, the mechanism, the login and the virtual host."""
OPEN = pamqp.frame.marshal(Channel.Open(), 1)
CODES = {0, 311, 403, 404, 405, 406, 501, 502, 503, 504, 505, 530, 540, 541}
MUTATED = 5
CASES = examples(2_000)  # of so many mutated frames each
SLOWEST = 0.5  # seconds for one frame
MEMORY = 64 << 10  # KiB that 10,000 frames may add


class Victim:
    """A connection without a socket, beside another that must not notice."""

    def __init__(self) -> None:
        self.broker = DevBroker()
        self.dropped = False
        self.connection = self.connect()

    def connect(self) -> ServerConnection:
        def drop() -> None:
            self.dropped = True

        connection = ServerConnection(self.broker, lambda: None, drop)
        for octets in (*HANDSHAKE, OPEN):
            connection.feed(octets)
        assert connection.state == "running"
        connection.take()
        return connection

    @property
    def living(self) -> bool:
        """Whether the victim has an open channel 1."""
        channel = self.connection.channels.get(1)
        return self.connection.state == "running" and channel is not None and not channel.closing

    @property
    def codes(self) -> set[int]:
        """The codes with which the victim was closed, 0 for the socket."""
        found = {0} if self.dropped else set()
        rest = self.connection.take()
        while rest:
            kind, _, size = wire.head_of.unpack_from(rest)
            octets, rest = rest[: size + wire.OVERHEAD], rest[size + wire.OVERHEAD :]
            frame = pamqp.frame.unmarshal(octets)[2] if kind == wire.METHOD else None
            if isinstance(frame, Channel.Close | Connection.Close):
                found.add(frame.reply_code)
        return found


def mutated(octets: bytes, chosen: random.Random) -> bytes:
    """Change some octets of a frame; half the time keep its length and its end right."""
    frame = bytearray(octets)
    for _ in range(chosen.randint(1, 4)):
        place = chosen.randrange(len(frame))
        kind = chosen.randrange(5)
        if kind == 0:
            frame[place] = chosen.randrange(256)
        elif kind == 1:
            del frame[place : place + chosen.randint(1, 4)]
        elif kind == 2:
            frame[place:place] = chosen.randbytes(chosen.randint(1, 8))
        elif kind == 3:
            frame[place] ^= 1 << chosen.randrange(8)
        else:
            frame[place : place + 4] = struct.pack(">I", chosen.choice((0, 1, 0xFFFFFFFF, 0x7FFFFFFF, 300)))
        if not frame:
            return b""
    if chosen.random() < 0.7 and len(frame) > 8:
        frame[3:7] = struct.pack(">I", len(frame) - 8)
        frame[-1] = wire.END
    return bytes(frame)


def certain(frame: bytes) -> bool:
    """Whether *frame*, the first that comes, can only be answered with 501."""
    if len(frame) < 8:
        return False
    kind, _, size = wire.head_of.unpack_from(frame)
    if size > 131072:
        return True
    whole = 7 + size < len(frame)
    return whole and (frame[7 + size] != wire.END or kind not in (1, 2, 3, 8) or (kind == 8 and size > 0))


def meet(seed: int, told: Counter[str]) -> None:
    """Have a conversation of which MUTATED frames are nonsense, each met by a connection that is well."""
    chosen = random.Random(seed)
    victim = Victim()
    other = victim.connect()
    places = set(chosen.sample(range(len(CONVERSATION)), MUTATED))
    for place, frame in enumerate(CONVERSATION):
        if place not in places:
            victim.connection.feed(frame)
            continue
        if not victim.living:
            victim.connection = victim.connect()
        victim.connection.take()
        nonsense = mutated(frame, chosen)
        begun = time.monotonic()
        victim.connection.feed(nonsense)
        told["slow"] += time.monotonic() - begun > SLOWEST
        told["mutated"] += 1
        codes = victim.codes
        assert codes <= CODES
        if certain(nonsense):
            told["refused for certain"] += 1
            assert codes == {501}
        told["refused"] += bool(codes)
        victim.dropped = False
        victim.connection = victim.connect()  # it may wait for the rest of a frame
    assert well(other)


def test_mutated_frames_are_refused_and_nobody_else_notices() -> None:
    """10,000 mutated frames (--quick: 1,000), each met by a living connection; what they leave is bounded."""
    told: Counter[str] = Counter()

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(seed=st.integers(0, 1 << 32))
    def cases(seed: int) -> None:
        meet(seed, told)

    before = getrusage(RUSAGE_SELF).ru_maxrss
    cases()

    assert told["mutated"] >= CASES * MUTATED
    assert told["refused"] > told["mutated"] // 2
    assert told["refused for certain"] > told["mutated"] // 10
    assert told["slow"] <= told["mutated"] // 1000  # a machine may stop for a while, the broker may not
    assert getrusage(RUSAGE_SELF).ru_maxrss - before < MEMORY


@settings(
    max_examples=examples(500),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(seed=st.integers(0, 1 << 32))
def test_a_mutated_handshake_gets_nobody_in_by_accident(seed: int) -> None:
    chosen = random.Random(seed)
    victim = Victim()
    handshake = list(HANDSHAKE)
    place = chosen.randrange(len(handshake))
    handshake[place] = mutated(handshake[place], chosen)
    connection = ServerConnection(victim.broker, lambda: None, lambda: None)

    for octets in handshake:
        connection.feed(octets)

    said = b"".join(handshake)
    if not all(part in said for part in ENTRANCE):
        assert connection.state != "running"
    assert well(victim.connection)


@settings(
    max_examples=examples(300),
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    database=None,
)
@given(cuts=st.lists(st.integers(1, 40), min_size=1, max_size=40))
def test_frames_may_be_cut_anywhere(cuts: list[int]) -> None:
    victim = Victim()
    octets = b"".join(CONVERSATION)
    whole = Victim()
    whole.connection.feed(octets)

    at = 0
    for cut in cuts:
        victim.connection.feed(octets[at : at + cut])
        at += cut
    victim.connection.feed(octets[at:])

    confirm = wire.ack_frame(1, 1, False)  # it does not come if the channel ends in the same segment
    said, said_by_whole = (one.connection.take().replace(confirm, b"") for one in (victim, whole))
    assert len(said) == len(said_by_whole)


TEXTS = st.sampled_from(("", "q", "dead", "expired", "rejected", "amq.fanout", "amq.topic", "k" * 256))
VALUES = st.one_of(
    TEXTS.map(tables.longstr),
    st.binary(max_size=400).map(lambda octets: b"S" + tables.sized(octets)),
    st.integers(0, (1 << 64) - 1).map(tables.long),
    st.binary(min_size=8, max_size=8).map(lambda octets: b"T" + octets),
    st.sampled_from((tables.long((1 << 63) - 1), b"V", b"t\x01", b"D\xff\xff\xff\xff\xff", b"f\x7f\xc0\0\0")),
)
DEATHS = st.fixed_dictionaries(
    {}, optional={"queue": TEXTS.map(tables.longstr), "reason": TEXTS.map(tables.longstr), "count": VALUES}
)
LISTS = st.lists(st.one_of(VALUES, DEATHS.map(lambda death: b"F" + tables.write_table(death)))).map(
    tables.array
)
FORGED = st.dictionaries(
    st.sampled_from(("x-death", "x-first-death-queue", "x-delivery-count", "a" * 255)),
    st.one_of(VALUES, LISTS),
)
COPIES = st.one_of(st.just({}), LISTS.map(lambda keys: {"CC": keys}))
TERMS = st.fixed_dictionaries(
    {
        "x-message-ttl": st.just(tables.long(1000)),
        "x-dead-letter-exchange": st.one_of(TEXTS.map(tables.longstr), VALUES),
    },
    optional={
        "x-dead-letter-routing-key": VALUES,
        "x-max-length": VALUES,
        "x-max-priority": VALUES,
        "x-single-active-consumer": VALUES,
    },
)


def test_forged_headers_and_names_that_are_too_long_end_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """What dies with them, rejected or of age, is no defect, whatever any publisher wrote."""

    @settings(
        max_examples=examples(1_000),
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    @given(terms=TERMS, headers=FORGED, copies=COPIES)
    def cases(terms: tables.Table, headers: tables.Table, copies: tables.Table) -> None:
        victim = Victim()
        other = victim.connect()
        for method in (
            Queue.Declare(queue="dead"),
            Queue.Bind(queue="dead", exchange="amq.fanout"),
            Queue.Bind(queue="dead", exchange="amq.topic", routing_key="#"),
        ):
            other.feed(pamqp.frame.marshal(method, 1))
        victim.connection.feed(table(b"".join(tables.short(name) + terms[name] for name in terms)))
        for _ in range(2):
            victim.connection.feed(published("q", headers | copies))
        for method in (Basic.Get(queue="q"), Basic.Reject(1, False)):
            victim.connection.feed(pamqp.frame.marshal(method, 1))

        victim.broker.clock.advance(2)

        assert victim.codes <= CODES - {0}
        assert well(other)
        other.feed(pamqp.frame.marshal(Basic.Consume(queue="dead"), 1))
        assert well(victim.connect())

    cases()
    assert not caplog.records


def published(key: str, headers: tables.Table) -> bytes:
    """Write the frames of a message with *headers*."""
    found = properties.join({properties.HEADERS: tables.write_table(headers)})
    header = wire.header_of.pack(wire.HEADER, 1, 12 + len(found), 60, 0, 0) + found + wire.END_OCTET
    return pamqp.frame.marshal(Basic.Publish(routing_key=key), 1) + header


def well(connection: ServerConnection) -> bool:
    """Whether a connection still declares, publishes and gets."""
    for frame in (
        Queue.Declare(queue="well"),
        Basic.Publish(routing_key="well"),
        ContentHeader(0, 2, Basic.Properties()),
        ContentBody(b"ok"),
        Basic.Get(queue="well", no_ack=True),
    ):
        connection.feed(pamqp.frame.marshal(frame, 1))
    return connection.take().endswith(b"ok\xce")


@pytest.fixture
async def dev(caplog: pytest.LogCaptureFixture) -> AsyncIterator[DevBroker]:
    caplog.set_level(logging.ERROR)
    async with DevBroker() as broker:
        yield broker
    assert not caplog.records


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(10))
async def test_nonsense_on_a_socket_ends_it_and_no_other(dev: DevBroker, seed: int) -> None:
    chosen = random.Random(seed)
    async with await Client.connect(dev.url()) as witness:
        client = await Client.connect(dev.url())
        await client.stream.send(
            b"".join(mutated(frame, chosen) for frame in CONVERSATION) + chosen.randbytes(200)
        )
        await client.stream.send_eof()

        with anyio.fail_after(20):
            await end(client)

        await witness.declare("q2")
        assert await witness.nothing()


async def end(client: Client) -> None:
    """Read until the broker closes the socket."""
    try:
        while True:
            await client.stream.receive()
    except (anyio.EndOfStream, anyio.BrokenResourceError):
        await client.stream.aclose()


SLOW: list[Callable[[], bytes]] = [
    lambda: table(b"F" * 20_000),
    lambda: table(b"".join(b"\x01aF" + struct.pack(">I", 130_000 - 7 * depth) for depth in range(1, 15_000))),
    lambda: table(b"\x01aF\x00\x00\x00\x00" * 18_000),
    lambda: table(b"\x01aA" + struct.pack(">I", 120_000) + b"V" * 120_000),
]


def table(content: bytes) -> bytes:
    """Write queue.declare with arguments of our own making."""
    content = content[:131_000]
    method = b"\x00\x32\x00\x0a\x00\x00\x01q\x00" + struct.pack(">I", len(content)) + content
    return struct.pack(">BHI", 1, 1, len(method)) + method + b"\xce"


@pytest.mark.parametrize("make", SLOW)
def test_tables_made_to_be_slow_are_read_fast(make: Callable[[], bytes]) -> None:
    victim = Victim()
    begun = time.monotonic()

    for _ in range(5):
        victim.connection.feed(make())

    assert time.monotonic() - begun < 10


def test_a_topic_made_to_be_slow_is_matched_fast() -> None:
    victim = Victim()
    broker = victim.broker.vhost("/")
    assert broker is not None
    queue = broker.add_queue("q", {})
    exchange = broker.exchanges["amq.topic"]
    exchange.bind("q", queue, ".".join(["#", "a"] * 60), b"")
    begun = time.monotonic()

    assert exchange.route(".".join(["a"] * 59)) == ()

    assert time.monotonic() - begun < 5


@pytest.mark.anyio
async def test_a_body_larger_than_the_limit_is_refused_before_it_comes(dev: DevBroker) -> None:
    async with await Client.connect(dev.url()) as client:
        await client.send(Basic.Publish(routing_key="q"), ContentHeader(0, 1 << 40, Basic.Properties()))

        with pytest.raises(Closed) as refused:
            await client.receive()

    assert refused.value.code == 406
