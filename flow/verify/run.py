"""One run: a pipeline between a broker in memory and a double of its target, with the faults of a seed."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import anyio

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.devbroker import tables
from flow.devbroker.server import DevBroker
from flow.parking import MESSAGE_ID
from flow.pipeline import Pipeline
from flow.plumbing.development import development_topology
from flow.plumbing.setup import set_up
from flow.records.url import VARIABLE
from flow.runner import Runner, RunOptions
from flow.topology import DEAD_QUEUE
from flow.verify.bodies import Sample
from flow.verify.double import Answer, Double
from flow.verify.history import History
from flow.verify.mail import MailDouble
from flow.verify.marks import Marks
from flow.verify.records import FILE, needed, opened
from flow.verify.review import WAITING, Review, review
from flow.verify.surroundings import surroundings, within

BURST = 4  # a part of this size of the messages comes at once
TOGETHER = 2  # messages that come together after that
FAULTS = 3  # of the broker in one run
OTHER = 1 << 32  # away from every seed
TICK = 0.05  # seconds between two looks
LOOPS = 6  # ticks in which the retry loop passes once
SILENCE = 12.0  # seconds in which nothing happens; then nothing will
LONGEST = 60.0  # seconds
GRACE = 0.2  # seconds for calls that come late
BATCH = 0.15  # most seconds that a batch waits for more
SHUTDOWN = 5.0  # seconds
ANY_QUEUE = "verify.work"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is verified, and with what."""

    cls: type[Pipeline[Any, Any]]
    samples: Sequence[Sample]
    marks: Marks
    queue: str | None
    named: Sequence[str]
    """Variables of settings that are to lead to the double; empty: every URL."""
    answer: Answer
    optional: Sequence[str] = ()
    """Paths, or patterns of them, whose calls may fail."""

    @property
    def where(self) -> str:
        """The queue that is consumed."""
        return where(self.cls, self.queue)


def where(cls: type[Pipeline[Any, Any]], queue: str | None) -> str:
    """Return the queue that *cls* consumes: *queue*, else its own, else any."""
    own: str = getattr(cls, "queue", ANY_QUEUE)
    return queue or own


async def run(plan: Plan, seed: int) -> Review:
    """Let the pipeline work all messages under the faults of *seed*, and judge what happened.

    Raises:
        FlowError: the pipeline cannot be made or started.
    """
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(DevBroker())
        history = History(names(plan), broker.faults.struck)
        double = Double(history, plan.marks, seed, plan.answer, plan.optional)
        await stack.enter_async_context(double)
        mails = await stack.enter_async_context(MailDouble(history, plan.marks, seed))
        around = surroundings(plan.cls, os.environ, double.url, double.port, plan.named, mails.port)
        database = None
        if needed(plan.cls, os.environ):
            database, records = await stack.enter_async_context(opened(plan.samples))
            around.environment.pop(FILE, None)
            around.environment[VARIABLE] = records
        stack.enter_context(within(around.environment))
        pipeline = made(plan, around.environment)
        url = BrokerUrl.parse(broker.url())
        await set_up(url, development_topology([plan.where], retry_delay=pipeline.retry_delay))
        broker.watch(history.settle)
        arm(broker, seed, len(plan.samples))
        options = RunOptions(shutdown_timeout=SHUTDOWN, database=database, copy=history.take)
        runner = Runner(pipeline, url, options)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            tasks.start_soon(turn, broker, pipeline.retry_delay)
            await feed(plan, url)
            await quiet(history, len(plan.samples))
            await late(double, mails)
            down = bool(runner.down())
            runner.stop()
            await runner.ended.wait()
            tasks.cancel_scope.cancel()
        await late(double, mails)
        held, parked = contents(broker, history, plan.where)
        return review(
            seed,
            history,
            held,
            parked,
            count=len(plan.samples),
            unmarked=plan.marks.unmarked,
            redirected=around.redirected,
            down=down,
            once=plan.cls.claim is not None and plan.cls.claim.unknown == "park",
        )


