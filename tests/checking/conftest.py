"""A node with the management API."""

from collections.abc import Iterator

import anyio
import pytest

from tests.nodes.rabbitmq_node import RabbitMQNode


@pytest.fixture(scope="package")
def managed() -> Iterator[RabbitMQNode]:
    """The node; tests use virtual hosts of their own on it."""
    node = RabbitMQNode(plugins=["rabbitmq_management"])
    try:
        anyio.run(node.start)
        yield node
    finally:
        node.discard()
