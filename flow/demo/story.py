"""The main job as a story: signatures on their way to a CRM, with poison, refusals and outages."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import anyio

from flow.broker.declaring import Declarer
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.demo.rabbitmq_node import RabbitMQNode
from flow.demo.signatures import action, body, poison
from flow.parking import read_parked
from flow.pipeline import Pipeline
from flow.plumbing.park import opened_park
from flow.plumbing.push import Push
from flow.plumbing.setup import set_up, topology_for
from flow.runner import Runner, RunOptions
from flow.target import load
from flow.topology import DEAD_QUEUE, RETRY_QUEUE

ORGANISATION = "acme"
QUEUE = f"{ORGANISATION}.crm"
KEY = f"{ORGANISATION}.system.action"
RETRY_DELAY = 1.0  # seconds, instead of 30
OUTAGE = 2.0  # seconds
PATIENCE = 90.0  # seconds until the demo gives up waiting for the end

Say = Callable[[str], None]


@dataclass(frozen=True)
class Cast:
    """How many signatures there are, and which action ids are special."""

    signatures: int = 3000
    refused: set[int] = field(init=False)
    """Those that the CRM will never take."""
    testing: set[int] = field(init=False)
    """Those of people who tried the form out."""
    busy: set[int] = field(init=False)
    """Those that the CRM takes at the third attempt only."""
    wanted: set[int] = field(init=False)
    """Those that must be in the CRM at the end."""
    poison: int = field(init=False)
    """How many bodies can never be read."""

    def __post_init__(self) -> None:
        everybody = set(range(1, self.signatures + 1))
        parts = {
            "refused": set(range(50, self.signatures + 1, 100)),
            "testing": set(range(25, self.signatures + 1, 50)),
            "busy": set(range(10, self.signatures + 1, 40)),
        }
        parts["testing"] -= parts["refused"]
        parts["busy"] -= parts["refused"] | parts["testing"]
        parts["wanted"] = everybody - parts["refused"] - parts["testing"]
        for name, numbers in parts.items():
            object.__setattr__(self, name, numbers)
        object.__setattr__(self, "poison", self.signatures // 100)

    @property
    def parked(self) -> int:
        """How many messages must be parked at the end."""
        return self.poison + len(self.refused)


class Demo:
    """The story on a RabbitMQ node of its own."""

    def __init__(self, say: Say, cast: Cast | None = None) -> None:
        self._say = say
        self._cast = cast or Cast()
        self._began = time.monotonic()
        self._published = anyio.Event()
        self._confirmed = 0

    async def run(self) -> bool:
        """Tell it; return whether every message is explained at the end."""
        self.say("starting a private RabbitMQ node and a local CRM")
        async with RabbitMQNode() as node, CrmServer() as crm:
            url = BrokerUrl.parse(node.url())
            await set_up(url, topology_for([ORGANISATION], retry_delay=RETRY_DELAY))
            self.say(f"declared the exchanges, the retry loop, the park and the queue {QUEUE}")
            runner = Runner(self._pipeline(crm), url, RunOptions(shutdown_timeout=10.0))
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(runner.run)
                tasks.start_soon(self._trouble, node, crm)
                tasks.start_soon(self._watch, runner, crm)
                await self._publish(url)
                with anyio.move_on_after(PATIENCE):
                    await self._settled(url, runner, crm)
                runner.stop()
                await runner.ended.wait()
                tasks.cancel_scope.cancel()
            return await self._account(url, runner, crm)

    def say(self, text: str) -> None:
        """Say what happens, with the seconds since the beginning."""
        self._say(f"{time.monotonic() - self._began:6.1f} s  {text}")

    def _pipeline(self, crm: CrmServer) -> Pipeline[Any, Any]:
        crm.faults.delay = 0.02
        crm.faults.invalid = {f"action-{number}": "no_such_country" for number in self._cast.refused}
        crm.faults.busy = {f"action-{number}": 2 for number in self._cast.busy}
        (kind,) = load("pipelines.crm")
        return kind.configured(
            {"CRM_URL": crm.url, "CRM_TOKEN": crm.token}, queue=QUEUE, retry_delay=RETRY_DELAY
        )

    async def _bodies(self) -> AsyncIterator[bytes]:
        cast = self._cast
        for number in range(1, cast.signatures + 1):
            yield body(action(number, testing=number in cast.testing))
            if number % 100 == 0:
                yield poison(number // 100)

    async def _publish(self, url: BrokerUrl) -> None:
        """Publish the signatures, each confirmed, with the poison between them."""
        publisher = Publisher(url, name="flow demo")

        async def publish(one: bytes) -> None:
            await publisher.publish("deliver", KEY, one)

        push = Push(publish, lambda _: True, lambda failed: self.say(f"not published: {failed.error}"))
        await push.run(self._bodies())
        await publisher.close()
        self._confirmed = push.confirmed
        self._published.set()
        self.say(f"published {push.confirmed} messages to the exchange deliver, all confirmed")

    async def _trouble(self, node: RabbitMQNode, crm: CrmServer) -> None:
        """Take the CRM down once, and close every connection of the broker once."""
        count = len(self._cast.wanted)
        await crm.until(lambda: len(crm.records) > count // 5)
        self.say(f"the CRM goes down for {OUTAGE:g} s: flow waits, and no attempt is spent")
        crm.faults.outage = True
        await anyio.sleep(OUTAGE)
        crm.faults.outage = False
        self.say("the CRM is back")
        await crm.until(lambda: len(crm.records) > count // 2)
        await self._published.wait()
        self.say("an operator closes every connection of the broker: flow opens a new session")
        await node.close_all_connections()

    async def _watch(self, runner: Runner, crm: CrmServer) -> None:
        while True:
            await anyio.sleep(1.0)
            now = runner.account
            self.say(
                f"in the CRM {len(crm.records)}, received {now.received}, retrying {now.retrying}, "
                f"parked {now.parked}, waiting here {now.open}"
            )

    async def _settled(self, url: BrokerUrl, runner: Runner, crm: CrmServer) -> None:
        cast = self._cast
        await crm.until(lambda: len(crm.records) >= len(cast.wanted))
        async with Declarer(url, name="flow demo") as declarer:

            async def ready(queue: str) -> int:
                return (await declarer.look(queue)).ready

            while (  # noqa: ASYNC110
                await ready(DEAD_QUEUE) < cast.parked
                or await ready(RETRY_QUEUE)
                or await ready(QUEUE)
                or runner.account.open
            ):
                await anyio.sleep(0.2)

    async def _account(self, url: BrokerUrl, runner: Runner, crm: CrmServer) -> bool:
        """Explain every message; return whether that succeeded."""
        cast = self._cast
        parked: dict[str, str] = {}  # the reason by message id
        copies = 0
        async with opened_park(url, 65_535) as park:
            async for message in park.messages():
                found = read_parked(message)
                parked[found.message_id or found.id] = found.reason
                copies += 1
        reasons = Counter(parked.values())
        told = {int(name.removeprefix("action-")) for name in crm.records}
        twice = sum(count > 1 for count in crm.effects.values())
        total = self._confirmed
        explained = len(told) + len(cast.testing) + reasons.total()
        self.say("the account")
        self._say(f"\n  published      {total:5}   {cast.signatures} signatures, {cast.poison} unreadable")
        self._say(f"  in the CRM     {len(told):5}   {len(cast.busy)} of them at the third attempt")
        self._say(f"  skipped        {len(cast.testing):5}   people who tried the form out")
        for reason, count in sorted(reasons.items()):
            self._say(f"  parked         {count:5}   {reason}")
        self._say(f"  unexplained    {total - explained:5}")
        self._say(f"  told twice     {twice:5}   after the lost connection; the CRM applies each id once")
        self._say(
            f"  parked twice   {copies - len(parked):5}   when a copy lost its confirm with the connection"
        )
        self._say(f"\n  {runner.pipeline.name}: {runner.account}\n")
        complete = total == cast.signatures + cast.poison and runner.account.open == 0
        return complete and told == cast.wanted and reasons.total() == cast.parked
