"""How fast the development broker is, beside RabbitMQ: publish, route, deliver, acknowledge small bodies.

Both brokers run at the same time and are measured in turns by the same client, which knows frames and
nothing else. Prints one table; `--memory` fills a queue with a million messages instead.
"""

import argparse
import asyncio
import statistics
import struct
import sys
import time
from contextlib import suppress

import anyio
import pamqp.frame
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Connection, Queue
from pamqp.header import ContentHeader, ProtocolHeader

from tests.nodes.rabbitmq_node import RabbitMQNode

BODY = b'{"actionId": 7, "actionPageId": 3, "orgId": 2, "schema": "proca:ids:1"}'
BURST = 100  # messages written at once
WINDOW = 1000  # the prefetch, and how far the publisher may be ahead
BROKER = """
import anyio, importlib.util
from flow.devbroker.server import DevBroker

async def main():
    async with DevBroker() as broker:
        print(broker.port, flush=True)
        await anyio.sleep_forever()

anyio.run(main, backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None})
"""


class Client:
    """A connection with one channel."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, port: int) -> "Client":
        client = cls(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 20))
        client.writer.write(ProtocolHeader(0, 9, 1).marshal())
        await client.method()
        client.send(Connection.StartOk(client_properties={}, response="\0guest\0guest"), 0)
        await client.method()
        client.send(Connection.TuneOk(2047, 131072, 0), 0)
        client.send(Connection.Open("/"), 0)
        await client.method()
        client.send(Channel.Open())
        await client.method()
        return client

    def send(self, frame: object, channel: int = 1) -> None:
        self.writer.write(pamqp.frame.marshal(frame, channel))

    async def call(self, frame: object) -> None:
        self.send(frame)
        await self.method()

    async def method(self) -> None:
        head = await self.reader.readexactly(7)
        await self.reader.readexactly(int.from_bytes(head[3:], "big") + 1)


def publish(key: str) -> bytes:
    frames = (
        Basic.Publish(routing_key=key),
        ContentHeader(0, len(BODY), Basic.Properties()),
        ContentBody(BODY),
    )
    return b"".join(pamqp.frame.marshal(frame, 1) for frame in frames)


async def measure(port: int, count: int) -> float:
    """Return messages per second."""
    publisher, consumer = await Client.connect(port), await Client.connect(port)
    await consumer.call(Queue.Delete(queue="bench"))
    await consumer.call(Queue.Declare(queue="bench"))
    await consumer.call(Basic.Qos(prefetch_count=WINDOW))
    await consumer.call(Basic.Consume(queue="bench"))
    burst = publish("bench") * BURST
    received, room = 0, asyncio.Event()

    async def feed() -> None:
        for sent in range(0, count, BURST):
            while sent - received > WINDOW:
                room.clear()
                await room.wait()
            publisher.writer.write(burst)
            await publisher.writer.drain()

    begun = time.perf_counter()
    feeding = asyncio.create_task(feed())
    rest = b""
    while received < count:
        rest += await consumer.reader.read(1 << 18)
        got, rest = deliveries(rest)
        received += got
        room.set()
        if got:
            consumer.send(Basic.Ack(received, True))
    await consumer.call(Basic.Qos())  # the acks before it have been worked
    rate = count / (time.perf_counter() - begun)
    await feeding
    for client in (publisher, consumer):
        client.writer.close()
    return rate


def deliveries(octets: bytes) -> tuple[int, bytes]:
    """Return how many bodies have come, and what is no whole frame yet."""
    at = found = 0
    while at + 7 <= len(octets):
        kind, _, size = struct.unpack_from(">BHI", octets, at)
        if at + 8 + size > len(octets):
            break
        at += 8 + size
        found += kind == 3
    return found, octets[at:]


async def memory(port: int, pid: int, count: int) -> None:
    """Print what *count* messages in a queue take."""
    client = await Client.connect(port)
    await client.call(Queue.Declare(queue="bench"))
    before = resident(pid)
    burst = publish("bench") * BURST
    begun = time.perf_counter()
    for _ in range(0, count, BURST):
        client.writer.write(burst)
        await client.writer.drain()
    await client.call(Basic.Qos())
    taken = resident(pid) - before
    seconds = time.perf_counter() - begun
    print(
        f"{count} messages of {len(BODY)} octets: {taken / 1e6:.0f} MB, {taken / count:.0f} octets each, "
        f"published in {seconds:.1f} s"
    )


def resident(pid: int) -> int:
    """Return the memory of a process in octets."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmRSS"))


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000, help="messages per measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="?", const=1_000_000, help="fill a queue instead")
    options = parser.parse_args()
    broker = await asyncio.create_subprocess_exec(
        sys.executable, "-c", BROKER, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert broker.stdout is not None
        port = int(await broker.stdout.readline())
        if options.memory:
            await memory(port, broker.pid, options.memory)
            return
        async with RabbitMQNode() as node:
            await compare({"devbroker": port, "RabbitMQ": node.port}, options.count, options.rounds)
    finally:
        with suppress(ProcessLookupError):
            broker.kill()
        await broker.wait()


async def compare(ports: dict[str, int], count: int, rounds: int) -> None:
    """Measure the brokers in turns and print one row each."""
    rates: dict[str, list[float]] = {name: [] for name in ports}
    for _ in range(rounds):
        for name, port in ports.items():
            rates[name].append(await measure(port, count))
    print(f"{'broker':<12}{'median/s':>10}{'lowest':>10}{'highest':>10}")
    for name, found in rates.items():
        print(f"{name:<12}{statistics.median(found):>10.0f}{min(found):>10.0f}{max(found):>10.0f}")
    ratio = statistics.median(rates["devbroker"]) / statistics.median(rates["RabbitMQ"])
    print(f"devbroker / RabbitMQ: {ratio:.2f}")


if __name__ == "__main__":
    anyio.run(main)
