"""Fixtures for all tests: the loop, and the servers that are started once for the whole run."""

import os
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest
from anyio.from_thread import start_blocking_portal
from hypothesis import settings

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.records.database import Database
from tests.broker.queues import Queues, connected
from tests.examples import QUICK, USUAL
from tests.nodes.postgresql_control import PostgreSQLControl
from tests.nodes.postgresql_node import PostgreSQLNode
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import Certificate, RabbitMQNode, free_ports
from tests.targets.sqs_server import SqsServer

SLOW = (
    "tests/broker/test_tap.py",
    "tests/cli",
    "tests/demo",
    "tests/end_to_end",
    "tests/faults",
    "tests/pipelines",
    "tests/plumbing/test_outbox.py",
    "tests/serving/test_app.py",
    "tests/serving/test_browser.py",
    "tests/serving/test_serve.py",
    "tests/stages/test_schedules.py",
    "tests/targets/test_sqs.py",
    "tests/test_docs.py",
    "tests/test_ops.py",
    "tests/test_pytest_plugin.py",
    "tests/test_supervisor.py",
    "tests/test_typing.py",
)
"""What --quick leaves out beside what needs RabbitMQ or PostgreSQL or is marked slow.

It starts processes or servers of its own, or waits for the clock.
"""

# A machine with much to do is no defect of what is tested.
settings.register_profile("patient", deadline=None, max_examples=USUAL)
settings.register_profile("quick", settings.get_profile("patient"), max_examples=QUICK)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --quick."""
    parser.addoption("--quick", action="store_true", help="only tests that need neither a server nor time")


def pytest_configure(config: pytest.Config) -> None:
    """Say how many examples there are before a file reads it."""
    settings.load_profile("quick" if config.getoption("quick") else "patient")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """With --quick do not even read what is left out."""
    place = collection_path.relative_to(config.rootpath).as_posix()
    return True if config.getoption("quick") and place.startswith(SLOW) else None


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
    if fixtures & {"rabbitmq", "conformance", "postgresql"} or item.get_closest_marker("broker"):
        return False
    if "postgresql" in item.name:  # by a parameter of a fixture that takes either database
        return False
    return item.get_closest_marker("slow") is None


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, the only loop aiormq knows."""
    return "asyncio"


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    """A certificate for localhost, and the authority that signed it."""
    return Certificate.issued(tmp_path_factory.mktemp("certificate"), "localhost", "127.0.0.1")


@contextmanager
def started(node: RabbitMQNode) -> Iterator[RabbitMQNode]:
    """Start *node*, and end it and all that it keeps."""
    try:
        anyio.run(node.start)
        yield node
    finally:
        node.discard()


@pytest.fixture(scope="session")
def rabbitmq(certificate: Certificate) -> Iterator[RabbitMQControl]:
    """The broker of this run: a private node, or the one that FLOW_TEST_AMQP_URL names.

    The latter needs an account that may do everything and a rabbitmqctl that reaches it.
    """
    if url := os.environ.get("FLOW_TEST_AMQP_URL"):
        named = BrokerUrl.parse(url)
        yield RabbitMQControl(host=named.host, port=named.port, user=named.user, password=named.password)
        return
    with started(RabbitMQNode(tls=certificate)) as node:
        yield node


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


@pytest.fixture
def url(amqp_url: str) -> BrokerUrl:
    """The same, taken apart."""
    return BrokerUrl.parse(amqp_url)


@pytest.fixture
async def publisher(url: BrokerUrl) -> AsyncIterator[Publisher]:
    """A publisher in the virtual host of this test."""
    publisher = Publisher(url)
    yield publisher
    await publisher.close()


@pytest.fixture
async def queues(amqp_url: str) -> AsyncIterator[Queues]:
    """Queues in the virtual host of this test."""
    connection = await connected(amqp_url)
    yield Queues(await connection.channel())
    with anyio.move_on_after(3):
        await connection.close()


@pytest.fixture(scope="session")
def managed() -> Iterator[RabbitMQNode]:
    """A node with the management API; tests use virtual hosts of their own on it."""
    with started(RabbitMQNode(plugins=["rabbitmq_management"])) as node:
        yield node


@pytest.fixture
def unused_port() -> int:
    """A port at which nobody listens."""
    return free_ports(1)[0]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials as AWS finds them in the environment, and nothing of who runs the tests."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def sqs() -> Iterator[SqsServer]:
    """A server of SQS for the tests of one file."""
    with SqsServer() as server:
        yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQLControl]:
    """The PostgreSQL server of this run: a private one, or the one that FLOW_TEST_DATABASE_URL names.

    The latter needs an account that may make databases; they are dropped at the end.
    """
    if url := os.environ.get("FLOW_TEST_DATABASE_URL"):
        yield PostgreSQLControl(url)
        return
    node = PostgreSQLNode()
    try:
        yield node
    finally:
        node.discard()


@pytest.fixture
def postgresql_node(postgresql: PostgreSQLControl) -> PostgreSQLNode:
    """The private server, for tests that stop or freeze it; they leave it running."""
    if not isinstance(postgresql, PostgreSQLNode):
        pytest.skip("needs a private server, and FLOW_TEST_DATABASE_URL names another one")
    return postgresql


@pytest.fixture(scope="session")
def migrated(postgresql: PostgreSQLControl) -> Iterator[str]:
    """A database to copy from, with the tables of the records."""
    name = postgresql.add_database()
    try:
        with start_blocking_portal() as elsewhere:  # a loop may run here already, for another fixture
            elsewhere.call(migrate, postgresql.url(name))
        yield name
    finally:
        postgresql.drop_database(name)


async def migrate(url: str) -> None:
    """Give the database of *url* the tables of the records."""
    database = Database(url)
    try:
        await database.migrate()
    finally:
        await database.close()


@pytest.fixture
def postgresql_url(postgresql: PostgreSQLControl, migrated: str) -> Iterator[str]:
    """A PostgreSQL database for one test, with the tables of the records."""
    name = postgresql.add_database(migrated)
    yield postgresql.url(name)
    postgresql.drop_database(name)


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite file with the tables of the records, to be copied."""
    path = tmp_path_factory.mktemp("template") / "records.db"
    with start_blocking_portal() as elsewhere:
        elsewhere.call(migrate, f"sqlite:///{path}")
    return path


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database for one test, with the tables of the records: the test runs once on each kind."""
    if request.param == "sqlite":
        return f"sqlite:///{shutil.copy(request.getfixturevalue('sqlite_template'), tmp_path)}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """The database of `database_url`, open."""
    async with Database.opened(database_url) as database:
        yield database
