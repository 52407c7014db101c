"""`flow run --workers`: several processes as one, which are started, replaced, stopped and added up."""

import os
import re
import signal

import anyio
import httpx2
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.signals import TOGETHER
from flow.supervisor import PATIENCE
from tests.broker.queues import eventually
from tests.end_to_end.conftest import Flow, FlowProcess, action_ids, holds, push
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(180)]


async def process_of(running: FlowProcess, worker: int) -> int:
    """Return the process that *worker* was last started as."""
    await running.says(f"worker {worker} is process")
    said = re.findall(rf"worker {worker} is process (\d+)", "\n".join(running.lines))
    return int(said[-1])


class Endpoints:
    """The endpoints of a running `flow`."""

    def __init__(self, address: str) -> None:
        self._address = address

    async def get(self, path: str) -> httpx2.Response:
        async with httpx2.AsyncClient(trust_env=False) as client:
            return await client.get(self._address + path)

    async def ready(self) -> bool:
        return (await self.get("/readyz")).status_code == 200

    async def numbers(self, name: str) -> dict[str, float]:
        """Return the samples of *name* by their labels."""
        text = (await self.get("/metrics")).text
        return {labels: float(n) for labels, n in re.findall(rf"^{name}(?:{{(.*)}})? (\S+)$", text, re.M)}

    async def total(self, name: str) -> float:
        return sum((await self.numbers(name)).values())


async def endpoints_of(running: FlowProcess) -> Endpoints:
    line = await running.says("metrics and health at")
    return Endpoints(line.partition(" at ")[2])


def accounts_of_workers(running: FlowProcess) -> dict[int, int]:
    """Return how many messages each worker said that it had received."""
    said = re.findall(r"worker (\d+): crm ended: received (\d+)", "\n".join(running.lines))
    return {int(worker): int(count) for worker, count in said}


async def test_two_workers_share_a_queue_and_their_accounts_add_up(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl
) -> None:
    running = await flow.run("pipelines.crm", "--workers", "2", "--prefetch", "100")
    endpoints = await endpoints_of(running)
    await eventually(endpoints.ready)
    crm.faults.delay = 0.1
    await push(flow, range(1, 601))
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) == 600)

    code = await running.stop()

    assert code == 0, running.lines
    assert action_ids(crm) == set(range(1, 601))
    shares = accounts_of_workers(running)
    assert sorted(shares) == [1, 2]
    assert min(shares.values()) > 0
    assert running.account["received"] == sum(shares.values()) == 600
    assert running.account["delivered"] == 600
    await holds(rabbitmq, amqp_url, "acme.crm", 0)
    assert await rabbitmq.connection_names(BrokerUrl.parse(amqp_url).vhost) == []


async def test_a_killed_worker_is_replaced_and_nothing_is_lost(flow: Flow, crm: CrmServer) -> None:
    """Its last report stays in the account: what it had not settled is stale, and counters never fall."""
    crm.faults.delay = 0.2
    running = await flow.run("pipelines.crm", "--workers", "2", "--prefetch", "100")
    endpoints = await endpoints_of(running)
    await eventually(endpoints.ready)
    await push(flow, range(1, 401))
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) >= 50)
    await eventually(lambda: endpoints.total("flow_received_total"))
    before = await endpoints.total("flow_received_total")
    process = await process_of(running, 1)

    os.kill(process, signal.SIGKILL)
    await running.says("starts again in")
    after = await endpoints.total("flow_received_total")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) == 400)
    await eventually(endpoints.ready)
    restarts = await endpoints.total("flow_worker_restarts_total")
    again = await process_of(running, 1)
    code = await running.stop()

    assert code == 0, running.lines
    assert again != process
    assert action_ids(crm) == set(range(1, 401))
    assert after >= before > 0
    assert restarts == 1
    account = running.account
    assert account["received"] == sum(account.values()) - account["received"], "all is accounted for"


