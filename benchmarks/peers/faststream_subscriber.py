"""FastStream with its defaults: a subscriber that takes the body as a dict; each message is acknowledged."""

import asyncio

from clock import Clock
from faststream.rabbit import Channel, RabbitBroker, RabbitQueue


async def main() -> None:
    """Consume until the last message; stopping waits for the acknowledgements and the broker's answer."""
    options = clock.options
    broker = RabbitBroker(clock.url, default_channel=Channel(prefetch_count=options.prefetch), logger=None)
    over = asyncio.Event()

    @broker.subscriber(RabbitQueue(options.queue, declare=False))
    async def receive(body: dict) -> None:  # type: ignore[type-arg]
        if clock.tick():
            over.set()

    await broker.start()
    await over.wait()
    await broker.stop()
    clock.report()


clock = Clock()
clock.run(main())
