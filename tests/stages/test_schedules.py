"""Any order of events: what is received is settled once, and nothing is lost, stuck or done twice."""

import asyncio
import logging
import math
import os
from collections.abc import Callable, Hashable, Sequence
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from flow.batch import Batch
from flow.batching import Batching
from flow.claim import Claim
from flow.message import Message
from flow.outcome import Outcome, Reject, Retry, Skip, Unavailable
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries
from tests.stages.conftest import Number, number
from tests.stages.world import World

ENDS: dict[str, Callable[[], BaseException]] = {
    "error": lambda: ValueError("secret"),
    "retry": lambda: Retry("again"),
    "soon": lambda: Retry("again soon", after=5.0),
    "late": lambda: Retry("again late", after=100.0),
    "reject": lambda: Reject("never"),
    "skip": lambda: Skip("nothing to do"),
    "down": lambda: Unavailable("down"),
    "away": lambda: Unavailable("away", after=20.0),
    "group": lambda: ExceptionGroup("two", [Unavailable("down"), ValueError("secret")]),
    "cancel": lambda: asyncio.CancelledError(),
}
WAITS = {"gate": 0.0, "nap": 3.0, "hang": 500.0}
MARKS = ["mark retry", "mark soon", "mark reject", "mark skip"]
WORDS = ["ok", *WAITS, "swallow", *ENDS]
PATIENCE = 900  # seconds for 1000 schedules, which take about a minute on an idle machine
PATIENT = 20_000.0  # seconds after which everything must be done, once nothing goes wrong any more


class Scripted(Pipeline[Number, int]):
    """Does what the plans of its world say, and is good when they are used up."""

    queue = "numbers"
    world: World

    async def act(self, plan: str, *numbers: int) -> str:
        """Carry out the next word of *plan*; return it if it is left to the caller."""
        world = self.world
        word = world.plans[plan].popleft() if world.plans[plan] else "ok"
        if word == "gate":
            await world.gate.wait()
        elif word in WAITS:
            await anyio.sleep(WAITS[word])
        elif word == "swallow":
            try:
                await anyio.sleep(500.0)
            except asyncio.CancelledError:
                world.unsure.update(numbers)
        elif word in ENDS:
            if word == "skip":
                world.skips.update(numbers)
            raise ENDS[word]()
        return word

    def prepared(self, message: Message[Number]) -> None:
        """Check that *message* was prepared, if messages are."""
        if type(self).prepare_messages is not Pipeline.prepare_messages:
            assert message.body.n in message.prepared


class Single(Scripted):
    """Delivers in `handle_message`."""

    queue = "numbers"

    async def handle_message(self, message: Message[Number]) -> int:
        n = message.body.n
        self.prepared(message)
        await self.act("message", n)
        if not self.world.killed:
            self.world.effects[n] += 1
        return n


class Batched(Scripted):
    """Delivers in `handle_batch`; a batch has the numbers that are equal modulo 3."""

    queue = "numbers"

    async def handle_message(self, message: Message[Number]) -> int:
        self.prepared(message)
        await self.act("message", message.body.n)
        return message.body.n

    def batch_key(self, message: Message[int]) -> Hashable:
        return message.body % 3

    async def handle_batch(self, batch: Batch[int]) -> None:
        word = await self.act("batch", *batch.bodies)
        marked = list(batch)[::2] if word in MARKS else []
        for message in marked:
            if word == "mark skip":
                self.world.skips[message.body] += 1
                batch.skip(message, "nothing to do")
            elif word == "mark reject":
                batch.reject(message, "never")
            else:
                batch.retry(message, "again", after=5.0 if word == "mark soon" else None)
        if marked and self.world.plans["batch"] and self.world.plans["batch"][0] in ENDS:
            await self.act("batch", *(one.body for one in batch if one not in marked))
        if not self.world.killed:
            self.world.effects.update(one.body for one in batch if one not in marked)


async def handle_failed(self: Scripted, message: Message[Any], outcome: Outcome, reason: str) -> None:
    await self.act("failed")


async def prepare_messages(self: Scripted, messages: Sequence[Message[Number]]) -> set[int]:
    numbers = [message.body.n for message in messages]
    await self.act("prepare", *numbers)
    return set(numbers)


