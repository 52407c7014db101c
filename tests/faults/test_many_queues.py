"""Three hundred queues in one pipeline: what is wrong with one touches no other."""

import logging
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from typing import Any

import anyio
import msgspec
import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from flow import Message, Pipeline
from flow.broker.url import BrokerUrl
from flow.plumbing.setup import set_up, topology_for
from flow.runner import Runner
from flow.topology import DEAD_QUEUE, RETRY_QUEUE
from tests.broker.queues import connected, eventually, until

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

QUEUES = [f"number.{number}" for number in range(300)]
POISONED, DELETED, FULL = QUEUES[100], QUEUES[200], QUEUES[299]
EACH = 5


class Sent(msgspec.Struct):
    """What the messages hold: where they were sent, and which of that queue they are."""

    queue: str
    n: int


class Many(Pipeline[Sent]):
    """Consumes all of them; one makes its handler fail."""

    dead_letter = "assume"
    retry_delay = 1.0

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.seen: Counter[tuple[str, int]] = Counter()
        self.failed: Counter[int] = Counter()

    async def queues(self) -> AsyncIterator[Sequence[str]]:
        yield QUEUES

    async def handle_message(self, message: Message[Sent]) -> None:  # type: ignore[override]
        assert message.body.queue == message.queue
        if message.queue == POISONED:
            self.failed[message.body.n] += 1
            raise RuntimeError("poisoned")
        self.seen[message.queue, message.body.n] += 1


async def publish(channel: AbstractChannel, queue: str, numbers: range) -> None:
    """Publish to *queue*, confirmed."""
    async with anyio.create_task_group() as group:
        for n in numbers:
            body = msgspec.json.encode(Sent(queue, n))
            group.start_soon(publish_one, channel, queue, body)


async def publish_one(channel: AbstractChannel, queue: str, body: bytes) -> None:
    properties = Basic.Properties(delivery_mode=2)
    await channel.basic_publish(body, routing_key=queue, properties=properties, mandatory=True)


@pytest.mark.timeout(240)
async def test_what_is_wrong_with_one_queue_touches_no_other(
    amqp_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F15, F35: one is poisoned, one deleted and made again, one a hundred times as full as the others."""
    caplog.set_level(logging.CRITICAL, "flow")
    url = BrokerUrl.parse(amqp_url)
    topology = topology_for(queues=QUEUES, queue_type="classic", retry_delay=1.0)
    await set_up(url, topology)
    connection = await connected(amqp_url)
    channel = await connection.channel()
    for queue in QUEUES:
        await publish(channel, queue, range(100 * EACH if queue == FULL else EACH))
    pipeline = Many()
    runner = Runner(pipeline, url)
    sent = {(queue, n) for queue in QUEUES if queue not in (POISONED, FULL) for n in range(EACH)}
    sent |= {(FULL, n) for n in range(100 * EACH)}

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(runner.run)
        await until(lambda: runner.unready() is None, 60)
        await until(lambda: sum(pipeline.seen[DELETED, n] for n in range(EACH)) == EACH, 60)
        await channel.queue_delete(DELETED)
        await set_up(url, topology_for(queues=[DELETED], queue_type="classic", retry_delay=1.0))
        await publish(channel, DELETED, range(EACH, 2 * EACH))
        sent |= {(DELETED, n) for n in range(EACH, 2 * EACH)}
        await until(lambda: set(pipeline.seen) == sent, 90)
        await until(lambda: sum(pipeline.failed.values()) >= EACH)
        runner.stop()

    async def poisoned_are_kept() -> bool:
        looks = [
            await channel.queue_declare(one, passive=True) for one in (POISONED, RETRY_QUEUE, DEAD_QUEUE)
        ]
        return sum(look.message_count or 0 for look in looks) == EACH

    await eventually(poisoned_are_kept)
    await connection.close()

    account = runner.account
    assert set(pipeline.seen.values()) == {1}, "each exactly once"
    assert account.delivered == len(sent)
    assert account.open == 0
    assert set(pipeline.failed) == set(range(EACH))
