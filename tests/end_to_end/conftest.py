"""`flow` as users start it: a process of its own, against a real broker and a real CRM over HTTP."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.demo.signatures import action, body
from flow.plumbing.setup import set_up, topology_for
from tests.nodes.rabbitmq_control import QueueLength, RabbitMQControl

FLOW = [sys.executable, "-m", "flow"]
NUMBER = re.compile(r"(\d+) (\w+)")


class FlowProcess:
    """One `flow run`, with what it said so far."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self._process = process
        self._said = anyio.Event()
        self.lines: list[str] = []
        self.code: int | None = None

    async def listen(self) -> None:
        """Collect the lines of standard error until the process ends."""
        assert self._process.stderr is not None
        rest = b""
        async for chunk in self._process.stderr:
            *lines, rest = (rest + chunk).split(b"\n")
            self.lines += [line.decode() for line in lines]
            self._tell()
        self.code = await self._process.wait()
        self._tell()

    async def says(self, text: str, seconds: float = 30) -> str:
        """Wait for a line that holds *text* and return it."""
        with anyio.fail_after(seconds):
            while True:
                for line in self.lines:
                    if text in line:
                        return line
                assert self.code is None, f"ended with {self.code}: {self.lines}"
                await self._said.wait()

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    async def end(self, seconds: float = 40) -> int:
        """Wait for the end and return the exit code."""
        with anyio.fail_after(seconds):
            while self.code is None:
                await self._said.wait()
        return self.code

    async def stop(self) -> int:
        """Ask for a drain and return the exit code."""
        self.signal(signal.SIGTERM)
        return await self.end()

    @property
    def most_memory(self) -> int:
        """The most memory it had so far, in KiB; 0 where the system does not tell."""
        status = Path(f"/proc/{self._process.pid}/status")
        found = re.search(r"VmHWM:\s*(\d+)", status.read_text()) if status.exists() else None
        return int(found[1]) if found else 0

    @property
    def account(self) -> dict[str, int]:
        """The numbers of the account in the last line that has one."""
        line = next(line for line in reversed(self.lines) if "received" in line and " = " in line)
        received, _, parts = line.partition("received ")[2].partition(" = ")
        return {"received": int(received)} | {name: int(count) for count, name in NUMBER.findall(parts)}

    def _tell(self) -> None:
        self._said.set()
        self._said = anyio.Event()


class Flow:
    """Starts `flow` with an environment of its own."""

    def __init__(self, tasks: anyio.abc.TaskGroup, environment: dict[str, str], folder: Path) -> None:
        self._tasks = tasks
        self._processes: list[anyio.abc.Process] = []
        self.environment = environment
        self.folder = folder

    async def run(self, *arguments: str, **environment: str) -> FlowProcess:
        """Start `flow run` with *arguments*."""
        return await self.start("run", *arguments, **environment)

    async def start(self, *arguments: str, **environment: str) -> FlowProcess:
        """Start `flow` with *arguments*."""
        process = await anyio.open_process(
            [*FLOW, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=self.environment | environment,
            cwd=self.folder,
        )
        self._processes.append(process)
        running = FlowProcess(process)
        self._tasks.start_soon(running.listen)
        return running

    async def __call__(
        self, *arguments: str, standard_input: bytes = b"", **environment: str
    ) -> subprocess.CompletedProcess[bytes]:
        """Run `flow` with *arguments* to its end."""
        with anyio.fail_after(60):
            return await anyio.run_process(
                [*FLOW, *arguments],
                input=standard_input,
                check=False,
                env=self.environment | environment,
                cwd=self.folder,
            )

    def end(self) -> None:
        """End what still runs."""
        for process in self._processes:
            if process.returncode is None:
                process.kill()

    async def ended(self) -> None:
        """End what still runs, and see it gone."""
        self.end()
        with anyio.CancelScope(shield=True):
            for process in self._processes:
                await process.wait()


def environment(**more: str) -> dict[str, str]:
    """Return the environment of a child: ours without what could change what it does."""
    ours = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOW_", "AMQP_", "CRM_", "PROCA_"))
    }
    return ours | {"PYTHONWARNINGS": "error", "FLOW_OPS_PORT": "0"} | more


@pytest.fixture
async def crm() -> AsyncIterator[CrmServer]:
    async with CrmServer() as server:
        yield server


@pytest.fixture
async def flow(amqp_url: str, crm: CrmServer, tmp_path: Path) -> AsyncIterator[Flow]:
    """`flow` with the broker, the plumbing of acme with a retry delay of one second, and the CRM."""
    await set_up(BrokerUrl.parse(amqp_url), topology_for(["acme"], retry_delay=1.0))
    settings = environment(AMQP_URL=amqp_url, CRM_URL=crm.url, CRM_TOKEN=crm.token, FLOW_RETRY_DELAY="1")
    async with anyio.create_task_group() as tasks:
        made = Flow(tasks, settings, tmp_path)
        yield made
        made.end()


def action_ids(crm: CrmServer) -> set[int]:
    """Return the ids of the actions that the CRM holds."""
    return {int(name.removeprefix("action-")) for name in crm.records}


async def holds(rabbitmq: RabbitMQControl, amqp_url: str, queue: str, ready: int) -> None:
    """Wait until *queue* holds so many ready messages and no unacknowledged one.

    The counts of quorum queues are told every five seconds only.
    """
    vhost = BrokerUrl.parse(amqp_url).vhost
    with anyio.fail_after(30):
        while (await rabbitmq.queue_lengths(vhost))[queue] != QueueLength(ready, 0):  # noqa: ASYNC110
            await anyio.sleep(0.3)


def lines(bodies: list[Any]) -> bytes:
    """Return *bodies* as lines for `flow push --lines`."""
    return b"\n".join(bodies) + b"\n"


async def push(flow: Flow, numbers: range, **environment: str) -> None:
    """Publish an action for each of *numbers* with `flow push`."""
    bodies = lines([body(action(number)) for number in numbers])
    pushed = await flow(
        "push", "deliver", "acme.system.action", "-", "--lines", standard_input=bodies, **environment
    )
    assert pushed.returncode == 0, pushed.stderr
