"""The main job as a story: signatures on their way to a CRM, with poison, refusals and outages."""

import logging
import os
import signal
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import anyio

from flow.batching import Batching
from flow.broker.url import BrokerUrl
from flow.demo.broker import KEY, QUEUE, RETRY_DELAY, parked, plumbed
from flow.demo.cast import Role, Sent
from flow.demo.crm_server import CrmServer
from flow.demo.explanation import Evidence, Explanation
from flow.demo.feeder import Feeder
from flow.demo.meter import Figure, Meter, batch_note, figures_of
from flow.demo.trouble import Trouble
from flow.demo.view import View
from flow.demo.witness import Witness
from flow.message import Message
from flow.ops import Ops
from flow.pipeline import Pipeline
from flow.runner import Runner, RunOptions
from flow.service import Service
from flow.target import load
from flow.topology import RETRY_QUEUE

PATIENCE = 60.0  # seconds until the demo gives up waiting for the last messages
LOOK = 0.1  # seconds between two looks for the end
REST = 5.0  # seconds of the whole for what is still under way when all is published
SHORTEST = 2.0  # seconds of publishing
HOST = "127.0.0.1"


@dataclass(frozen=True, kw_only=True)
class Script:
    """How long the story is."""

    signatures: int = 3000
    """How many are published; with *forever* in each round."""
    seconds: float = 20.0
    """About how long it lasts; with *forever* the length of a round."""
    forever: bool = False
    ops_port: int = 0

    @property
    def round(self) -> float:
        """For how many seconds is published."""
        return self.seconds if self.forever else max(SHORTEST, self.seconds - REST)


class Story:
    """Everything in one process: the broker, the feeder, the CRM, and flow between them."""

    def __init__(self, view: View, script: Script) -> None:
        """Tell *script* to *view*."""
        self._view = view
        self._script = script
        self._ending = anyio.Event()
        self._meter = Meter(self._figures, self._state, self._notes)
        self._witness = Witness()
        self._crm = CrmServer()
        self._crm.store.whole = False
        self._crm.calls = deque(maxlen=1)  # what it was told can be much, and nobody looks at it here

    async def run(self) -> Explanation:
        """Tell it; return the explanation of every message.

        The first SIGINT or SIGTERM lets it come to its end, the second ends the process.
        """
        self._view.begin()
        try:
            async with plumbed() as (broker, url), self._crm:
                self._broker = broker
                self._runner = Runner(self._pipeline(), url, RunOptions(shutdown_timeout=10.0))
                script = self._script
                self._feeder = Feeder(
                    url, KEY, script.signatures, script.round, forever=script.forever, meet=self._meet
                )
                self._trouble = Trouble(broker, self._crm, self._feeder, self._script.round, self.say)
                async with Ops(HOST, self._script.ops_port, Service([self._runner])) as ops:
                    self.say(f"broker {broker.url()}")
                    self.say(f"ops page {ops.address} (metrics and health)")
                    await self._play()
                self._view.show(self._meter.read())
                self.say("drained; the account of every message:")
                return await self._explained(url)
        finally:
            self._view.end()

    @property
    def received(self) -> str:
        """Flow's own account of the pipeline, in one line."""
        return f"{self._runner.pipeline.name}, redeliveries included: {self._runner.account}"

    def say(self, text: str) -> None:
        """Say what happens."""
        self._view.say(self._meter.seconds, text)

    def _meet(self, sent: Sent) -> None:
        """Let the CRM treat a message as its role has it."""
        faults = self._crm.faults
        if sent.role is Role.REFUSED:
            faults.invalid[sent.id] = "no_such_country"
        elif sent.role is Role.BUSY:
            faults.busy[sent.id] = 2

    def _pipeline(self) -> Pipeline[Any, Any]:
        (kind,) = load("pipelines.crm")
        settings = {"CRM_URL": self._crm.url, "CRM_TOKEN": self._crm.token}
        return self._witness.watching(kind).configured(
            settings, queue=QUEUE, retry_delay=RETRY_DELAY, batching=Batching(size=100, timeout=0.5)
        )

    async def _play(self) -> None:
        async with anyio.create_task_group() as tasks, self._logged():
            tasks.start_soon(self._obey)
            tasks.start_soon(self._watch)
            tasks.start_soon(self._runner.run)
            tasks.start_soon(self._trouble.run)
            await self._feeder.run()
            await self._trouble.played.wait()
            self.say(
                f"published {len(self._feeder.sent)} messages, all confirmed; waiting for the last of them"
            )
            self._trouble.end()
            with anyio.move_on_after(PATIENCE):
                await self._settled()
            self._runner.stop()
            await self._runner.ended.wait()
            tasks.cancel_scope.cancel()

    async def _settled(self) -> None:
        """Wait until every message has come to an end and nothing is under way."""
        while not self._over():  # noqa: ASYNC110 (no event tells of all of them)
            await anyio.sleep(LOOK)

    def _over(self) -> bool:
        ready = self._broker.lengths()
        ended = self._crm.effects.keys() | self._witness.skipped.keys() | self._witness.parked
        return (
            not ready[QUEUE]
            and not ready[RETRY_QUEUE]
            and not self._runner.account.open
            and self._feeder.sent.keys() <= ended
        )

    async def _obey(self) -> None:
        with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
            async for number in signals:
                if self._ending.is_set():
                    self._view.end()
                    os._exit(128 + number)
                self._ending.set()
                self.say(f"{signal.Signals(number).name}: nothing more is published, and flow drains")
                self._feeder.stop()
                self._trouble.end()

    async def _watch(self) -> None:
        while True:
            self._view.show(self._meter.read())
            await anyio.sleep(self._view.period)

    def _figures(self) -> Sequence[Figure]:
        published = len(self._feeder.sent)
        return figures_of(self._runner.metrics, published, self._broker.lengths(), QUEUE, "the CRM")

    def _state(self) -> tuple[str, bool]:
        if self._runner.ended.is_set():
            return "drained", True
        if self._runner.unready() is not None:
            return "connecting", False
        return ("the CRM is down", False) if self._runner.down() else ("consuming", True)

    def _notes(self) -> Sequence[str]:
        return [batch_note(self._runner.metrics)]

    @asynccontextmanager
    async def _logged(self) -> AsyncIterator[None]:
        """Tell what flow logs from warnings on as a part of the story."""
        log = logging.getLogger("flow")
        handler, before = Told(self), (log.handlers[:], log.level, log.propagate)
        log.handlers[:], log.propagate = [handler], False
        log.setLevel(logging.WARNING)
        try:
            yield
        finally:
            log.handlers[:], log.propagate = before[0], before[2]
            log.setLevel(before[1])

    async def _explained(self, url: BrokerUrl) -> Explanation:
        witness = self._witness
        evidence = Evidence(
            told=self._crm.effects,
            skipped=witness.skipped,
            parked=await parked(url),
            retried=witness.retried,
            again=frozenset(self._feeder.again),
        )
        return Explanation(self._feeder.sent, evidence)


class Told(logging.Handler):
    """Hands what is logged to the story; what can be said of many messages is said of the first."""

    def __init__(self, story: Story) -> None:
        super().__init__()
        self._story = story
        self._said: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        """Say the sentence of *record*."""
        if isinstance(record.args, tuple) and any(isinstance(one, Message) for one in record.args):
            if record.msg in self._said:
                return
            self._said.add(record.msg)
        self._story.say(f"flow: {record.getMessage()}")
