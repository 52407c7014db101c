"""The checks by the management API, against a node that has it."""

from typing import Any

import msgspec
import pytest

from flow.broker.url import BrokerUrl
from flow.checking.finding import Finding
from flow.checking.managed import check_managed, matches
from flow.message import Message
from flow.pipeline import Pipeline
from flow.plumbing.setup import set_up, topology_for
from tests.broker.queues import Queues, connected, eventually
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


class Number(msgspec.Struct):
    n: int


class Crm(Pipeline[Number]):
    queue = "acme.crm"

    def handle_message(self, message: Message[Number]) -> None:
        """Never called."""


class Place:
    """A virtual host of the node, with the plumbing of acme, and what is found there."""

    def __init__(self, node: RabbitMQNode, vhost: str, queues: Queues) -> None:
        self.node = node
        self.queues = queues
        self.url = BrokerUrl.parse(node.url(vhost))

    async def found(
        self, cls: type[Pipeline[Any]] = Crm, login: str = "guest:guest", **options: Any
    ) -> list[Finding]:
        """Return what the check finds for *cls* with *options*."""
        made = type(cls.configured({}, **options))
        findings: list[Finding] = []
        address = f"http://{login}@127.0.0.1:{self.node.management_port}"
        await check_managed(address, self.url, [made], findings.append)
        return findings

    async def wrong(self, **options: Any) -> list[str]:
        return [finding.text for finding in await self.found(**options) if finding.state == "wrong"]

    async def cautions(self, **options: Any) -> list[str]:
        return [finding.text for finding in await self.found(**options) if finding.state == "caution"]


@pytest.fixture
async def place(managed: RabbitMQNode) -> Any:
    vhost = "check/it"
    await managed.add_vhost(vhost)
    url = managed.url(vhost)
    await set_up(BrokerUrl.parse(url), topology_for(["acme"], retry_delay=30.0))
    connection = await connected(url)
    yield Place(managed, vhost, Queues(await connection.channel()))
    await connection.close()
    await managed.delete_vhost(vhost)


async def test_what_flow_setup_makes_is_right(place: Place) -> None:
    findings = await place.found()

    assert {finding.state for finding in findings} == {"ok", "not checked"}
    assert [finding.text for finding in findings if finding.state == "not checked"] == [
        "the consumer_timeout of the broker: no policy sets one for acme.crm, and the configuration is not "
        "shown; usual are 1800 s"
    ]
    assert Finding("ok", "acme.crm gets its retries back from system.retry") in findings


async def test_a_missing_way_back_is_wrong(place: Place) -> None:
    await place.queues.channel.queue_unbind("acme.crm", "system.retry", "acme.crm")

    assert await place.wrong() == [
        "acme.crm is not bound to system.retry with its own name: its retries are lost; bind it"
    ]


async def test_an_unbound_dead_letter_exchange_is_wrong(place: Place) -> None:
    await place.queues.channel.queue_unbind("system.retry", "system.fail", "#")

    assert await place.wrong() == [
        "no queue is bound to system.fail: what acme.crm rejects is lost; bind one"
    ]


async def test_a_queue_without_a_dead_letter_exchange_is_wrong_where_it_is_rejected_to(place: Place) -> None:
    await place.queues.make("plain")

    assert await place.wrong(queue="plain", dead_letter="assume") == [
        "plain has no dead-letter exchange: what is rejected is lost; have it made with one"
    ]
    assert await place.wrong(queue="plain") == []


async def test_a_dead_letter_exchange_that_flow_does_not_know_of_is_told(place: Place) -> None:
    await set_up(place.url, topology_for([], ["mine"], retry_delay=30.0))

    assert await place.cautions(queue="mine") == [
        "Crm: mine has the dead-letter exchange system.fail: --dead-letter assume retries through it"
    ]


async def test_a_dead_letter_exchange_without_the_own_name_as_key_is_wrong(place: Place) -> None:
    arguments = {"x-dead-letter-exchange": "system.fail"}
    await place.queues.make("mine", **arguments)

    assert await place.wrong(queue="mine", dead_letter="assume") == [
        "the dead-letter routing key of mine must be its own name, or retries do not come back"
    ]