def partition_key(self: Scripted, message: Message[Number]) -> int:
    n, plan = message.body.n, self.world.plans["key"]
    word = plan.popleft() if plan else "ok"
    if word in ENDS:
        self.world.skips[n] += word == "skip"
        raise ENDS[word]()
    return n


CALLBACKS = {one.__name__: one for one in (handle_failed, prepare_messages, partition_key)}


def number_of(message: Message[Any]) -> str:
    return str(message.body if isinstance(message.body, int) else message.body.n)


def pipeline(kind: type[Scripted], options: dict[str, Any], callbacks: set[str]) -> type[Scripted]:
    """Make the class of a pipeline with *options*, and with these of the callbacks that it may have."""
    members = {
        "queue": "numbers",
        "retry_delay": 30.0,
        **options,
        **{name: CALLBACKS[name] for name in callbacks},
    }
    return type(kind.__name__, (kind,), members)


BATCHINGS = st.builds(
    Batching,
    size=st.integers(1, 5),
    timeout=st.sampled_from([0.2, 40.0]),
    concurrency=st.integers(1, 3),
    ordered=st.booleans(),
)
OPTIONS = st.fixed_dictionaries(
    {
        "concurrency": st.integers(1, 4),
        "retries": st.builds(Retries, attempts=st.integers(1, 4)),
        "prepare_size": st.integers(1, 4),
    },
    optional={
        "rate_limit": st.builds(
            RateLimit,
            messages=st.just(2.0),
            per=st.just(5.0),
            key=st.sampled_from([None, lambda message: number(message) % 2]),
        ),
        "handler_timeout": st.just(4.0),
        "batch_timeout": st.just(4.0),
    },
)


class Claimed(Scripted):
    """Delivers each number of a batch for itself, and none of them twice, ever."""

    queue = "numbers"

    async def handle_message(self, message: Message[Number]) -> int:
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        for message in batch:
            async with batch.sending(message):
                left = [one.body for one in batch if one not in batch.sent and one not in batch.marks]
                word = await self.act("batch", *left)  # what it raises decides all of them
                if word == "mark reject":
                    batch.reject(message, "never")
                elif word in MARKS:
                    batch.retry(message, "again", after=5.0 if word == "mark soon" else None)
                elif not self.world.killed:
                    self.world.effects[message.body] += 1


class ClaimedSingly(Single):
    """Delivers in `handle_message`, nothing twice."""

    queue = "numbers"


class Schedules(RuleBasedStateMachine):
    """Random events; the world checks its rules after each, and everything is accounted for at the end."""

    recording = False

    @initialize(
        batching=st.none() | BATCHINGS,
        options=OPTIONS,
        prefetch=st.integers(1, 12),
        callbacks=st.sets(st.sampled_from(sorted(CALLBACKS))),
        rejectable=st.booleans(),
        claiming=st.sampled_from(["", "park", "again"]),
    )
    def begin(
        self,
        batching: Batching | None,
        options: dict[str, Any],
        prefetch: int,
        callbacks: set[str],
        rejectable: bool,
        claiming: str,
    ) -> None:
        claiming = claiming if self.recording else ""
        if batching is not None:
            options = {**options, "batching": batching}
        if claiming:
            options = {**options, "claim": Claim(key=number_of, unknown=claiming)}
        single, batched = (ClaimedSingly, Claimed) if claiming else (Single, Batched)
        kind = pipeline(single if batching is None else batched, options, callbacks)

        def make(world: World) -> Pipeline[Any, Any]:
            kind.world = world
            return kind()

        self.last = 0
        self.world = World(make, prefetch, rejectable=rejectable, recording=self.recording)
        self.world.once, self.world.claiming = claiming == "park", bool(claiming)

    @rule(count=st.integers(1, 8), again=st.booleans())
    def publish(self, count: int, again: bool) -> None:
        first = self.last if again and self.last else self.last + 1
        self.world.publish(*range(first, first + count))
        self.last = first + count - 1

    @rule()
    def publish_nonsense(self) -> None:
        self.world.publish(-1)

    @rule(
        callback=st.sampled_from(["message", "batch", "failed", "prepare", "key"]),
        words=st.lists(st.sampled_from([*WORDS, *MARKS]), min_size=1, max_size=6),
    )
    def plan(self, callback: str, words: list[str]) -> None:
        self.world.plans[callback].extend(words)

    @rule(count=st.integers(1, 12))
    def turn(self, count: int) -> None:
        self.world.turns(count)

    @rule(seconds=st.sampled_from([0.01, 0.3, 2.0, 5.0, 31.0, 130.0]))
    def advance(self, seconds: float) -> None:
        self.world.advance(seconds)

    @rule()
    def open_the_gate(self) -> None:
        self.world.open_gate()

    @rule(later=st.integers(0, 3))
    def lose(self, later: int) -> None:
        self.world.lose(later)

    @rule()
    def connect(self) -> None:
        self.world.connect()

    @rule(later=st.integers(0, 2))
    def lose_and_connect(self, later: int) -> None:
        self.world.lose(later)
        self.world.connect()
        self.world.turns(4)

    @rule(slow=st.booleans())
    def slow_broker(self, slow: bool) -> None:
        self.world.slow = slow
        self.world.turn_soon()

    @rule(places=st.integers(-3, 3))
    def reorder(self, places: int) -> None:
        self.world.ready.rotate(places)

    @rule(fails=st.booleans(), seconds=st.sampled_from([0.0, 20.0]))
    def park(self, fails: bool, seconds: float) -> None:
        self.world.park_fails, self.world.park_takes = fails, seconds

    @invariant()
    def holds(self) -> None:
        if hasattr(self, "world"):
            self.world.check()

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.end()
        finally:
            self.world.close()

    def end(self) -> None:
        """Let nothing go wrong any more; then everything must be done in time, and the drain has no work."""
        world = self.world
        world.calm()
        world.advance(PATIENT)
        assert not world.ready
        assert not world.looping
        assert world.gone.total() == world.published.total(), str(world.engine.buffered())
        assert world.metrics.accounts["numbers"].open == 0
        assert world.drain(20.0) < 0.01
        world.check()


