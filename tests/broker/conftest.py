"""Fixtures of the tests that talk to a real broker."""

from collections.abc import AsyncIterator

import anyio
import pytest

from flow.broker.url import BrokerUrl
from tests.broker.queues import Queues, connected


@pytest.fixture
def url(amqp_url: str) -> BrokerUrl:
    """The address of the virtual host of this test."""
    return BrokerUrl.parse(amqp_url)


@pytest.fixture
async def queues(amqp_url: str) -> AsyncIterator[Queues]:
    """Queues in the virtual host of this test."""
    connection = await connected(amqp_url)
    yield Queues(await connection.channel())
    with anyio.move_on_after(3):
        await connection.close()
