"""A node with the management API, and a virtual host on it with the plumbing of acme."""

from collections.abc import Iterator

import anyio
import pytest

from tests.nodes.rabbitmq_node import RabbitMQNode


@pytest.fixture(scope="package")
def managed() -> Iterator[RabbitMQNode]:
    node = RabbitMQNode(plugins=["rabbitmq_management"])
    try:
        anyio.run(node.start)
        yield node
    finally:
        node.discard()
