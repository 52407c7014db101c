"""A virtual host with the plumbing, a sink, a ledger, and `flow run` between them."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import httpx2

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.plumbing.setup import set_up, topology_for
from flow.topology import RETRY_QUEUE
from tests.broker.queues import eventually
from tests.end_to_end.conftest import Flow, FlowProcess, environment
from tests.faults.ledger import NAME, QUEUE, Ledger, channel
from tests.faults.worker import settings
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

ROOT = Path(__file__).parent.parent.parent
SECRET = "canary-secret"
# A reply code stands alone; between dots it is the number of one of the broker's processes.
COMPLAINTS = re.compile(
    r"unknown delivery tag|operation (?!none).* caused a connection exception|(?<!\.)\b(501|504|541)\b(?!\.)"
    "|Message dropped|Cannot forward"
)


class World:
    """Everything of one test around `flow run`, which works as an account with the least permissions."""

    def __init__(self, rabbitmq: RabbitMQControl, vhost: str, sink: CrmServer, flow: Flow) -> None:
        self.rabbitmq = rabbitmq
        self.vhost = vhost
        self.sink = sink
        self.url = rabbitmq.url(vhost)
        self.ledger = Ledger(self.url, sink, seed=vhost)
        self._flow = flow
        self._processes: list[FlowProcess] = []
        self._said: list[str] = []
        self._log = broker_log(rabbitmq)

    async def run(
        self, pipeline: str = "Batches", *arguments: str, module: str = "tests.faults.worker", **more: str
    ) -> FlowProcess:
        """Start `flow run` with a pipeline of the *module*."""
        running = await self._flow.run(f"{module}:{pipeline}", *arguments, **more)
        self._processes.append(running)
        return running

    def through(self, port: int) -> str:
        """Return the URL of the worker's account by way of another *port*."""
        return self._flow.environment["AMQP_URL"].replace(f":{self.rabbitmq.port}/", f":{port}/")

    async def ends(self, seconds: float = 60) -> None:
        """Wait until the sink was told of every message that was confirmed and is not parked."""
        await self.told(self.ledger.confirmed, seconds)

    async def told(self, ids: set[str], seconds: float = 60) -> None:
        """Wait until the sink was told of all *ids*."""
        with anyio.fail_after(seconds):
            await self.sink.until(lambda: ids <= set(self.ledger.effects))

    async def metrics(self, running: FlowProcess) -> str:
        """Return the metrics of a process; they are looked through at the end as well."""
        address = (await running.says("metrics and health at")).rpartition(" ")[2]
        async with httpx2.AsyncClient() as client:
            text = (await client.get(f"{address}/metrics")).text
            self._said += [text, (await client.get(f"{address}/healthz")).text]
        return text

    async def idle(self, running: FlowProcess) -> None:
        """Wait until nothing is in the work queue, the retry loop and the hands of a process."""

        async def empty() -> bool:
            unsettled = re.search(r"^flow_unsettled\{.*\} (\S+)$", await self.metrics(running), re.MULTILINE)
            async with channel(self.url) as open_channel:
                looks = [await open_channel.queue_declare(one, passive=True) for one in (QUEUE, RETRY_QUEUE)]
            ready = sum(look.message_count or 0 for look in looks)
            return ready == 0 and unsettled is not None and float(unsettled[1]) == 0

        for _ in range(2):  # what moves from one to the other may be missed once
            await eventually(empty)

    async def stop(self, running: FlowProcess) -> None:
        """Look at the metrics, ask for a drain, and check that it ends as it should."""
        await self.metrics(running)
        code = await running.stop()
        assert code == 0, running.lines

    async def check(self, *, again: int = 0, parked_again: int = 0, complaints: str = "^$") -> None:
        """Check the ledger, what was said, and the log of the broker.

        Lines of that log that match *complaints* are expected.
        """
        await self.ledger.drain()
        self.ledger.check(again=again, parked_again=parked_again)
        for running in self._processes:
            assert running.code is not None, "still running"
            said = "\n".join([*running.lines, *self._said])
            assert "Traceback" not in said, said
            for canary in (NAME, SECRET, self.sink.token):
                assert canary not in said, f"{canary} in {said}"
            if running.code in (0, 3):
                account = running.account
                assert 2 * account["received"] == sum(account.values()), account
        found = [line for line in broker_log(self.rabbitmq)[len(self._log) :] if COMPLAINTS.search(line)]
        unexpected = [line for line in found if not re.search(complaints, line)]
        assert not unexpected, "\n".join(unexpected)


@asynccontextmanager
async def opened(rabbitmq: RabbitMQControl, vhost: str, folder: Path) -> AsyncIterator[World]:
    """Make a world in *vhost*: retries after one second, an account that may do what a worker must."""
    await set_up(BrokerUrl.parse(rabbitmq.url(vhost)), topology_for(["acme"], retry_delay=1.0))
    user = f"worker-{vhost}"
    await rabbitmq.add_user(user, SECRET)
    await rabbitmq.permit(user, vhost, "^$", r"^system\.park$", r"^acme\.crm$")
    url = rabbitmq.url(vhost, user=user, password=SECRET)
    async with CrmServer(effects=folder / "effects") as sink, anyio.create_task_group() as tasks:
        ours = environment(AMQP_URL=url, FLOW_STATE_DIR=str(folder / "state"))
        flow = Flow(tasks, ours | settings(sink.url, sink.token), ROOT)
        try:
            yield World(rabbitmq, vhost, sink, flow)
        finally:
            flow.end()


def broker_log(rabbitmq: RabbitMQControl) -> list[str]:
    """Return the lines that the broker has logged; none when it is not ours."""
    if not isinstance(rabbitmq, RabbitMQNode):
        return []
    files = sorted((rabbitmq.folder / "log").glob("*.log"))
    return [line for file in files for line in file.read_text(errors="replace").splitlines()]
