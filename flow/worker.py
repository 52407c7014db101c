"""The worker's side of a supervisor: who it is, and the reports it sends."""

import asyncio
import logging
import os
import re
import socket
from collections.abc import AsyncIterator, Callable, MutableMapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass

import anyio
import msgspec

from flow.looplag import LoopLag
from flow.metrics import PipelineMetrics
from flow.ops import Health, alive
from flow.report import Report, figures_of

MARK = "FLOW_INTERNAL_WORKER"  # the variable by which a process learns that it is a worker
INTERVAL = 1.0  # seconds between two reports
LAST = 2.0  # seconds for the last report to leave

log = logging.getLogger("flow")


@dataclass(frozen=True, slots=True)
class Worker:
    """One of several processes that do the same."""

    number: int
    """From 1."""
    of: int
    """How many there are."""
    channel: int
    """The descriptor of the socket that reports go to."""

    def __str__(self) -> str:
        """Write it as the value of the variable."""
        return f"{self.number}/{self.of}/{self.channel}"

    @classmethod
    def taken_from(cls, environment: MutableMapping[str, str]) -> "Worker | None":
        """Return which worker this process is, or None; the processes it starts itself are none."""
        found = re.fullmatch(r"(\d+)/(\d+)/(\d+)", environment.pop(MARK, ""))
        if found is None:
            return None
        made = cls(*map(int, found.groups()))
        os.set_inheritable(made.channel, False)
        return made


@asynccontextmanager
async def reporting(
    worker: Worker, health: Health, metrics: Sequence[PipelineMetrics], orphaned: Callable[[], None]
) -> AsyncIterator[None]:
    """Report every second and once more at the end; call *orphaned* when the supervisor has gone."""
    channel = socket.socket(fileno=worker.channel)
    reader, writer = await asyncio.open_unix_connection(sock=channel)
    lag = LoopLag()
    lag.start()

    def send() -> None:
        if not writer.is_closing():
            writer.write(msgspec.json.encode(report(health, metrics, lag)) + b"\n")

    async def keep_sending() -> None:
        while True:
            if not writer.transport.get_write_buffer_size():  # the supervisor may stand still; this must not
                send()
            await anyio.sleep(INTERVAL)

    async def listen() -> None:
        with suppress(ConnectionError):
            await reader.read()  # nothing is ever said: it ends with the supervisor
        orphaned()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(keep_sending)
        tasks.start_soon(listen)
        yield
        tasks.cancel_scope.cancel()
    lag.stop()
    send()
    with anyio.move_on_after(LAST), suppress(ConnectionError):
        await writer.drain()
        writer.close()
        await writer.wait_closed()


def report(health: Health, metrics: Sequence[PipelineMetrics], lag: LoopLag) -> Report:
    """Say how things stand."""
    return Report(
        live=alive(health, lag),
        ready=health.ready(),
        pipelines={name: bool(state["ready"]) for name, state in health.state().items()},
        figures=figures_of(metrics, lag.histogram),
    )
