"""Fixtures for all tests: the loop, and a RabbitMQ node that is started once for the whole run."""

import os
import secrets
from collections.abc import Iterator

import anyio
import pytest
import trustme

from flow.broker.url import BrokerUrl
from flow.demo.rabbitmq_control import RabbitMQControl
from flow.demo.rabbitmq_node import Certificate, RabbitMQNode

SLOW = (
    "cli",
    "demo",
    "end_to_end",
    "faults",
    "stages/test_schedules.py",
    "test_docs.py",
    "test_pytest_plugin.py",
    "test_supervisor.py",
    "test_typing.py",
)
"""What --quick leaves out beside what needs RabbitMQ: it starts processes, or takes its time."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption("--quick", action="store_true", help="only tests that need neither RabbitMQ nor time")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With --quick leave out what is not quick."""
    if not config.getoption("quick"):
        return
    quick = [item for item in items if is_quick(item)]
    config.hook.pytest_deselected(items=[item for item in items if item not in set(quick)])
    items[:] = quick


def is_quick(item: pytest.Item) -> bool:
    """Tell whether *item* is in --quick."""
    fixtures = set(getattr(item, "fixturenames", ()))
    if fixtures & {"rabbitmq", "conformance"} or item.get_closest_marker("broker"):
        return False
    path = item.path.relative_to(item.config.rootpath / "tests").as_posix()
    return not path.startswith(SLOW)


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the only loop aiormq knows."""
    return "asyncio"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost, and the authority that signed it."""
    folder = tmp_path_factory.mktemp("certificate")
    authority = trustme.CA()
    issued = authority.issue_cert("localhost", "127.0.0.1")
    authority.cert_pem.write_to_path(folder / "authority.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "certificate.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    return Certificate(folder / "authority.pem", folder / "certificate.pem", folder / "key.pem")


@pytest.fixture(scope="session")
def rabbitmq(certificate: Certificate) -> Iterator[RabbitMQControl]:
    """The broker of this run: a private node, or the one that FLOW_TEST_AMQP_URL names.

    The latter needs an account that may do everything and a rabbitmqctl that reaches it.
    """
    if url := os.environ.get("FLOW_TEST_AMQP_URL"):
        named = BrokerUrl.parse(url)
        yield RabbitMQControl(host=named.host, port=named.port, user=named.user, password=named.password)
        return
    node = RabbitMQNode(tls=certificate)
    try:
        anyio.run(node.start)
        yield node
    finally:
        node.discard()


@pytest.fixture
def node(rabbitmq: RabbitMQControl) -> RabbitMQNode:
    """The private node, for tests that kill, freeze or restart it; they leave it running."""
    if not isinstance(rabbitmq, RabbitMQNode):
        pytest.skip("needs a private node, and FLOW_TEST_AMQP_URL names another broker")
    return rabbitmq


@pytest.fixture
def vhost(rabbitmq: RabbitMQControl) -> Iterator[str]:
    """A virtual host for one test."""
    name = f"flow-test-{secrets.token_hex(4)}"
    anyio.run(rabbitmq.add_vhost, name)
    yield name
    anyio.run(rabbitmq.delete_vhost, name)


@pytest.fixture
def amqp_url(rabbitmq: RabbitMQControl, vhost: str) -> str:
    """The URL of the virtual host of this test."""
    return rabbitmq.url(vhost)
