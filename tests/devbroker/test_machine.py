"""Random valid operations on both brokers: everything that can be seen of them must be the same."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from typing import Any, ClassVar

import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, note, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from pamqp.commands import Basic, Channel, Exchange, Queue

from flow.devbroker.server import DevBroker
from tests.devbroker.sides import CONSUMING, QUEUES, Operation, Side
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.broker

PATIENCE = 20.0  # seconds until a difference counts; reached only by a failing test
OLD = 0.05  # seconds after which a message with an expiration of 1 ms is too old for certain
KEYS = ("k", "a.b", "a.c", "a")
PATTERNS = ("k", "a.*", "#", "a.#", "*")
GRAVE = {"x-dead-letter-exchange": "x"}
ARGUMENTS: tuple[dict[str, Any], ...] = (
    {},
    GRAVE,
    {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "c"},
    {"x-max-length": 3} | GRAVE,
    {"x-max-length": 2, "x-overflow": "reject-publish"},
    {"x-max-length": 2, "x-overflow": "reject-publish-dlx"} | GRAVE,
    {"x-queue-type": "quorum", "x-delivery-limit": 2} | GRAVE,
    {"x-queue-type": "quorum", "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "a"},
)
queues = st.sampled_from(QUEUES)
exchanges = st.sampled_from(("x", "y"))


class Both(RuleBasedStateMachine):
    """Does everything twice and compares."""

    portal: ClassVar[BlockingPortal]
    dev: ClassVar[DevBroker]
    urls: ClassVar[tuple[str, str, str]]
    steps: ClassVar[int] = 0
    vhosts = count()

    def __init__(self) -> None:
        super().__init__()
        self.vhost = f"machine {next(Both.vhosts)}"
        self.dev.add_vhost(self.vhost)
        self.left = self.portal.call(Side.open, self.dev.url(self.vhost), self.dev)
        self.right = self.portal.call(Side.open, self.urls[1])
        self.held: dict[int, list[int]] = {}
        self.bodies = count(1)
        self.tags = count(1)

    def both(self, operation: Operation, channel: int = 1) -> Any:
        """Do it on both sides, compare what came and what there is, and return what came."""
        Both.steps += 1
        expected = self.portal.call(self.left.perform, operation, channel)
        found = self.portal.call(self.right.perform, operation, channel)
        real_vhost = self.urls[2]
        assert plain(found, real_vhost) == plain(expected, self.vhost), f"{found} is not {expected}"
        vhost = self.dev.vhost(self.vhost)
        assert vhost is not None
        # A quorum queue of RabbitMQ goes on counting a cancelled consumer until all it holds is settled.
        there = {name: not queue.terms.quorum for name, queue in sorted(vhost.queues.items())}
        state = self.portal.call(self.left.look, there)
        other = self.portal.call(self.right.agree, there, state, PATIENCE)
        assert other == state, f"{other} is not {state}"
        if isinstance(expected, tuple) and isinstance(expected[0], int):
            self.held.pop(channel, None)  # the channel was closed
        self.hold()
        return expected

    def hold(self) -> None:
        """Remember the tags of what was delivered, to be settled later."""
        for side in (self.left, self.right):
            delivered, side.delivered = side.delivered, {}
            if side is self.left:
                for channel, found in delivered.items():
                    tags = [one[1]["delivery_tag"] for one in found if one[0] == "Basic.Deliver"]
                    self.held.setdefault(channel, []).extend(tags)

    def call(self, method: Any, channel: int = 1) -> Any:
        return self.both(lambda side: side.call(method, channel), channel)

    @rule(queue=queues, arguments=st.sampled_from(ARGUMENTS))
    def declare(self, queue: str, arguments: dict[str, Any]) -> None:
        self.call(Queue.Declare(queue=queue, durable=True, arguments=arguments))

    @rule(exchange=exchanges, kind=st.sampled_from(("direct", "topic", "fanout")))
    def declare_exchange(self, exchange: str, kind: str) -> None:
        self.call(Exchange.Declare(exchange=exchange, exchange_type=kind))

    @rule(queue=queues, exchange=exchanges, key=st.sampled_from(PATTERNS))
    def bind(self, queue: str, exchange: str, key: str) -> None:
        self.call(Queue.Bind(queue=queue, exchange=exchange, routing_key=key))

    @rule(queue=queues, exchange=exchanges, key=st.sampled_from(PATTERNS))
    def unbind(self, queue: str, exchange: str, key: str) -> None:
        self.call(Queue.Unbind(queue=queue, exchange=exchange, routing_key=key))

    @rule(
        exchange=st.sampled_from(("", "", "x", "y")),
        key=st.sampled_from((*QUEUES, *QUEUES, *KEYS)),
        mandatory=st.booleans(),
        headers=st.sampled_from((None, {"a": 1}, {"CC": ["b"]})),
    )
    def publish(self, exchange: str, key: str, mandatory: bool, headers: dict[str, Any] | None) -> None:
        body = b"%d" % next(self.bodies)
        self.both(partial(published, body, key, exchange, mandatory, headers, None))

    @rule(queue=queues)
    def publish_what_gets_old(self, queue: str) -> None:
        body = b"%d" % next(self.bodies)
        self.both(partial(published, body, queue, "", False, None, "1"))

    @rule(queue=queues)
    def get(self, queue: str) -> None:
        found = self.call(Basic.Get(queue=queue))
        if found[0] == "Basic.GetOk":
            self.held.setdefault(1, []).append(found[1]["delivery_tag"])

    @rule(queue=queues, prefetch=st.integers(1, 3))
    def consume(self, queue: str, prefetch: int) -> None:
        channel, tag = CONSUMING[queue], str(next(self.tags))
        self.call(Basic.Qos(prefetch_count=prefetch), channel)
        self.call(Basic.Consume(queue=queue, consumer_tag=tag), channel)

    @rule(queue=queues, tag=st.integers(1, 5))
    def cancel(self, queue: str, tag: int) -> None:
        self.call(Basic.Cancel(consumer_tag=str(tag)), CONSUMING[queue])

    @rule(
        channel=st.sampled_from((1, *CONSUMING.values())),
        pick=st.integers(0, 5),
        multiple=st.booleans(),
        how=st.sampled_from(("ack", "ack", "reject", "requeue")),
    )
    def settle(self, channel: int, pick: int, multiple: bool, how: str) -> None:
        tags = self.held.get(channel, [])
        if pick >= len(tags):
            return
        tag = tags[pick]
        self.held[channel] = tags[pick + 1 :] if multiple else tags[:pick] + tags[pick + 1 :]
        method = Basic.Ack(tag, multiple) if how == "ack" else Basic.Nack(tag, multiple, how == "requeue")
        self.both(partial(settled, method, channel), channel)

    @rule(queue=queues)
    def purge(self, queue: str) -> None:
        self.call(Queue.Purge(queue=queue))

    @rule(queue=queues)
    def delete(self, queue: str) -> None:
        self.call(Queue.Delete(queue=queue))

    @rule(exchange=exchanges)
    def delete_exchange(self, exchange: str) -> None:
        self.call(Exchange.Delete(exchange=exchange))

    @rule(channel=st.sampled_from((1, *CONSUMING.values())))
    def close(self, channel: int) -> None:
        self.held.pop(channel, None)
        self.both(partial(reopened, channel), channel)

    def teardown(self) -> None:
        note(f"{Both.steps} steps so far")
        for side in (self.left, self.right):
            self.portal.call(removed, side)


async def published(
    body: bytes, key: str, exchange: str, mandatory: bool, headers: Any, expiration: str | None, side: Side
) -> Any:
    """Publish and return what comes back; let time pass if the message gets old."""
    await side.client.publish(
        body, key, exchange=exchange, mandatory=mandatory, headers=headers, expiration=expiration
    )
    answers = [await side.next()]
    while answers[-1][0] not in ("Basic.Ack", "Basic.Nack"):
        answers.append(await side.next())
    if expiration is not None:
        await side.wait(OLD)
    return answers


def plain(found: Any, vhost: str) -> Any:
    """Take the name of the virtual host out of a refusal."""
    if isinstance(found, tuple) and isinstance(found[1], str):
        return found[0], found[1].replace(vhost, "here"), found[2]
    return found


async def settled(method: Any, channel: int, side: Side) -> Any:
    """Settle and make sure that it was done."""
    await side.client.send(method, channel=channel)
    return await side.call(Channel.Flow(True), channel)


async def reopened(channel: int, side: Side) -> None:
    """Close a channel and open it again."""
    await side.call(Channel.Close(200, "", 0, 0), channel)
    side.delivered.pop(channel, None)
    await side.client.open(channel)
    if channel == 1:
        await side.prepare(1)


async def removed(side: Side) -> None:
    """Remove everything and close."""
    for channel in CONSUMING.values():
        await side.call(Channel.Close(200, "", 0, 0), channel)
    for queue in QUEUES:
        await side.call(Queue.Delete(queue=queue))
    for exchange in ("x", "y"):
        await side.call(Exchange.Delete(exchange=exchange))
    await side.client.close()


@contextmanager
def machine(real: RabbitMQControl, vhost: str) -> Iterator[None]:
    """Set both brokers up for the machine."""
    with start_blocking_portal() as portal, portal.wrap_async_context_manager(DevBroker()) as dev:
        Both.portal, Both.dev, Both.steps = portal, dev, 0
        Both.urls = dev.url(), real.url(vhost), vhost
        yield


def run(examples: int, steps: int, *, same: bool) -> None:
    """Run the machine: *examples* times *steps* operations, the *same* ones each time or new ones."""
    chosen = settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=same,
        database=None,
        deadline=None,
        phases=[Phase.generate] if same else [Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Both, settings=chosen)


@pytest.mark.timeout(600)
def test_two_thousand_random_operations_show_the_same_on_both(
    conformance: tuple[RabbitMQControl, str],
) -> None:
    with machine(*conformance):
        run(50, 50, same=True)

    assert Both.steps >= 2000


@pytest.mark.long
@pytest.mark.timeout(7200)
def test_many_random_operations_show_the_same_on_both(conformance: tuple[RabbitMQControl, str]) -> None:
    with machine(*conformance):
        run(1000, 100, same=False)
