"""Several worker processes as one: starts them, replaces those that crash, adds up what they did."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import fields
from random import Random
from typing import Any

import anyio
import anyio.abc

from flow.account import Account
from flow.broker.backoff import Backoff
from flow.child import Child
from flow.exits import CONFIGURATION, DRAINED, FAILED, HUNG, USAGE
from flow.histogram import Histogram
from flow.metrics import FAMILIES
from flow.ops import LATE, Ops
from flow.options import option
from flow.prometheus import Numbers, exposed, of_workers
from flow.report import NOTHING, Figures, Report, ended, together
from flow.signals import apart

WORST = (DRAINED, HUNG, FAILED, USAGE, CONFIGURATION)
"""The exit codes of workers, the worst last."""
AHEAD = 10.0  # seconds that the first worker goes ahead of the others, unless it consumes sooner
HEALTHY = 60.0  # seconds after which a worker that crashes is started again soon
PATIENCE = 13.0  # seconds beyond its own deadline until a worker is killed; then 2 are left for the account

log = logging.getLogger("flow")


@option
class Plan:
    """What a supervisor runs."""

    command: Sequence[str]
    """Starts one worker."""
    environment: Mapping[str, str]
    workers: int = 1
    shutdown_timeout: float = 25.0
    """Seconds that each worker has for its drain."""
    ops_host: str = "127.0.0.1"
    ops_port: int | None = 9300
    """0: a free port; None: serve nothing."""


class Supervisor:
    """Keeps workers running until a signal, then has them drain; imports nothing of what they run.

    The first worker goes ahead, so that what is wrong with the set-up is said once; then it is the end.
    Once a worker has consumed, one that ends is started again, whatever it ended of.
    """

    def __init__(self, plan: Plan, changes: AsyncIterator[str] | None = None) -> None:
        """Take what to run; at each of the *changes*, if any, all workers are started again."""
        self._plan = plan
        self._changes = changes
        self._children: dict[int, Child] = {}
        self._codes: dict[int, int] = {}  # how each worker ended last
        self._past: Figures = NOTHING  # of workers that have ended
        self._restarts = 0
        self._stopping = False
        self._consumed = False
        self._news = anyio.Event()  # set at each of: the first worker consumes, a file changed, a stop
        self._tasks: anyio.abc.TaskGroup

    async def run(self) -> int:
        """Run until stopped; return the worst exit code of the workers.

        Raises:
            ConfigError: the ops endpoints cannot be served.
        """
        plan = self._plan
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async with AsyncExitStack() as stack:
                if plan.ops_port is not None:
                    ops = await stack.enter_async_context(Ops(plan.ops_host, plan.ops_port, self))
                    log.info("metrics and health at %s", ops.address)
                async with anyio.create_task_group() as obeying:
                    obeying.start_soon(self._obey, signals)
                    if self._changes is not None:
                        obeying.start_soon(self._reload, self._changes)
                    async with anyio.create_task_group() as self._tasks:
                        for number in self._numbers:
                            self._tasks.start_soon(self._keep, number)
                    obeying.cancel_scope.cancel()
                code = max(self._codes.values(), key=rank, default=DRAINED)
                self._say(code)
        return code

    def stop(self) -> None:
        """Ask every worker for a drain; returns at once."""
        self._stopping = True
        self._stop_children()

    def live(self) -> str | None:
        """Return which worker should be restarted and why, or None."""
        for number, child in sorted(self._children.items()):
            if child.report is None:
                continue
            silent = anyio.current_time() - child.heard_at
            if silent > LATE:
                return f"worker {number} has not reported for {silent:.0f} s: something blocks its event loop"
            if child.report.live is not None:
                return f"worker {number}: {child.report.live}"
        return None

    def ready(self) -> str | None:
        """Return why not every pipeline of every worker consumes, or None."""
        if self._stopping:
            return "the workers are draining"
        reasons = [f"worker {number} {why}" for number in self._numbers if (why := self._unready(number))]
        return "; ".join(reasons) or None

    def state(self) -> dict[str, Any]:
        """Return the state of every pipeline over all workers."""
        reports = [child.report for child in self._children.values()]
        return {
            name: {
                "ready": all(one is not None and one.pipelines.get(name, False) for one in reports)
                and len(reports) == self._plan.workers,
                "draining": self._stopping,
                "workers": len(reports),
                "account": {one.name: getattr(account, one.name) for one in fields(Account)},
            }
            for name, account in self._figures().accounts().items()
        }

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        """Return the metrics of all workers as those of one; *loop_lag* is that of this process: left out."""
        figures = self._figures()
        lag = figures.lag[0].histogram() if figures.lag else None
        more = of_workers(len(self._children), self._restarts)
        return exposed(Numbers(FAMILIES, figures.rows, lag, more), accept)

    @property
    def _numbers(self) -> range:
        return range(1, self._plan.workers + 1)

    async def _keep(self, number: int) -> None:
        """Run a worker, and the next when it ends, until stopped."""
        if number > 1:
            await self._news_within(AHEAD)
        backoff = Backoff(Random())
        while not self._stopping:
            child = self._children[number] = Child(number, self._plan.workers, self._heard)
            began = anyio.current_time()
            code = self._codes[number] = await child.run(self._plan.command, self._plan.environment)
            del self._children[number]
            if child.report is not None:
                self._past = together([self._past, ended(child.report.figures)])
            if anyio.current_time() - began >= HEALTHY:
                backoff.reset()
            if not self._stopping and not child.asked:
                await self._rest(f"worker {number} {child.ending}", code, backoff)

    async def _rest(self, ending: str, code: int, backoff: Backoff) -> None:
        """Wait before the worker that ended with *code* is started again, or stop everything."""
        if self._changes is not None:
            log.error("%s; starts again at the next change", ending)
            await self._news_within(None)
        elif code in (USAGE, CONFIGURATION) and not self._consumed:
            self.stop()
        else:
            delay = backoff.next()
            self._restarts += 1
            log.error("%s and starts again in %.1f s", ending, delay)
            await self._news_within(delay)

    async def _news_within(self, seconds: float | None) -> None:
        with anyio.move_on_after(seconds):
            await self._news.wait()

    def _tell(self) -> None:
        self._news.set()
        self._news = anyio.Event()

    def _heard(self, report: Report) -> None:
        if report.ready is None and not self._consumed:
            self._consumed = True
            self._tell()

    async def _obey(self, signals: Any) -> None:
        async for number in apart(signals):
            name = signal.Signals(number).name
            if self._stopping:
                log.error("%s again: ending at once, unfinished messages go back to their queues", name)
                for child in self._children.values():
                    child.kill()
                os._exit(128 + number)
            log.info("%s: the workers finish what was received", name)
            self.stop()

    async def _reload(self, changes: AsyncIterator[str]) -> None:
        async for path in changes:
            if not self._stopping:
                log.info("%s has changed: starting again", path)
                self._stop_children()

    def _stop_children(self) -> None:
        for child in self._children.values():
            self._tasks.start_soon(child.stop, self._plan.shutdown_timeout + PATIENCE)
        self._tell()

    def _unready(self, number: int) -> str | None:
        child = self._children.get(number)
        if child is None:
            return "does not run"
        return "is starting" if child.report is None else child.report.ready

    def _figures(self) -> Figures:
        reports = [child.report for child in self._children.values()]
        return together([self._past, *(one.figures for one in reports if one is not None)])

    def _say(self, code: int) -> None:
        for name, account in self._figures().accounts().items():
            if account.received or code in (DRAINED, HUNG):
                log.info("%s ended with all its workers: %s", name, account)


def rank(code: int) -> int:
    """Return how bad an exit code of a worker is."""
    return WORST.index(code) if code in WORST else WORST.index(FAILED)