def arm(broker: DevBroker, seed: int, count: int) -> None:
    """Let the faults of *seed* strike: one of them soon, as few acknowledgements may be all there are."""
    broker.faults.schedule(seed, number=1, within=3)
    broker.faults.schedule(seed + OTHER, number=FAULTS - 1, within=2 * FAULTS + count // 2)


def names(plan: Plan) -> dict[str, int]:
    """Return the AMQP message ids."""
    return {f"verify-{number}": number for number in range(len(plan.samples))}


def made(plan: Plan, environment: dict[str, str]) -> Pipeline[Any, Any]:
    """Make the pipeline: as it is, but nothing paces it, and no batch waits longer than for a moment.

    Raises:
        ConfigError: an option, a setting or the class is wrong.
    """
    batching = {
        name: replace(one, timeout=min(one.timeout, BATCH)) for name, one in plan.cls.batchings().items()
    }
    options: dict[str, Any] = {
        "queue": plan.where,
        "dead_letter": "assume",
        "park": "queue",
        "rate_limit": None,
    }
    if batching:
        several = isinstance(plan.cls.batching, dict) or len(batching) > 1
        options["batching"] = batching if several else next(iter(batching.values()))
    return plan.cls.configured(environment, **options)


async def feed(plan: Plan, url: BrokerUrl) -> None:
    """Publish the messages: a part at once, the rest one after another, so that much is under way."""
    publisher = Publisher(url, name="flow verify")
    async with AsyncExitStack() as stack:
        stack.push_async_callback(publisher.close)
        count = len(plan.samples)
        burst = count // BURST
        for start, end in pairwise([0, burst, *range(burst + TOGETHER, count, TOGETHER), count]):
            async with anyio.create_task_group() as group:
                for number in range(start, end):
                    group.start_soon(publish, publisher, plan, number)
            await anyio.sleep(TICK)


async def publish(publisher: Publisher, plan: Plan, number: int) -> None:
    """Publish one message."""
    body = plan.samples[number].body
    await publisher.publish("", plan.where, body, message_id=f"verify-{number}")


async def turn(broker: DevBroker, retry_delay: float) -> None:
    """Let the time of the broker pass quickly, until cancelled."""
    while True:
        await anyio.sleep(TICK)
        broker.clock.advance(retry_delay / LOOPS)


async def quiet(history: History, count: int) -> None:
    """Wait until all messages are acknowledged, or nothing happens any more."""
    with anyio.move_on_after(LONGEST):
        while len(history.acknowledged) < count:
            before = history.now
            with anyio.move_on_after(SILENCE) as scope:
                await until(lambda before=before: history.now != before)  # type: ignore[misc]  # bound now
            if scope.cancelled_caught:
                return


async def late(*doubles: Double | MailDouble) -> None:
    """Wait for calls that are made after everything is settled."""
    with anyio.move_on_after(SILENCE):
        await anyio.sleep(GRACE)
        await until(lambda: not any(double.busy for double in doubles))


async def until(true: Callable[[], bool]) -> None:
    """Look again and again until something is *true*."""
    while not true():  # noqa: ASYNC110 (neither users' calls nor deliveries have an event)
        await anyio.sleep(TICK / 5)


def contents(broker: DevBroker, history: History, work: str) -> tuple[dict[int, str], set[int]]:
    """Return which messages are still in a queue, and in what way, and which are in the park."""
    held: dict[int, str] = {}
    parked: set[int] = set()
    for queue in broker.lengths():
        for number in numbers(broker, history, queue):
            if queue == DEAD_QUEUE:
                parked.add(number)
            elif queue == work:
                held[number] = WAITING
            else:
                held.setdefault(number, "retrying")
    return held, parked


def numbers(broker: DevBroker, history: History, queue: str) -> Iterator[int]:
    """Yield which messages are in *queue*; copies in the park keep their id in a header."""
    for message in broker.messages(queue):
        kept = message.headers.get(MESSAGE_ID)
        identifier = message.message_id if kept is None else tables.text(kept)
        if identifier in history.names:
            yield history.names[identifier]
