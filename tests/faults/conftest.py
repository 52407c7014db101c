"""The world of one test; a module that breaks its broker replaces `rabbitmq` with a node of its own."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import anyio
import pytest

from tests.faults.world import World, opened
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode


@pytest.fixture
async def world(rabbitmq: RabbitMQControl, vhost: str, tmp_path: Path) -> AsyncIterator[World]:
    async with opened(rabbitmq, vhost, tmp_path) as made:
        yield made


# What a dead-letter exchange does not take, or did not confirm before the broker was killed, is offered again
# after 2 seconds instead of 180.
PROMPT = "{dead_letter_worker_publisher_confirm_timeout, 2000}"


def private_node(*options: str) -> Iterator[RabbitMQNode]:
    """Run a node with *options* of the application `rabbit` for one module."""
    node = RabbitMQNode(advanced=f"[{{rabbit, [{', '.join([PROMPT, *options])}]}}].")
    try:
        anyio.run(node.start)
        yield node
    finally:
        node.discard()
