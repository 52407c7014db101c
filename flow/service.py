"""One process: its pipelines, the ops server, the signals, and the exit code."""

import logging
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

import anyio

from flow.account import Account
from flow.broker.backoff import Backoff
from flow.errors import ConfigError, DatabaseDown, FlowError
from flow.exits import DRAINED, FAILED, HUNG
from flow.histogram import Histogram
from flow.metrics import exposition
from flow.ops import Ops
from flow.records.database import Database
from flow.retries import describe
from flow.runner import Runner
from flow.signals import apart
from flow.worker import Worker, reporting

log = logging.getLogger("flow")


class Service:
    """Runs pipelines until a signal, then drains them and says what became of every message."""

    def __init__(
        self,
        runners: Sequence[Runner],
        *,
        ops_host: str = "127.0.0.1",
        ops_port: int | None = 9300,
        worker: Worker | None = None,
        unfinished: str = "unfinished messages go back to their queues",
        database: Database | None = None,
        ending: Callable[[], None] = lambda: None,
    ) -> None:
        """Serve metrics and health on *ops_host* and *ops_port* (0: a free one; None: not at all).

        A *worker* serves nothing: it reports to its supervisor. The *database* is waited for before anything
        is run, and closed at the end. *unfinished* says what becomes of messages when a second signal ends it
        at once. *ending* is called before the account is given.
        """
        self._runners = runners
        self._ops_host = ops_host
        self._ops_port = ops_port
        self._worker = worker
        self._unfinished = unfinished
        self._database = database
        self._ending = ending
        self._waiting = anyio.CancelScope()
        self._away: str | None = None  # why the database is waited for
        self._stopping = False
        self._errors: list[BaseException] = []

    async def run(self) -> int:
        """Run until stopped; return the exit code.

        Raises:
            FlowError: the set-up is wrong, before anything was consumed.
        """
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with AsyncExitStack() as stack:
                if self._database is not None:
                    stack.push_async_callback(self._database.close)
                if self._worker is not None:
                    metrics = [runner.metrics for runner in self._runners]
                    await stack.enter_async_context(reporting(self._worker, self, metrics, self._orphaned))
                elif self._ops_port is not None:
                    ops = await stack.enter_async_context(Ops(self._ops_host, self._ops_port, self))
                    log.info("metrics and health at %s", ops.address)
                async with anyio.create_task_group() as obeying:
                    obeying.start_soon(self._obey, signals)
                    with self._waiting:
                        await self._wait_for_database()
                    if not self._stopping and not self._errors:
                        await self._run_all()
                    obeying.cancel_scope.cancel()
                self._say()
        for error in self._errors:
            if isinstance(error, FlowError):
                raise error
        if self._errors or not self._stopping:
            return FAILED
        return HUNG if any(runner.hung for runner in self._runners) else DRAINED

    def stop(self) -> None:
        """Ask every pipeline for a drain; returns at once."""
        self._stopping = True
        self._waiting.cancel()
        for runner in self._runners:
            runner.stop()

    def live(self) -> str | None:
        """Return why this process should be restarted, or None."""
        return next((reason for runner in self._runners if (reason := runner.stuck()) is not None), None)

    def ready(self) -> str | None:
        """Return why not every pipeline consumes, or None."""
        if self._away is not None:
            return self._away
        reasons = [reason for runner in self._runners if (reason := runner.unready()) is not None]
        return "; ".join(reasons) or None

    def state(self) -> dict[str, Any]:
        """Return the state of every pipeline in words and numbers."""
        return {
            runner.pipeline.name: {
                "ready": runner.unready() is None,
                "draining": self._stopping,
                "down": {queue: round(seconds, 1) for queue, seconds in runner.down().items()},
                "ledger": "ok" if self._away is None and runner.ledger_fault() is None else "down",
                "account": {name: getattr(runner.account, name) for name in Account.__dataclass_fields__},
            }
            for runner in self._runners
        }

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        """Return the metrics of every pipeline and of this process."""
        return exposition([runner.metrics for runner in self._runners], accept, loop_lag)

    def _orphaned(self) -> None:
        if not self._stopping:
            log.error("the supervisor has gone: finishing what was received")
            self.stop()

    async def _obey(self, signals: Any) -> None:
        async for number in apart(signals):
            name = signal.Signals(number).name
            if self._stopping and self._worker is not None:
                continue  # it came to all processes of a group; when to end at once, the supervisor decides
            if self._stopping:
                log.error("%s again: ending at once, %s", name, self._unfinished)
                os._exit(128 + number)
            log.info("%s: finishing what was received", name)
            self.stop()

    async def _wait_for_database(self) -> None:
        backoff = Backoff(Random())
        while self._database is not None:
            try:
                await self._database.ready()
            except ConfigError as error:  # it is wrong, or has not the tables of this version
                self._errors.append(error)
                return
            except DatabaseDown as error:
                if self._away is None:
                    log.error("waiting for the database: %s", error)
                self._away = f"waiting for the database: {error}"
            else:
                self._away = None
                return
            await anyio.sleep(backoff.next())

    async def _run_all(self) -> None:
        async with anyio.create_task_group() as running:
            for runner in self._runners:
                running.start_soon(self._run, runner)

    async def _run(self, runner: Runner) -> None:
        try:
            await runner.run()
        except* FlowError as group:
            self._errors += leaves(group)
        except* Exception as group:  # noqa: BLE001  # the user's lifespan, or a bug: the process ends with its account
            for error in leaves(group):
                log.error(
                    "%s ended: %s; --tracebacks shows more",
                    runner.pipeline.name,
                    describe(error),
                    extra={"error": error},
                )
            self._errors += leaves(group)
        if self._errors or not self._stopping:
            stopping = self._stopping
            self.stop()
            self._stopping = stopping

    def _say(self) -> None:
        """Say what was given up, then the account, as the last thing."""
        self._ending()
        for runner in self._runners:
            if runner.hung:
                log.error(
                    "%s: %d callbacks still ran at the deadline and were cancelled; their messages went back",
                    runner.pipeline.name,
                    runner.hung,
                )
        for runner in self._runners:
            if runner.account.received or not self._errors:
                log.info("%s ended: %s", runner.pipeline.name, runner.account)


def leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group of groups."""
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from leaves(inner)
    else:
        yield error
