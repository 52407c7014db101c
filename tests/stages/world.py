"""A broker, a target and time for the engine, all in memory and driven step by step by a random test."""

import asyncio
import math
import selectors
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import anyio

from flow.errors import PublishFailed
from flow.ledger import digest
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.outcome import Outcome
from flow.pipeline import Pipeline
from flow.stages.engine import Engine
from tests.messages import MemoryOrigin
from tests.stages.conftest import number
from tests.stages.faulty import FaultyLedger

T = TypeVar("T")

RETRY_DELAY = 30.0
MANY_TURNS = 20_000  # of the loop without time passing: nothing here has that much to do


class JumpingSelector(selectors.SelectSelector):
    """Does not wait: it moves the time of its loop to where the waiting would have ended."""

    loop: "JumpingLoop"

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "everybody waits for ever"
        self.loop.turns = self.loop.turns + 1 if timeout <= 0 else 0
        assert self.loop.turns < MANY_TURNS, "a busy loop: much is done while no time passes"
        self.loop.moment += max(0.0, timeout)
        return super().select(0)


class JumpingLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes at once when nothing is left to do."""

    def __init__(self) -> None:
        self.moment = 1000.0
        self.turns = 0
        selector = JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.moment


class JumpingClock:
    """The clock of the stages, which goes with the loop."""

    def __init__(self, loop: JumpingLoop) -> None:
        self._loop = loop
        self.now = loop.time

    def call_at(self, when: float, callback: Callable[[], None]) -> asyncio.TimerHandle:
        return self._loop.call_at(when, callback)


@dataclass(eq=False)
class Stored:
    """A message as the broker has it."""

    n: int
    attempt: int = 1
    redelivered: bool = False
    copy: str | None = None  # its message id


class Session(MemoryOrigin):
    """One session: what is settled reaches the broker, unless it is slow; then a loss takes it along."""

    def __init__(self, world: "World", prefetch: int) -> None:
        super().__init__("numbers", prefetch)
        self.world = world
        self.stored: dict[Message[Any], Stored] = {}  # not settled as the broker sees it
        self.under_way: list[tuple[Message[Any], str]] = []  # settled here; the broker has not processed it

    def _settle(self, message: Message[Any], verb: list[Message[Any]]) -> None:
        super()._settle(message, verb)
        name = "ack" if verb is self.acked else "reject" if verb is self.rejected else "release"
        self.under_way.append((message, name))
        self.world.verbs[name] += 1
        self.world.turn_soon()


class World:
    """The engine of one pipeline, with a broker that loses nothing by itself and forgets nothing."""

    def __init__(
        self,
        make: Callable[["World"], Pipeline[Any, Any]],
        prefetch: int,
        rejectable: bool,
        *,
        recording: bool = False,
    ) -> None:
        self.loop = JumpingLoop()
        self.loop.set_exception_handler(lambda _, context: self.mishaps.append(str(context)))
        self.mishaps: list[str] = []
        self.prefetch = prefetch
        self.published: Counter[int] = Counter()
        self.received = 0
        self.effects: Counter[int] = Counter()  # by number: delivering callbacks that returned
        self.skips: Counter[int] = Counter()
        self.parked: Counter[int] = Counter()
        self.once = False  # each number is to be delivered once, however often it is published
        self.claiming = False  # copies of what was delivered are skipped
        self.repeatable: Counter[int] = Counter()  # effects that no row told of when the process was killed
        self.parked_twice: Counter[int] = Counter()  # the same of copies in the park
        self.unsure: set[int] = set()  # whose callback went on although it was cancelled
        self.park_fails = False
        self.park_takes = 0.0  # seconds
        self.ready: deque[Stored] = deque()
        self.looping = 0  # messages in the retry loop
        self.gone: Counter[int] = Counter()  # acknowledged, as the broker sees it
        self.slow = False  # the broker processes nothing now
        self.bursts: float = math.inf  # that it still delivers: a few after a drain has asked it to stop
        self.session: Session | None = None
        self.verbs: Counter[str] = Counter()
        self.handling = 0
        self.plans: dict[str, deque[str]] = {
            name: deque() for name in ("message", "batch", "failed", "prepare", "key")
        }
        self.gate = self.run(new_event())
        self._turning = False
        self.killed = False  # its tasks are being cancelled: what they still do never happened
        self.pipeline = make(self)
        self.rejectable = rejectable
        self.ledger = FaultyLedger(self.loop.time) if recording else None
        self.start()
        self.connect()
        self.turns(5)

    def start(self) -> None:
        """Start the process."""
        self.metrics = PipelineMetrics("numbers", list(self.pipeline.batchings()))
        self.metrics.account("numbers")
        self.engine = self.run(self._engine())
        self.running = self.loop.create_task(self.engine.run())

    async def _engine(self) -> Engine:
        return Engine(
            self.pipeline,
            self.metrics,
            self._park,
            JumpingClock(self.loop),
            rejectable=lambda _: self.rejectable,
            store=None if self.ledger is None else (self.ledger, self.ledger),
        )

    def kill(self) -> None:
        """Kill the process and start another one: what was not written down is forgotten."""
        assert self.ledger is not None
        for n in self.published:
            delivered = self.ledger.recorded[n, Outcome.DELIVERED]
            self.repeatable[n] = max(self.repeatable[n], self.effects[n] - delivered)
            parked = self.ledger.recorded[n, Outcome.PARKED]
            self.parked_twice[n] = max(self.parked_twice[n], self.parked[n] - parked)
        session, self.session = self.session, None
        if session is not None:
            session.alive = False
            self._take_back(session)
        self.killed = self.ledger.closed = True
        self.running.cancel()
        self.run(asyncio.wait({self.running}))  # type: ignore[arg-type]
        self.killed = self.ledger.closed = False
        self.open_gate()
        self.received = 0
        self.verbs.clear()
        self.start()
        self.connect()

    def confirm(self) -> None:
        """Let the engine know that the broker knows of what it was told, if it does."""
        books, session = self.engine.books, self.session
        if books is not None and session is not None and not session.under_way:
            books.commit.arrived(session, books.commit.unconfirmed().get(session, 0))

    # Time

    def run(self, doing: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(doing)

    def turns(self, count: int) -> None:
        """Let the loop turn *count* times: short enough to stop in the middle of things."""
        self.run(turns(count))
        self.check()

    def advance(self, seconds: float) -> None:
        self.run(asyncio.sleep(seconds))
        self.check()

    def check(self) -> None:
        """Check what must hold at any time."""
        assert not self.mishaps, self.mishaps
        if self.running.done():
            self.running.result()
        account = self.metrics.accounts["numbers"]
        assert account.received == self.received
        assert account.retrying == self.verbs["reject"]
        assert account.returned == self.verbs["release"]
        assert account.delivered + account.skipped + account.parked == self.verbs["ack"]
        open_here = 0 if self.session is None else len(self.session.made) - len(self.session.settled)
        assert account.open == open_here, (account, open_here)
        waiting = sum(
            count for stage, count in self.engine.buffered().items() if stage not in ("parker", "ledger")
        )
        assert waiting <= open_here, self.engine.buffered()  # what is parked or written outlives its session
        self.check_fates()

    def check_fates(self) -> None:
        """Check what became of each number."""
        for n, count in self.effects.items():
            most = 1 if self.once else self.published[n] + self.repeatable[n]
            assert count <= most or n in self.unsure, f"{n} was delivered {count} times"
        for n, count in self.parked.items():
            assert count <= self.published[n] + self.parked_twice[n], f"{n} was parked {count} times"
        for n, count in self.gone.items():
            explained = self.effects[n] + self.skips[n] + self.parked[n]
            if self.claiming and self.effects[n]:
                explained = max(explained, count)  # copies of what was done
            assert count <= explained, f"{n} is lost: {count} acknowledged, {explained} explained"

    # The broker

    def publish(self, *numbers: int) -> None:
        for n in numbers:
            self.published[n] += 1
            copy = None if self.ledger is None else f"{n}/{self.published[n]}"
            self.ready.append(Stored(n, copy=copy))
        self.turn_soon()

    def turn_soon(self) -> None:
        if not self._turning:
            self._turning = True
            self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """Process what was settled, then deliver what the window grants."""
        self._turning = False
        session = self.session
        if session is None:
            return
        for message, verb in session.under_way[: 0 if self.slow else None]:
            self._process(session.stored.pop(message), verb)
        if not self.slow:
            session.under_way.clear()
        burst = []
        while self.bursts > 0 and self.ready and len(session.stored) < session.prefetch:
            one = self.ready.popleft()
            message = session.message(
                {"n": one.n} if one.n > 0 else b"not JSON",
                received_at=self.loop.time(),
                redelivered=one.redelivered,
                attempt=one.attempt,
                message_id=one.copy,
            )
            if self.ledger is not None:
                self.ledger.identities[digest(message.identity())] = one.n
            session.stored[message] = one
            burst.append(message)
        if burst:
            self.bursts -= 1
            self.received += len(burst)
            self.engine.receive(burst)

    def _process(self, one: Stored, verb: str) -> None:
        if verb == "ack":
            self.gone[one.n] += 1
        elif verb == "release":
            self.ready.appendleft(replace(one, redelivered=True))
        else:
            self.looping += 1
            self.loop.call_later(
                RETRY_DELAY, self._back, replace(one, attempt=one.attempt + 1, redelivered=False)
            )

    def _back(self, one: Stored) -> None:
        self.looping -= 1
        self.ready.append(one)
        self.turn_soon()

    def connect(self) -> None:
        if self.session is None:
            self.session = Session(self, self.prefetch)
            self.engine.origins = [self.session]
            self.turn_soon()

    def lose(self, later: int) -> None:
        """End the session; the engine is told *later* turns of the loop after it ended."""
        session = self.session
        if session is None:
            return
        session.alive = False
        self.session = None
        self.run(turns(later))
        settled = set(session.settled)
        outstanding = [message for message in session.made if message not in settled]
        unconfirmed = [message for message, verb in session.under_way if verb != "release"]
        self._take_back(session)
        self.engine.lost(outstanding, unconfirmed)
        self.check()

    def _take_back(self, session: Session) -> None:
        back = [replace(one, redelivered=True) for one in session.stored.values()]
        self.ready.extendleft(reversed(back))

    # The park and the end

    async def _park(self, message: Message[Any], reason: str) -> None:
        await anyio.sleep(self.park_takes)
        if self.park_fails:
            raise PublishFailed("the park is full")
        if self.killed:
            return
        self.parked[number(message)] += 1

    def open_gate(self) -> None:
        self.gate.set()
        self.gate = self.run(new_event())

    def calm(self) -> None:
        """Let nothing go wrong from now on."""
        for plan in self.plans.values():
            plan.clear()
        self.slow = self.park_fails = False
        if self.ledger is not None:
            self.ledger.fails, self.ledger.takes = "", 0.0
        self.park_takes = 0.0
        self.open_gate()
        self.connect()
        self.turn_soon()

    def drain(self, timeout: float, bursts: int = 0) -> float:
        """Drain while *bursts* more are on their way; return how many seconds that took."""
        began, self.bursts = self.loop.time(), bursts
        self.run(self.engine.drain(timeout))
        return self.loop.time() - began

    def close(self) -> None:
        self.running.cancel()
        self.run(asyncio.wait({self.running}))  # type: ignore[arg-type]
        self.loop.close()


async def new_event() -> anyio.Event:
    return anyio.Event()


async def turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)
