"""How long the messages of many quiet queues wait in one pipeline, alone and beside a queue that is full.

    python benchmarks/queues.py [--url URL] [--queues 300] [--messages 3000] [--full 50000]

Every message takes its handler 2 ms of waiting. The quiet queues get *messages* in turn at 300 a second; the
full one holds *full* from the beginning. Prints one table: milliseconds from publishing to the handler.
"""

import argparse
import logging
import statistics
import time
from collections.abc import AsyncIterator, Sequence

import aiormq
import anyio
import msgspec
from aiormq.abc import AbstractChannel

from flow import Message, Pipeline
from flow.broker.url import BrokerUrl
from flow.runner import Runner
from tests.nodes.rabbitmq_node import RabbitMQNode

RATE = 300.0  # messages published in a second
FULL = "full"


class Sent(msgspec.Struct):
    """What the messages hold: when they were published, in monotonic seconds."""

    at: float


class Many(Pipeline[Sent]):
    """Notes how long the messages of quiet queues waited; its settings are the queues and these waits."""

    dead_letter = "assume"

    async def queues(self) -> AsyncIterator[Sequence[str]]:
        yield self.settings[0]

    async def handle_message(self, message: Message[Sent]) -> None:
        if message.queue != FULL:
            self.settings[1].append(time.monotonic() - message.body.at)
        await anyio.sleep(0.002)


async def measure(url: str, names: list[str], messages: int, full: int) -> list[float]:
    """Return the waits of *messages* in the quiet queues while one holds *full* of them."""
    connection = await aiormq.connect(url)
    channel = await connection.channel(publisher_confirms=False)
    for name in [*names, FULL]:
        await channel.queue_declare(name)
        await channel.queue_purge(name)
    for _ in range(full):
        await publish(channel, FULL)
    waits: list[float] = []
    runner = Runner(Many(([*names, FULL], waits)), BrokerUrl.parse(url))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        while runner.unready() is not None:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        start = anyio.current_time()
        for number in range(messages):
            await anyio.sleep_until(start + number / RATE)
            await publish(channel, names[number % len(names)])
        while len(waits) < messages:  # noqa: ASYNC110
            await anyio.sleep(0.05)
        left = (await channel.queue_declare(FULL, passive=True)).message_count
        runner.stop()
    await connection.close()
    if full and not left:
        raise RuntimeError("the full queue was empty before the end: give it more with --full")
    return waits


async def publish(channel: AbstractChannel, queue: str) -> None:
    """Publish one message."""
    await channel.basic_publish(msgspec.json.encode(Sent(time.monotonic())), routing_key=queue)


async def table(url: str, options: argparse.Namespace) -> None:
    """Measure and print."""
    names = [f"quiet.{number}" for number in range(options.queues - 1)]
    print("| quiet queues | median ms | 95 % below | slowest |\n|---|---|---|---|")
    for title, full in (("alone", 0), ("beside a full one", options.full)):
        waits = sorted(1000 * one for one in await measure(url, names, options.messages, full))
        late = waits[int(0.95 * len(waits))]
        print(f"| {title} | {statistics.median(waits):.1f} | {late:.1f} | {waits[-1]:.1f} |")


async def main(options: argparse.Namespace) -> None:
    """Measure on the broker that is named, or on one of its own."""
    logging.getLogger("flow").setLevel(logging.ERROR)
    if options.url:
        await table(options.url, options)
        return
    async with RabbitMQNode() as node:
        await table(node.url(), options)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--url")
    parser.add_argument("--queues", type=int, default=300)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--full", type=int, default=50_000)
    anyio.run(main, parser.parse_args())