class Records(Schedules):
    """As before, with a ledger that fails and hangs, and kills of the process."""

    recording = True

    @rule(fails=st.sampled_from(["", "", "before", "after"]), seconds=st.sampled_from([0.0, 0.0, 1.0, 40.0]))
    def ledger(self, fails: str, seconds: float) -> None:
        assert self.world.ledger is not None
        self.world.ledger.fails, self.world.ledger.takes = fails, seconds

    @rule()
    def confirm(self) -> None:
        self.world.confirm()

    @rule()
    def kill(self) -> None:
        self.world.kill()


class RecordedDrains(Records):
    """The same, but with a drain in the middle, after which another process does the rest."""

    def end(self) -> None:
        world = self.world
        assert world.drain(20.0, bursts=self.last % 3) <= 20.0
        world.advance(0.1)
        assert world.metrics.accounts["numbers"].open == 0, world.metrics.accounts["numbers"]
        world.bursts = math.inf
        world.kill()
        super().end()


class Drains(Schedules):
    """As before, but with a drain in the middle of everything."""

    def end(self) -> None:
        world = self.world
        swallowing = any("swallow" in plan for plan in world.plans.values())
        assert world.drain(20.0, bursts=self.last % 3) <= 20.0
        world.advance(0.1)
        assert world.metrics.accounts["numbers"].open == 0, world.metrics.accounts["numbers"]
        assert world.running.done() or world.unsure or swallowing


PROFILE = settings(
    max_examples=int(os.environ.get("SCHEDULES", "1000")),
    stateful_step_count=int(os.environ.get("STEPS", "40")),
    deadline=None,
    derandomize="SCHEDULES" not in os.environ,
    suppress_health_check=list(HealthCheck),
    report_multiple_bugs=False,
    phases=[Phase.generate] if "NOSHRINK" in os.environ else list(Phase),
    database=None,
)


@pytest.fixture(autouse=True)
def silent() -> Any:
    """Write no logs: there are thousands."""
    logging.getLogger("flow").disabled = True
    yield
    logging.getLogger("flow").disabled = False


TestSchedules = pytest.mark.timeout(PATIENCE)(Schedules.TestCase)
TestSchedules.settings = PROFILE
TestRecords = pytest.mark.timeout(PATIENCE)(Records.TestCase)
TestRecords.settings = PROFILE
TestRecordedDrains = pytest.mark.timeout(PATIENCE)(RecordedDrains.TestCase)
TestRecordedDrains.settings = PROFILE
TestDrains = pytest.mark.timeout(PATIENCE)(Drains.TestCase)
TestDrains.settings = PROFILE
