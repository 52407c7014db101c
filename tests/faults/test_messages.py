"""Messages that cannot be read, among good ones."""

import json

import anyio
import pamqp.frame
import pytest
from aiormq.abc import ChannelFrame
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from tests.faults.ledger import NAME, QUEUE, channel
from tests.faults.world import World

pytestmark = pytest.mark.anyio

GOOD = json.dumps({"id": "x", "n": 1, "name": NAME})
POISON = {
    "truncated": GOOD[:-3].encode(),
    "empty": b"",
    "another type": b"[1, 2]",
    "wrong type": json.dumps({"id": "x", "n": NAME, "name": NAME}).encode(),
    "byte order mark": b"\xef\xbb\xbf" + GOOD.encode(),
    "UTF-16": GOOD.encode("utf-16"),
    "no UTF-8": GOOD.replace(NAME, "\udcff").encode("utf-8", "surrogateescape"),
    "not a number": GOOD.replace("1", "NaN").encode(),
    "deep": b"[" * 100_000 + b"]" * 100_000,
    "long number": GOOD.replace("1", "9" * 1_000_000).encode(),
    "two values": (GOOD + GOOD).encode(),
    "zeros": b"\0" * 1000,
}
LATIN = "Straße".encode("latin-1")
FAR = (1 << 63) - 1  # seconds: the year 292277026596


@pytest.mark.timeout(120)
async def test_bodies_that_cannot_be_read(world: World) -> None:
    """F31: each is parked once, with a reason that quotes nothing; the neighbours are delivered."""
    bodies = []
    for name, body in POISON.items():
        good = await world.ledger.publish(3)
        bodies.append((f"poison {name}", body))
        await world.ledger.publish_bodies(bodies[-1:])
    doubled = good[-1], GOOD.replace('"id": "x"', f'"id": "y", "id": "{good[-1]}"').encode()
    await world.ledger.publish_bodies([doubled])  # of two the last counts

    running = await world.run("Batches")
    good_ones = {one for one in world.ledger.confirmed if not one.startswith("poison")}
    await world.told(good_ones)
    with anyio.fail_after(60):
        await world.sink.until(lambda: world.ledger.effects[good[-1]] == 2)
    while sum(" parked " in line for line in running.lines) < len(POISON):  # noqa: ASYNC110
        await anyio.sleep(0.05)
    await world.stop(running)

    await world.check(again=1)
    assert set(world.ledger.parked) == {f"poison {name}" for name in POISON}
    assert running.account == running.account | {"retrying": 0, "parked": len(POISON), "stale": 0}


@pytest.mark.timeout(120)
async def test_properties_that_cannot_be_read(world: World) -> None:
    """F32: nothing of them is needed for a body that can be read; the connection lives."""
    odd = {
        "key of the route": lambda one: raw(one, key=LATIN),
        "name of a header": lambda one: raw(one, headers=field(LATIN, b"S" + long(b"x"))),
        "value of a header": lambda one: raw(one, headers=field(b"name", b"S" + long(LATIN))),
        "far time in a header": lambda one: raw(one, headers=field(b"at", b"T" + FAR.to_bytes(8, "big"))),
        "deep table": lambda one: raw(one, headers=nested(1000)),
        "message id": lambda one: raw(one, message_id=LATIN),
        "far time": lambda one: raw(one, timestamp=FAR),
    }
    await world.ledger.publish(5)
    async with channel(world.url, confirms=False) as open_channel:
        await open_channel.exchange_declare("odd", exchange_type="fanout", durable=True)
        await open_channel.queue_bind(QUEUE, "odd")
        for make in odd.values():
            one = world.ledger.body()
            await open_channel.write_queue.put(ChannelFrame(payload=make(one[1]), should_close=False))
            world.ledger.attempted.add(one[0])
            world.ledger.confirmed.add(one[0])
        await open_channel.queue_declare(QUEUE, passive=True)  # answered after all of them
    await world.ledger.publish(5)

    running = await world.run("Batches")
    await world.ends()
    await world.stop(running)

    await world.check()
    assert running.account == running.account | {"delivered": 10 + len(odd), "parked": 0, "stale": 0}


def raw(
    body: bytes,
    *,
    key: bytes = b"k",
    headers: bytes = b"",
    message_id: bytes | None = None,
    timestamp: int | None = None,
) -> bytes:
    """Return the frames that publish *body* to the exchange `odd` with properties no library would write."""
    flags = 0x2000 | (0x80 if message_id is not None else 0) | (0x40 if timestamp is not None else 0)
    content = b"\0\x3c\0\0" + len(body).to_bytes(8, "big") + flags.to_bytes(2, "big") + long(headers)
    content += b"" if message_id is None else short(message_id)
    content += b"" if timestamp is None else timestamp.to_bytes(8, "big")
    method = b"\0\x3c\0\x28\0\0" + short(b"odd") + short(key) + b"\0"
    return framed(1, method) + framed(2, content) + framed(3, body)


def framed(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + b"\0\x01" + long(content) + b"\xce"


def long(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


def short(text: bytes) -> bytes:
    return bytes([len(text)]) + text


def field(name: bytes, value: bytes) -> bytes:
    return short(name) + value


def nested(levels: int) -> bytes:
    table = b""
    for _ in range(levels):
        table = field(b"t", b"F" + long(table))
    return table


def test_the_frames_are_what_the_library_writes() -> None:
    """Where nothing is odd."""
    properties = Basic.Properties(headers={"name": "x"}, message_id="id")
    expected = [
        Basic.Publish(exchange="odd", routing_key="k"),
        ContentHeader(body_size=2, properties=properties),
        ContentBody(b"{}"),
    ]

    made = raw(b"{}", headers=field(b"name", b"S" + long(b"x")), message_id=b"id")

    assert made == b"".join(pamqp.frame.marshal(one, 1) for one in expected)
