"""A broker for each test that asks for one."""

from collections.abc import AsyncIterator

import pytest

from flow.devbroker.server import DevBroker


@pytest.fixture
async def devbroker(anyio_backend: object) -> AsyncIterator[DevBroker]:
    """An AMQP broker in memory, on a free port: `devbroker.url()`, `devbroker.clock`, `devbroker.faults`."""
    async with DevBroker() as broker:
        yield broker
