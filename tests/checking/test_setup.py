"""Drifts are planted one at a time on a node with the management API, and each is found and named."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from aiormq.abc import AbstractChannel

from flow.broker.url import BrokerUrl
from flow.checking.finding import Finding
from flow.checking.setup import check_set_up
from flow.plumbing import Plumbing
from flow.plumbing.setup import set_up, topology_for
from flow.topology import QueueType, Topology
from tests.broker.queues import connected, eventually
from tests.cli.conftest import run_flow
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

VHOST = "set up/it"
TOPOLOGY = topology_for(["acme"], ["my.queue"], system_queues=True)
CRM = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-dead-letter-exchange": "system.fail",
    "x-dead-letter-routing-key": "acme.crm",
}
RETRY = {
    "x-queue-type": "quorum",
    "x-delivery-limit": 1_000_000,
    "x-dead-letter-strategy": "at-least-once",
    "x-overflow": "reject-publish",
    "x-message-ttl": 30_000,
    "x-dead-letter-exchange": "system.retry",
}
TWICE = "messages of others go there, or some twice; remove it"
AGAIN = "empty and delete it and run `flow setup` again"


class Place:
    """A virtual host, set up; a plain client to plant drifts with."""

    def __init__(self, node: RabbitMQNode, channel: AbstractChannel) -> None:
        self.node = node
        self.channel = channel
        self.url = BrokerUrl.parse(node.url(VHOST))

    async def found(self, topology: Topology = TOPOLOGY, login: str = "guest:guest") -> list[Finding]:
        findings: list[Finding] = []
        address = f"http://{login}@127.0.0.1:{self.node.management_port}"
        await check_set_up(self.url, topology, address, findings.append)
        return findings

    async def wrong(self, topology: Topology = TOPOLOGY) -> list[str]:
        return [finding.text for finding in await self.found(topology) if finding.state == "wrong"]

    async def made_again(self, queue: str, arguments: dict[str, Any], key: str = "", **more: Any) -> None:
        """Replace a *queue*, with the bindings that it had."""
        mine = [one for one in TOPOLOGY.bindings if one.queue == queue]
        await self.channel.queue_delete(queue)
        await self.channel.queue_declare(queue, arguments=arguments, **{"durable": True, **more})
        for binding in mine:
            await self.channel.queue_bind(queue, binding.exchange, binding.key)

    async def exchange_made_again(self, name: str, kind: str, **arguments: Any) -> None:
        """Replace an exchange, with the bindings that it had."""
        await self.channel.exchange_delete(name)
        await self.channel.exchange_declare(name, exchange_type=kind, durable=True, arguments=arguments)
        for binding in TOPOLOGY.bindings:
            if binding.exchange == name:
                await self.channel.queue_bind(binding.queue, name, binding.key)


@pytest.fixture
async def place(managed: RabbitMQNode) -> AsyncIterator[Place]:
    await managed.add_vhost(VHOST)
    url = managed.url(VHOST)
    assert await set_up(BrokerUrl.parse(url), TOPOLOGY) == []
    connection = await connected(url)
    yield Place(managed, await connection.channel())
    await connection.close()
    await managed.delete_vhost(VHOST)


@pytest.mark.parametrize("kind", ["quorum", "classic"])
async def test_what_flow_setup_declares_has_no_drift(managed: RabbitMQNode, kind: QueueType) -> None:
    await managed.add_vhost(VHOST)
    topology = topology_for(["acme"], ["my.queue"], system_queues=True, queue_type=kind, retry_delay=5.0)
    async with Plumbing(managed.url(VHOST), queue_type=kind, retry_delay=5.0) as plumbing:
        await plumbing.set_up(topology)
        await plumbing.set_up_organisations({"other": ["crm", "confirm", "moderate", "sqs"], "ä ": []})
        await plumbing.set_up_queue("others.queue")
    findings: list[Finding] = []

    address = f"http://guest:guest@127.0.0.1:{managed.management_port}"
    await check_set_up(BrokerUrl.parse(managed.url(VHOST)), topology, address, findings.append)
    await managed.delete_vhost(VHOST)

    assert {finding.state for finding in findings} == {"ok"}
    things = len(topology.exchanges) + len(topology.queues) + len(topology.bindings)
    assert len(findings) == things


Plant = Callable[[Place], Awaitable[object]]

PLANTED: dict[str, tuple[Plant, list[str]]] = {
    "exchange missing": (
        lambda place: place.channel.exchange_delete("confirm"),
        [
            "the exchange confirm is missing: run `flow setup`",
            "the binding confirm -> system.email.confirm with the key *.system.supporter is missing, so that "
            "system.email.confirm gets no messages: run `flow setup`",
        ],
    ),
    "queue missing": (
        lambda place: place.channel.queue_delete("my.queue"),
        [
            "the queue my.queue is missing: run `flow setup`",
            "the binding system.retry -> my.queue with the key my.queue is missing, so that the "
            "retry loop is broken: what it rejects does not come back: run `flow setup`",
        ],
    ),
    "binding missing": (
        lambda place: place.channel.queue_unbind("acme.crm", "deliver", "acme.*.*"),
        [
            "the binding deliver -> acme.crm with the key acme.*.* is missing, so that acme.crm gets no "
            "messages: run `flow setup`"
        ],
    ),
    "way into the loop missing": (
        lambda place: place.channel.queue_unbind("system.retry", "system.fail", "#"),
        [
            "the binding system.fail -> system.retry with the key # is missing, so that the "
            "retry loop is broken: what is rejected is lost or stuck: run `flow setup`"
        ],
    ),
    "way out of the loop missing": (
        lambda place: place.channel.queue_unbind("acme.crm", "system.retry", "acme.crm"),
        [
            "the binding system.retry -> acme.crm with the key acme.crm is missing, so that the "
            "retry loop is broken: what it rejects does not come back: run `flow setup`"
        ],
    ),
    "way into the park missing": (
        lambda place: place.channel.queue_unbind("system.dead", "system.park", ""),
        [
            "the binding system.park -> system.dead is missing, "
            "so that nothing can be parked: run `flow setup`"
        ],
    ),
    "exchange of another type": (
        lambda place: place.exchange_made_again("deliver", "direct"),
        [f"the exchange deliver is a direct exchange where topic is wanted: {AGAIN}"],
    ),
    "queue of another type": (
        lambda place: place.made_again(
            "acme.crm",
            {"x-dead-letter-exchange": "system.fail", "x-dead-letter-routing-key": "acme.crm"},
        ),
        [f"the queue acme.crm is a classic queue where quorum is wanted: {AGAIN}"],
    ),
    "other time to live": (
        lambda place: place.made_again("system.retry", RETRY | {"x-message-ttl": 5000}),
        [f"the queue system.retry has x-message-ttl = 5000 where 30000 is wanted: {AGAIN}"],
    ),
    "dead-lettered to another exchange": (
        lambda place: place.made_again("acme.crm", CRM | {"x-dead-letter-exchange": "deliver"}),
        [f"the queue acme.crm has x-dead-letter-exchange = deliver where system.fail is wanted: {AGAIN}"],
    ),
    "dead-lettered under another key": (
        lambda place: place.made_again("acme.crm", CRM | {"x-dead-letter-routing-key": "other.crm"}),
        [f"the queue acme.crm has x-dead-letter-routing-key = other.crm where acme.crm is wanted: {AGAIN}"],
    ),
    "argument missing": (
        lambda place: place.made_again("acme.crm", {k: CRM[k] for k in CRM if k != "x-dead-letter-strategy"}),
        [
            "the queue acme.crm has no x-dead-letter-strategy (at-least-once): rabbitmqctl set_policy "
            "-p 'set up/it' --apply-to queues flow-acme-crm '^acme\\.crm$' "
            '\'{"dead-letter-strategy":"at-least-once"}\''
        ],
    ),
    "danger": (
        lambda place: place.made_again("acme.crm", CRM | {"x-message-ttl": 60_000, "x-max-length": 5}),
        [
            f"the queue acme.crm has x-max-length = 5, which is not wanted: {AGAIN}",
            f"the queue acme.crm has x-message-ttl = 60000, which is not wanted: {AGAIN}",
        ],
    ),
    "not durable": (
        lambda place: place.made_again(
            "my.queue",
            {"x-dead-letter-exchange": "system.fail", "x-dead-letter-routing-key": "my.queue"},
            durable=False,
        ),
        [
            f"the queue my.queue is a classic queue where quorum is wanted: {AGAIN}",
            f"the queue my.queue does not last: {AGAIN} (durable, not auto-delete, not exclusive)",
        ],
    ),
    "alternate exchange missing": (
        lambda place: place.exchange_made_again("system.fail", "topic"),
        [
            "the exchange system.fail has no alternate exchange, so that what it cannot route is lost: set "
            "it with rabbitmqctl set_policy -p 'set up/it' --apply-to exchanges flow-park "
            "'^system\\.(fail|retry)$' '{\"alternate-exchange\":\"system.park\"}'"
        ],
    ),
    "another alternate exchange": (
        lambda place: place.exchange_made_again(
            "system.retry", "topic", **{"alternate-exchange": "system.fail"}
        ),
        [
            "the exchange system.retry has the alternate exchange system.fail where system.park is wanted: "
            + AGAIN
        ],
    ),
    "alternate exchange that hides errors": (
        lambda place: place.exchange_made_again("deliver", "topic", **{"alternate-exchange": "system.park"}),
        [
            "the exchange deliver has the alternate exchange system.park, so that nobody is told of what no "
            "queue takes: remove it"
        ],
    ),
    "extra binding of an organisation's queue": (
        lambda place: place.channel.queue_bind("acme.crm", "deliver", "#"),
        ["the binding deliver -> acme.crm with the key # is not wanted: " + TWICE],
    ),
    "extra binding of a queue that nobody named": (
        lambda place: spy(place),
        ["the binding deliver -> spy with the key acme.# is not wanted: " + TWICE],
    ),
    "retries that come to two queues": (
        lambda place: place.channel.queue_bind("my.queue", "system.retry", "acme.crm"),
        [
            "the binding system.retry -> my.queue with the key acme.crm is not wanted: retries go there, "
            "too; remove it"
        ],
    ),
    "exchange behind an exchange": (
        lambda place: place.channel.exchange_bind("confirm", "deliver", "acme.*.*"),
        ["the binding deliver -> the exchange confirm with the key acme.*.* is not wanted: " + TWICE],
    ),
    "all of the forwarder's organisations at once": (
        lambda place: place.channel.queue_bind("system.sqs", "deliver", "*.system.*"),
        ["the binding deliver -> system.sqs with the key *.system.* is not wanted: " + TWICE],
    ),
}


async def spy(place: Place) -> None:
    await place.channel.queue_declare("spy", durable=True)
    await place.channel.queue_bind("spy", "deliver", "acme.#")


@pytest.mark.parametrize("planted", PLANTED, ids=str)
async def test_a_planted_drift_is_found_and_nothing_else(place: Place, planted: str) -> None:
    plant, sentences = PLANTED[planted]
    assert await place.wrong() == []

    await plant(place)

    assert await place.wrong() == sentences
    assert await place.wrong() == sentences  # a check changes nothing


async def test_a_queue_whose_bindings_are_named_has_these_and_no_others(place: Place) -> None:
    wanted = topology_for(["acme"], ["my.queue"], ["deliver:acme.*.*"], system_queues=True)
    assert await place.wrong(wanted) == [
        "the binding deliver -> my.queue with the key acme.*.* is missing, so that my.queue gets no "
        "messages: run `flow setup`"
    ]

    await set_up(place.url, wanted)
    assert await place.wrong(wanted) == []
    await place.channel.queue_bind("my.queue", "deliver", "#")

    assert await place.wrong(wanted) == [
        "the binding deliver -> my.queue with the key # is not wanted: " + TWICE
    ]
    assert await place.wrong() == []  # with --queue alone they are its owner's affair


async def test_ten_drifts_at_once_are_all_told(place: Place) -> None:
    names = [
        "queue of another type",
        "other time to live",
        "way into the park missing",
        "exchange of another type",
        "alternate exchange missing",
        "another alternate exchange",
        "extra binding of a queue that nobody named",
        "all of the forwarder's organisations at once",
        "exchange behind an exchange",
        "queue missing",
    ]
    for name in names:
        await PLANTED[name][0](place)

    wrong = await place.wrong()

    assert set(wrong) == {sentence for name in names for sentence in PLANTED[name][1]}


@pytest.mark.parametrize("planted", ["argument missing", "alternate exchange missing"])
async def test_the_policy_that_is_printed_mends_it(place: Place, planted: str) -> None:
    await PLANTED[planted][0](place)
    [sentence] = await place.wrong()
    command = sentence.partition("rabbitmqctl ")[2]
    definition = command.rpartition(" '")[2].removesuffix("'")

    words = command.replace("'set up/it'", "VHOST").rpartition(" '")[0].replace("'", "").split()
    json.loads(definition)
    await place.node.ctl(*(VHOST if word == "VHOST" else word for word in words), definition)

    await eventually(lambda: none_wrong(place))  # the API tells of a new policy some seconds later


async def none_wrong(place: Place) -> bool:
    return await place.wrong() == []


async def test_policies_that_drop_are_drifts_too(place: Place) -> None:
    for name, pattern, definition in (
        ("short", "^acme", '{"message-ttl":60000}'),
        ("quick", r"^system\.retry$", '{"message-ttl":1000}'),
        ("aside", "^deliver$", '{"alternate-exchange":"system.park"}'),
    ):
        await place.node.ctl("set_policy", "-p", VHOST, name, pattern, definition)

    await eventually(lambda: three_wrong(place))
    assert await place.wrong() == [
        "the exchange deliver has the alternate exchange system.park, so that nobody is told of "
        "what no queue takes: remove it",
        "the queue system.retry has x-message-ttl = 1000 where 30000 is wanted: correct the policy quick",
        "the queue acme.crm has message-ttl = 60000 by the policy short: "
        "what expires is dropped by the retry loop",
    ]


async def three_wrong(place: Place) -> bool:
    return len(await place.wrong()) == 3


async def test_a_queue_that_is_named_by_itself_may_be_fed_as_its_owner_likes(place: Place) -> None:
    await place.channel.queue_bind("my.queue", "deliver", "acme.*.donation")

    assert await place.wrong() == []
    assert len(await place.wrong(topology_for(["acme"], system_queues=True))) == 1


async def test_a_refused_login_is_told_and_amqp_looks(place: Place) -> None:
    findings = await place.found(login="guest:canary-secret")

    assert findings[0].state == "wrong"
    assert "refuses the login" in findings[0].text
    assert {finding.state for finding in findings[1:]} == {"ok", "not checked"}
    assert "canary-secret" not in repr(findings)


async def test_the_command_prints_each_drift_and_ends_with_78(place: Place) -> None:
    options = ("setup", "--org", "acme", "--queue", "my.queue", "--check")
    api = {"FLOW_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{place.node.management_port}"}
    url = place.node.url(VHOST)

    right = await run_flow(*options, url=url, **api)
    await place.channel.queue_unbind("acme.crm", "deliver", "acme.*.*")
    wrong = await run_flow(*options, url=url, **api)

    assert (right.code, right.err) == (0, "")
    assert {line[:11].strip() for line in right.out.splitlines()} == {"ok"}
    assert (wrong.code, wrong.err) == (78, "")
    [told] = [line for line in wrong.out.splitlines() if not line.startswith("ok")]
    assert told.startswith("wrong        the binding deliver -> acme.crm with the key acme.*.* is missing")
