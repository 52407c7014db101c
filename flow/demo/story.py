"""The whole way of signatures as a story: submitted, confirmed, delivered, with all that goes wrong."""

import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import anyio

from flow.demo.cast import Signature
from flow.demo.evidence import gathered
from flow.demo.explanation import Explanation
from flow.demo.feeder import Feeder
from flow.demo.figures import batch_note, figures_of, table
from flow.demo.meter import Figure, Meter
from flow.demo.stage import HOST, Stage, staged
from flow.demo.told import Told
from flow.demo.trouble import Trouble
from flow.demo.view import View
from flow.ops import Ops
from flow.plumbing.submitting import Submitting
from flow.records import outbox
from flow.service import Service
from flow.topology import DEAD_QUEUE

PATIENCE = 60.0  # seconds in which nothing happens, until the demo gives up waiting for the last messages
LOOK = 0.1  # seconds between two looks for the end
QUIET = 3  # looks at which nothing happens and nothing waits
REST = 6.0  # seconds of the whole for what is still under way when all is submitted
SHORTEST = 2.0  # seconds of submitting
SWEEP = 1.0  # seconds between two looks through the outbox, unless it is woken


@dataclass(frozen=True, kw_only=True)
class Script:
    """How long the story is."""

    signatures: int = 240
    """How many are submitted; with *forever* in each round."""
    seconds: float = 20.0
    """About how long it lasts; with *forever* the length of a round."""
    forever: bool = False
    ops_port: int = 0
    kept: Path | None = None
    """Where records and mails stay; None: they are deleted at the end."""

    @property
    def round(self) -> float:
        """For how many seconds is submitted."""
        return self.seconds if self.forever else max(SHORTEST, self.seconds - REST)


class Story:
    """Everything in one process: records, broker, targets, people, and flow between them."""

    def __init__(self, view: View, script: Script) -> None:
        """Tell *script* to *view*."""
        self._view = view
        self._script = script
        self._ending = anyio.Event()
        self._meter = Meter(self._figures, self._state, self._notes)
        self._outbox = 0
        self.received: list[str] = []
        """Flow's own account of each pipeline: a table, redeliveries included."""

    async def run(self) -> Explanation:
        """Tell it; return the explanation of every signature.

        The first SIGINT or SIGTERM lets it come to its end, the second ends the process.
        """
        script = self._script
        self._view.begin()
        try:
            async with staged(script.kept, self.say) as stage:
                self._stage = stage
                stage.crm.calls = deque(maxlen=1)  # nobody looks at them here
                self._trouble = Trouble(
                    stage.broker, stage.turnstile, stage.crm, stage.sink, stage.sqs, script.round, self.say
                )
                self._feeder = Feeder(
                    Submitting(stage.database),
                    stage.turnstile,
                    script.signatures,
                    script.round,
                    forever=script.forever,
                    meet=self._meet,
                )
                await self._feeder.prepare()
                async with Ops(HOST, script.ops_port, Service(list(stage.runners.values()))) as ops:
                    self.say(f"broker {stage.broker.url()}")
                    self.say(f"ops page {ops.address} (metrics and health)")
                    self.say(f"mails {stage.mails}")
                    await self._play()
                self._view.show(self._meter.read())
                self.say("drained; the account of every signature:")
                self.received = table({name: one.account for name, one in stage.runners.items()})
                return await self._explained(stage)
        finally:
            self._view.end()

    def say(self, text: str) -> None:
        """Say what happens."""
        self._view.say(self._meter.seconds, text)

    async def _play(self) -> None:
        stage = self._stage
        async with anyio.create_task_group() as tasks, self._logged():
            tasks.start_soon(self._obey)
            tasks.start_soon(self._watch)
            tasks.start_soon(stage.sweeper.run, SWEEP)
            for runner in stage.runners.values():
                tasks.start_soon(runner.run)
            tasks.start_soon(self._trouble.run)
            await self._feeder.run()
            await self._trouble.played.wait()
            self.say(f"submitted {len(self._feeder.signatures)} signatures; waiting for the last of them")
            self._trouble.end()
            await self._settled()
            for runner in stage.runners.values():
                runner.stop()
            for runner in stage.runners.values():
                await runner.ended.wait()
            tasks.cancel_scope.cancel()

    async def _settled(self) -> None:
        """Wait until nothing waits and nothing is under way, or nothing happens any more."""
        quiet, before, latest = 0, -1, anyio.current_time()
        while quiet < QUIET and anyio.current_time() - latest < PATIENCE:
            waiting, _ = await outbox.waiting(self._stage.database)
            happened = self._happened()
            quiet = quiet + 1 if not waiting and not self._busy() and happened == before else 0
            latest = latest if happened == before else anyio.current_time()
            before = happened
            await anyio.sleep(LOOK)

    def _busy(self) -> bool:
        """Whether a message or a person is on the way."""
        stage = self._stage
        ready = any(number for queue, number in stage.broker.lengths().items() if queue != DEAD_QUEUE)
        return (
            ready
            or stage.people.thinking.total() > 0
            or any(one.account.open for one in stage.runners.values())
        )

    def _happened(self) -> int:
        """Return a number that grows with everything that happens."""
        stage = self._stage
        received = sum(runner.account.received for runner in stage.runners.values())
        return received + stage.people.answered.total()

    async def _obey(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self._ending.is_set():
                    self._view.end()
                    os._exit(128 + number)
                self._ending.set()
                self.say(f"{signal.Signals(number).name}: nothing more is submitted, and flow drains")
                self._feeder.stop()
                self._trouble.end()

    async def _watch(self) -> None:
        while True:
            self._outbox, _ = await outbox.waiting(self._stage.database)
            self._view.show(self._meter.read())
            await anyio.sleep(self._view.period)

    def _meet(self, action_id: int, signature: Signature) -> None:
        self._trouble.meet(action_id, signature)
        self._stage.people.numbers[action_id] = signature.number
        self._stage.sweeper.wake()

    def _figures(self) -> Sequence[Figure]:
        stage = self._stage
        submitted = len(self._feeder.signatures)
        return figures_of(submitted, self._outbox, stage.runners, stage.broker.lengths(), stage.people)

    def _state(self) -> tuple[str, bool]:
        runners = self._stage.runners.values()
        if all(runner.ended.is_set() for runner in runners):
            return "drained", True
        if any(runner.unready() is not None for runner in runners):
            return "connecting", False
        away = [name for name, runner in self._stage.runners.items() if runner.down()]
        return (f"{', '.join(away)} wait{'s' * (len(away) == 1)}", False) if away else ("consuming", True)

    def _notes(self) -> Sequence[str]:
        return [batch_note([runner.metrics for runner in self._stage.runners.values()])]

    @asynccontextmanager
    async def _logged(self) -> AsyncIterator[None]:
        """Tell what flow logs from warnings on as a part of the story."""
        log = logging.getLogger("flow")
        handler, before = Told(self.say), (log.handlers[:], log.level, log.propagate)
        log.handlers[:], log.propagate = [handler], False
        log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            log.handlers[:], log.propagate = before[0], before[2]
            log.setLevel(before[1])

    async def _explained(self, stage: Stage) -> Explanation:
        evidence = await gathered(stage.database, stage.url, stage.sink.mails, stage.crm, stage.sqs)
        return Explanation(self._feeder.signatures, self._feeder.poison, evidence)
