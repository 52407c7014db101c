"""What the tests of the plumbing share: the broker of this run, and a publisher on it."""

from collections.abc import AsyncIterator

import pytest

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl


@pytest.fixture
def url(amqp_url: str) -> BrokerUrl:
    return BrokerUrl.parse(amqp_url)


@pytest.fixture
async def publisher(url: BrokerUrl) -> AsyncIterator[Publisher]:
    publisher = Publisher(url)
    yield publisher
    await publisher.close()
