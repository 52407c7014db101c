"""How `flow run` stops: asked once, asked twice, killed."""

import signal

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.demo.rabbitmq_control import RabbitMQControl
from flow.demo.signatures import action, body
from tests.end_to_end.conftest import Flow, action_ids, holds, lines

pytestmark = pytest.mark.anyio


async def push(flow: Flow, numbers: range) -> None:
    bodies = lines([body(action(number)) for number in numbers])
    pushed = await flow("push", "deliver", "acme.system.action", "-", "--lines", standard_input=bodies)
    assert pushed.returncode == 0, pushed.stderr


@pytest.mark.timeout(180)
async def test_sigterm_delivers_half_full_batches(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl
) -> None:
    """K12, K04, R37, R39: everything received is delivered or returned, the account is right, exit code 0."""
    crm.faults.delay = 0.3
    await push(flow, range(1, 251))
    running = await flow.run("pipelines.crm")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.calls) >= 1)

    code = await running.stop()

    account = running.account
    assert code == 0, running.lines
    assert account["received"] == account["delivered"] + account["returned"]
    assert len(action_ids(crm)) == account["delivered"]
    await holds(rabbitmq, amqp_url, "acme.crm", 250 - account["delivered"])
    assert await rabbitmq.connection_names(BrokerUrl.parse(amqp_url).vhost) == []


@pytest.mark.timeout(180)
async def test_slow_requests_are_given_up_in_time_and_nothing_is_lost(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl
) -> None:
    """K05: exit code 3 and the number of what hung; its messages are in the queue again."""
    crm.faults.silent = True
    await push(flow, range(1, 51))
    running = await flow.run("pipelines.crm", "--shutdown-timeout", "3")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.calls) >= 1)

    code = await running.stop()

    account = running.account
    assert code == 3, running.lines
    assert account == account | {"received": 50, "delivered": 0, "returned": 50}
    await holds(rabbitmq, amqp_url, "acme.crm", 50)
    await running.says("were cancelled")


@pytest.mark.timeout(180)
async def test_kill_in_mid_batch_loses_nothing(flow: Flow, crm: CrmServer) -> None:
    """Killed while the CRM works: after a new start all is there; at most the prefetch is told twice."""
    crm.faults.delay = 0.2
    await push(flow, range(1, 401))
    killed = await flow.run("pipelines.crm", "--prefetch", "100")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) >= 20)
    killed.signal(signal.SIGKILL)
    await killed.end()

    crm.faults.delay = 0.0
    second = await flow.run("pipelines.crm")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) == 400)
    code = await second.stop()

    assert code == 0
    assert action_ids(crm) == set(range(1, 401))
    assert sum(count - 1 for count in crm.effects.values()) <= 100


@pytest.mark.timeout(120)
async def test_a_second_signal_ends_at_once(flow: Flow, crm: CrmServer) -> None:
    """K12: 128 + the signal's number."""
    crm.faults.silent = True
    await push(flow, range(1, 11))
    running = await flow.run("pipelines.crm")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.calls) >= 1)

    running.signal(signal.SIGTERM)
    await running.says("finishing what was received")
    running.signal(signal.SIGINT)

    assert await running.end(5) == 128 + signal.SIGINT


@pytest.mark.timeout(120)
async def test_stopping_while_the_broker_is_away_is_prompt(flow: Flow) -> None:
    """K11: nothing listens, one sentence, tries go on; a request to stop ends them."""
    running = await flow.run("pipelines.crm", AMQP_URL="amqp://guest:guest@127.0.0.1:1/")
    await running.says("127.0.0.1:1")

    running.signal(signal.SIGTERM)

    assert await running.end(5) == 0
    assert running.account["received"] == 0