async def test_the_fanout_loop_of_a_campaign_server_is_followed(place: Place) -> None:
    """Its queues are classic: that is a caution, and nothing is wrong."""
    channel, queue = place.queues.channel, "cus.7.deliver"
    await channel.exchange_declare("org.7.fail", exchange_type="fanout", durable=True)
    await channel.exchange_declare("org.7.retry", exchange_type="direct", durable=True)
    waiting = {"x-dead-letter-exchange": "org.7.retry", "x-message-ttl": 30_000}
    await place.queues.make("org.7.fail", **waiting)
    dead = {"x-dead-letter-exchange": "org.7.fail", "x-dead-letter-routing-key": queue}
    await place.queues.make(queue, **dead)
    await channel.queue_bind("org.7.fail", "org.7.fail", "")
    await channel.queue_bind(queue, "org.7.retry", queue)

    findings = await place.found(queue=queue)

    assert Finding("ok", f"{queue} gets its retries back from org.7.retry") in findings
    assert {finding.state for finding in findings if "at most once" in finding.text} == {"caution"}
    assert [finding for finding in findings if finding.state == "wrong"] == []


async def test_a_policy_that_drops_is_wrong_and_another_delay_a_caution(place: Place) -> None:
    policy = '{"message-ttl": 60000}'
    await place.node.ctl("set_policy", "-p", place.url.vhost, "short", "^acme", policy)

    await eventually(place.wrong)  # the API tells of a new policy some seconds later
    [ttl] = await place.wrong()
    [delay] = await place.cautions(retry_delay=1.0)

    assert "acme.crm has a message TTL" in ttl
    assert delay == "Crm: the retry loop takes 30 s, not 1: set retry_delay, or FLOW_RETRY_DELAY"


async def test_missing_permissions_are_told(place: Place) -> None:
    await place.node.add_user("worker", "secret")
    await place.node.permit("worker", place.url.vhost, "^$", "^$", "^other$")
    place.url = BrokerUrl.parse(place.node.url(place.url.vhost, user="worker", password="secret"))

    findings = await place.found()
    await place.node.delete_user("worker")

    assert Finding("wrong", "worker may not read acme.crm: grant the read permission") in findings
    assert any(finding.state == "caution" and "system.park" in finding.text for finding in findings)


async def test_an_account_that_may_not_see_permissions_leaves_them_unchecked(place: Place) -> None:
    await place.node.add_user("viewer", "secret")
    await place.node.permit("viewer", place.url.vhost, "^$", "^$", ".*")
    await place.node.ctl("set_user_tags", "viewer", "management")

    findings = await place.found(login="viewer:secret")
    await place.node.delete_user("viewer")

    assert [finding.state for finding in findings[-1:]] == ["not checked"]
    assert findings[-1].text == (
        "whether guest may read acme.crm and write to system.park: "
        "the account of FLOW_MANAGEMENT_URL may not see that"
    )
    assert [finding for finding in findings if finding.state == "wrong"] == []


async def test_a_refused_login_is_one_sentence_without_the_password(place: Place) -> None:
    findings = await place.found(login="guest:canary-secret")

    assert [finding.state for finding in findings] == ["wrong", *["not checked"] * 4]
    assert "refuses the login" in findings[0].text
    assert "canary-secret" not in repr(findings)


async def test_a_port_that_is_no_management_api_is_said(place: Place) -> None:
    findings: list[Finding] = []

    await check_managed(f"http://a:canary@127.0.0.1:{place.node.port}", place.url, [Crm], findings.append)

    assert findings[0].state == "wrong"
    assert "canary" not in repr(findings)


@pytest.mark.parametrize(
    "address", ["", "amqp://h", "http://", "http://u:canary@h?x=1", "http://u:canary@h:port"]
)
async def test_a_wrong_address_is_told_without_quoting_it(address: str) -> None:
    findings: list[Finding] = []

    await check_managed(address, BrokerUrl.parse("amqp://localhost"), [Crm], findings.append)

    assert findings[0].text == "FLOW_MANAGEMENT_URL must be like https://USER:PASSWORD@HOST:15671"


@pytest.mark.parametrize(
    ("pattern", "key", "leads"),
    [
        ("#", "acme.crm", True),
        ("#", "", True),
        ("acme.*", "acme.crm", True),
        ("acme.*", "acme", False),
        ("*", "acme.crm", False),
        ("acme.#", "acme", True),
        ("#.crm", "acme.eu.crm", True),
        ("acme.crm", "acme.crm", True),
        ("acme.crm", "acme.crm.x", False),
    ],
)
def test_keys_match_as_on_a_topic_exchange(pattern: str, key: str, leads: bool) -> None:
    assert matches(pattern.split("."), key.split(".")) is leads
