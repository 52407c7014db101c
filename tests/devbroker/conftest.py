"""One suite, two brokers: every test that takes `broker` runs against the devbroker and against RabbitMQ."""

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import anyio
import pytest

from flow.devbroker.server import DevBroker
from tests.devbroker.client import Client, Closed
from tests.nodes.rabbitmq_control import RabbitMQControl

VHOST = "conformance"


@dataclass
class Party:
    """One of the two brokers."""

    url: str
    vhost: str
    dev: DevBroker | None = None
    control: RabbitMQControl | None = None
    clients: list[Client] = field(default_factory=list)
    accounts: list[str] = field(default_factory=list)

    async def connect(self, **changes: Any) -> Client:
        """Open a connection, closed at the end of the test."""
        client = await Client.connect(self.url, **changes)
        self.clients.append(client)
        return client

    async def wait(self, seconds: float) -> None:
        """Let time pass: at once where the clock can be moved."""
        if self.dev is not None:
            self.dev.clock.advance(seconds)
        else:
            await anyio.sleep(seconds)

    async def clean(self) -> None:
        """Close the clients and remove what they declared."""
        declared = [method for client in self.clients for method in client.declared]
        for client in self.clients:
            async with client:
                pass
        async with await Client.connect(self.url) as client:
            for method in declared:
                with suppress(Closed):
                    await client.call(method)
                    continue
                await client.open(1)
        for name in self.accounts:
            if self.control is not None:
                await self.control.delete_user(name)


@pytest.fixture(scope="session")
def conformance(request: pytest.FixtureRequest) -> Iterator[tuple[RabbitMQControl, str]]:
    """The real broker, with a virtual host for all tests of the suite."""
    rabbitmq: RabbitMQControl = request.getfixturevalue("rabbitmq")
    name = f"flow-conformance-{secrets.token_hex(4)}"
    anyio.run(rabbitmq.add_vhost, name)
    yield rabbitmq, name
    anyio.run(rabbitmq.delete_vhost, name)


@pytest.fixture(params=["devbroker", pytest.param("rabbitmq", marks=pytest.mark.broker)])
def real(request: pytest.FixtureRequest) -> tuple[RabbitMQControl, str] | None:
    """The real broker and its virtual host; None stands for the devbroker."""
    if request.param == "devbroker":
        return None
    found: tuple[RabbitMQControl, str] = request.getfixturevalue("conformance")
    return found


@pytest.fixture
async def broker(real: tuple[RabbitMQControl, str] | None) -> AsyncIterator[Party]:
    """Each of the two brokers in turn."""
    if real is not None:
        control, vhost = real
        party = Party(control.url(vhost), vhost, control=control)
        yield party
        await party.clean()
        return
    async with DevBroker() as dev:
        dev.add_vhost(VHOST)
        party = Party(dev.url(VHOST), VHOST, dev=dev)
        yield party
        await party.clean()


@pytest.fixture
async def client(broker: Party) -> Client:
    """A connection with an open channel."""
    return await broker.connect()
