"""The permissions that docs/operations.md names are enough for what they are named for."""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.demo.signatures import action, body
from flow.plumbing.park import parked_count
from tests.broker.queues import eventually
from tests.end_to_end.conftest import Flow, action_ids, lines
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio

OPERATIONS = Path(__file__).parent.parent.parent / "docs" / "operations.md"


def permissions(account: str) -> list[str]:
    """Return what the document grants to *account*: configure, write and read."""
    section = OPERATIONS.read_text().split("\n## Permissions\n")[1]
    row = next(line for line in section.splitlines() if line.startswith(f"| {account} |"))
    return [pattern.replace("\\|", "|") for pattern in re.findall(r"`(\S+)`", row)]


@pytest.fixture
async def may(rabbitmq: RabbitMQControl, vhost: str) -> AsyncIterator["May"]:
    made = May(rabbitmq, vhost)
    yield made
    for user in made.users:
        await rabbitmq.delete_user(user)


class May:
    """Accounts with the permissions of the document."""

    def __init__(self, rabbitmq: RabbitMQControl, vhost: str) -> None:
        self._rabbitmq = rabbitmq
        self._vhost = vhost
        self.users: list[str] = []

    async def __call__(self, account: str) -> str:
        """Return the URL of an account with what the document grants to *account*."""
        user = f"{account.replace(' ', '-')}-{self._vhost}"
        await self._rabbitmq.add_user(user, "secret")
        self.users.append(user)
        await self._rabbitmq.permit(user, self._vhost, *permissions(account))
        return self._rabbitmq.url(self._vhost, user=user, password="secret")


async def push(flow: Flow, url: str) -> None:
    """Publish a signature and a body that cannot be read."""
    bodies = lines([body(action(1)), b"{"])
    done = await flow(
        "push", "deliver", "acme.system.action", "--lines", "--raw", standard_input=bodies, AMQP_URL=url
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.timeout(180)
async def test_each_account_may_do_its_work(flow: Flow, crm: CrmServer, may: May, amqp_url: str) -> None:
    set_up = await flow("setup", "--org", "acme", "--retry-delay", "1", AMQP_URL=await may("set-up"))
    await push(flow, await may("publisher"))
    running = await flow.run("pipelines.crm", AMQP_URL=await may("worker"))
    await running.says("parked")
    with anyio.fail_after(30):
        await crm.until(lambda: len(crm.records) == 1)
    code = await running.stop()
    keeper = await may("looking after the park")
    listed = await flow("dead", "list", AMQP_URL=keeper)
    replayed = await flow("dead", "replay", "--all", AMQP_URL=keeper)

    assert set_up.returncode == 0, set_up.stderr
    assert code == 0, running.lines
    assert action_ids(crm) == {1}
    assert (listed.returncode, replayed.returncode) == (0, 0), listed.stderr + replayed.stderr
    assert await parked_count(BrokerUrl.parse(amqp_url)) == 0


@pytest.mark.timeout(180)
async def test_what_cannot_be_parked_is_not_lost(
    flow: Flow, crm: CrmServer, may: May, rabbitmq: RabbitMQControl, amqp_url: str
) -> None:
    """A worker that may not publish sends it round the retry loop."""
    vhost = BrokerUrl.parse(amqp_url).vhost

    async def left() -> bool:
        lengths = await rabbitmq.queue_lengths(vhost)
        return lengths["acme.crm"].ready + lengths["system.retry"].ready == 1

    await push(flow, amqp_url)
    running = await flow.run("pipelines.crm", AMQP_URL=await may("worker that cannot park"))
    await running.says("nothing can be parked")
    with anyio.fail_after(30):
        await crm.until(lambda: len(crm.records) == 1)
    code = await running.stop()

    assert code == 0, running.lines
    assert running.account["retrying"] >= 1
    await eventually(left)
