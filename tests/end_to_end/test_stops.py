"""How `flow run` stops: asked once, asked twice."""

import signal

import anyio
import httpx2
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.signals import TOGETHER
from tests.end_to_end.conftest import Flow, action_ids, holds, push
from tests.nodes.postgresql_node import PostgreSQLNode
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio

HANGING = """
import sys
import time
from flow import Pipeline
from flow.schema import ActionMessage

class Hanging(Pipeline[ActionMessage]):
    queue = "acme.crm"
    blocking = True
    concurrency = 2

    def handle_message(self, message):
        print("hangs", file=sys.stderr, flush=True)
        time.sleep(60)
"""


@pytest.mark.timeout(180)
async def test_sigterm_delivers_half_full_batches(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl
) -> None:
    """Fault F04, K12, K04, R37, R39: all that was received is delivered or returned, and accounted for."""
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


@pytest.mark.timeout(120)
async def test_the_account_is_the_last_line_when_threads_were_given_up(flow: Flow) -> None:
    """Also after what is said of the copies."""
    (flow.folder / "mine.py").write_text(HANGING)
    await push(flow, range(1, 11))
    running = await flow.run("mine", "--shutdown-timeout", "2", "--dump", "copies")
    await running.says("hangs")

    code = await running.stop()

    account = running.account
    assert code == 3, running.lines
    assert account["received"] == account["returned"] == 10
    assert any("2 callbacks still ran at the deadline" in line for line in running.lines)
    assert any("messages were copied to copies" in line for line in running.lines)
    assert "ended: received 10 = " in running.lines[-1]


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
    await anyio.sleep(TOGETHER)  # what comes sooner is the same request
    running.signal(signal.SIGINT)

    assert await running.end(5) == 128 + signal.SIGINT


@pytest.mark.timeout(120)
async def test_a_request_that_comes_twice_at_once_is_one(flow: Flow) -> None:
    """As `timeout` makes it, which signals the process and then its whole group."""
    running = await flow.run("pipelines.crm")
    await running.says("consumes acme.crm")

    running.signal(signal.SIGTERM)
    running.signal(signal.SIGINT)

    assert await running.end(30) == 0, running.lines


@pytest.mark.timeout(120)
async def test_stopping_while_the_broker_is_away_is_prompt(flow: Flow) -> None:
    """Fault F07, K11: nothing listens, one sentence, tries go on; a request to stop ends them."""
    running = await flow.run("pipelines.crm", AMQP_URL="amqp://guest:guest@127.0.0.1:1/")
    await running.says("127.0.0.1:1")

    running.signal(signal.SIGTERM)

    assert await running.end(5) == 0
    assert running.account["received"] == 0


@pytest.mark.timeout(180)
async def test_a_database_that_is_away_at_the_start_is_waited_for_alive(
    flow: Flow, postgresql: PostgreSQLNode, postgresql_url: str
) -> None:
    """A probe that found nobody would have the process restarted for as long as that lasts."""
    postgresql.stop()
    try:
        running = await flow.run("pipelines.crm", FLOW_DATABASE_URL=postgresql_url)
        address = (await running.says("metrics and health at")).partition(" at ")[2]
        await running.says("waiting for the database")
        async with httpx2.AsyncClient(base_url=address, trust_env=False) as client:
            alive, ready = await client.get("/livez"), await client.get("/readyz")
            health = (await client.get("/healthz")).json()
    finally:
        postgresql.start()
    await running.says("consumes acme.crm")

    assert (alive.status_code, ready.status_code) == (200, 503)
    assert ready.text.startswith("waiting for the database: ")
    assert health["pipelines"]["crm"]["ledger"] == "down"
    assert await running.stop() == 0


@pytest.mark.timeout(120)
async def test_stopping_while_the_database_is_away_is_prompt(flow: Flow) -> None:
    running = await flow.run("pipelines.crm", FLOW_DATABASE_URL="postgresql://nobody@127.0.0.1:1/none")
    await running.says("waiting for the database")

    running.signal(signal.SIGTERM)

    assert await running.end(30) == 0
    assert running.account["received"] == 0
