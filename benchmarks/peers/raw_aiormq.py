"""The client library alone: a callback that decodes to dicts and acknowledges each message."""

import asyncio

import aiormq
import msgspec
from aiormq.abc import DeliveredMessage
from clock import Clock

decode = msgspec.json.Decoder().decode


async def main() -> None:
    """Consume until the last message; then a round trip, so that its acknowledgement is at the broker."""
    options = clock.options
    connection = await aiormq.connect(clock.url)
    channel = await connection.channel(publisher_confirms=False)
    await channel.basic_qos(prefetch_count=options.prefetch)
    over = asyncio.Event()

    async def receive(message: DeliveredMessage) -> None:
        last = clock.tick()
        decode(message.body)
        await channel.basic_ack(message.delivery_tag)
        if last:
            over.set()

    await channel.basic_consume(options.queue, receive)
    await over.wait()
    await channel.queue_declare(options.queue, passive=True)
    clock.report()
    await connection.close()


clock = Clock()
clock.run(main())