async def test_the_endpoints_speak_for_all_workers(flow: Flow, crm: CrmServer) -> None:
    running = await flow.run("pipelines.crm", "--workers", "2")
    endpoints = await endpoints_of(running)
    early = await endpoints.get("/readyz")
    await eventually(endpoints.ready)
    await push(flow, range(1, 101))
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.records) == 100)

    async def counted() -> bool:
        return await endpoints.total("flow_settled_total") == 100

    await eventually(counted)
    health = (await endpoints.get("/healthz")).json()
    settled = await endpoints.numbers("flow_settled_total")
    workers = await endpoints.numbers("flow_workers")
    connected = await endpoints.numbers("flow_connected")
    handled = await endpoints.total("flow_handler_seconds_count")
    crm.faults.silent = True
    calls = len(crm.calls)
    await push(flow, range(101, 103))
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.calls) > calls)
    running.signal(signal.SIGTERM)
    await running.says("the workers finish what was received")
    late = await endpoints.get("/readyz")
    await anyio.sleep(TOGETHER)  # what comes sooner is the same request
    running.signal(signal.SIGTERM)
    await running.end(10)

    assert early.status_code == 503
    assert "worker 2" in early.text
    assert health["ready"]
    assert health["pipelines"]["crm"]["workers"] == 2
    assert health["pipelines"]["crm"]["account"]["received"] == 100
    assert settled['outcome="delivered",pipeline="crm",queue="acme.crm"'] == 100
    assert list(workers.values()) == [2]
    assert list(connected.values()) == [1]
    assert handled == 100
    assert (late.status_code, late.text) == (503, "the workers are draining\n")


STUCK = """
import time
from flow import Pipeline
from flow.schema import ActionMessage

class Stuck(Pipeline[ActionMessage]):
    queue = "acme.crm"

    def handle_message(self, message):
        print("stuck", flush=True)
        time.sleep(3600)
"""


async def test_a_worker_that_hangs_is_killed(flow: Flow, amqp_url: str, rabbitmq: RabbitMQControl) -> None:
    """Exit code 3, as for callbacks that do not end; the message is in the queue again."""
    (flow.folder / "stuck.py").write_text(STUCK)
    await push(flow, range(1, 2))
    running = await flow.run("stuck", "--workers", "2", "--shutdown-timeout", "1")
    endpoints = await endpoints_of(running)

    async def blocked() -> bool:
        return "something blocks" in (await endpoints.get("/livez")).text

    await eventually(blocked)
    code = await running.stop()

    assert code == 3, running.lines
    await running.says(f"did not end within {1 + PATIENCE:g} s and was killed")
    await holds(rabbitmq, amqp_url, "acme.crm", 1)


async def test_a_second_signal_ends_all_workers_at_once(flow: Flow, crm: CrmServer) -> None:
    crm.faults.silent = True
    await push(flow, range(1, 11))
    running = await flow.run("pipelines.crm", "--workers", "2")
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.calls) >= 1)

    running.signal(signal.SIGTERM)
    await running.says("the workers finish what was received")
    await anyio.sleep(TOGETHER)  # what comes sooner is the same request
    running.signal(signal.SIGINT)

    assert await running.end(10) == 128 + signal.SIGINT, "and standard error is closed by all"


async def test_a_signal_to_the_whole_group_counts_once(flow: Flow, crm: CrmServer) -> None:
    """A service manager may signal every process; the workers hear of it twice and still drain."""
    crm.faults.delay = 1.0
    running = await flow.run("pipelines.crm", "--workers", "2")
    await eventually((await endpoints_of(running)).ready)
    await push(flow, range(1, 51))
    with anyio.fail_after(60):
        await crm.until(lambda: len(crm.calls) >= 1)

    for worker in (1, 2):
        os.kill(await process_of(running, worker), signal.SIGTERM)
    code = await running.stop()

    assert code == 0, running.lines
    account = running.account
    assert account["received"] == account["delivered"] + account["returned"]


async def test_workers_drain_when_their_supervisor_is_killed(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl
) -> None:
    running = await flow.run("pipelines.crm", "--workers", "2")
    await eventually((await endpoints_of(running)).ready)

    running.signal(signal.SIGKILL)
    await running.end()

    assert sorted(accounts_of_workers(running)) == [1, 2]
    assert await rabbitmq.connection_names(BrokerUrl.parse(amqp_url).vhost) == []


async def test_a_wrong_set_up_does_not_end_workers_that_consume(flow: Flow) -> None:
    """A worker whose replacement cannot start is tried again; the others go on."""
    module = flow.folder / "stuck.py"
    module.write_text(STUCK)
    running = await flow.run("stuck", "--workers", "2")
    endpoints = await endpoints_of(running)
    await eventually(endpoints.ready)

    module.write_text("1 / 0\n")
    os.kill(await process_of(running, 1), signal.SIGKILL)
    await running.says("worker 1 ended (exit code 2) and starts again in")
    waiting = await endpoints.get("/readyz")
    module.write_text(STUCK)
    await eventually(endpoints.ready)
    code = await running.stop()

    assert code == 0, running.lines
    assert waiting.status_code == 503
    assert "worker 2" not in waiting.text
