"""`flow org` as a process, with and without the management API."""

import pytest

from flow.broker.declaring import Declarer
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.errors import NotFound
from tests.broker.queues import connected, eventually
from tests.cli.conftest import Ended, run_flow
from tests.nodes.rabbitmq_node import RabbitMQNode
from tests.plumbing.consumer import Consumer

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


def lines(ended: Ended) -> list[str]:
    return [" ".join(line.split()) for line in ended.out.splitlines()]


async def test_a_virtual_host_that_is_not_there_is_no_missing_queue(amqp_url: str) -> None:
    for command in ("list", "drop"):
        ended = await run_flow(
            "org", command, "acme", *["--crm"] * (command == "drop"), url=f"{amqp_url}-gone"
        )

        assert (ended.code, ended.out) == (78, "")
        assert ended.err.startswith("flow: There is no virtual host")


async def test_an_organisation_is_added_turned_off_and_dropped(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    everything = ("--crm", "--confirm", "--moderate", "--sqs")
    await run_flow("setup", url=amqp_url)

    added = [await run_flow("org", "add", "acme", *everything, url=amqp_url) for _ in range(2)]
    shown = await run_flow("org", "list", "acme", "other", url=amqp_url)
    await publisher.publish("deliver", "acme.custom.action", b"{}")
    refused = await run_flow("org", "drop", "acme", "--crm", "--confirm", url=amqp_url)
    off = await run_flow("org", "off", "acme", "--crm", url=amqp_url)

    assert [one.code for one in added] == [0, 0]
    assert added[0].out.splitlines() == [
        "acme.crm gets acme.*.* of deliver",
        "acme.confirm gets acme.custom.supporter of confirm",
        "acme.moderate gets acme.custom.action of confirm",
        "system.sqs gets acme.system.* of deliver",
    ]
    assert lines(shown) == [
        "ORGANISATION CRM CONFIRM MODERATE SQS",
        "acme there there there not checked",
        "other - - - not checked",
    ]
    assert (refused.code, refused.out) == (1, "acme.confirm is dropped\n")
    assert refused.err == (
        "flow: The queue acme.crm is not dropped: 1 message waits in it and no consumer reads it; have it "
        "emptied and stop who reads it, or turn it off: `flow org off`\n"
    )
    assert (off.code, off.out) == (0, "acme.crm gets no acme.*.* of deliver any more\n")
    async with Declarer(url) as declarer:
        assert (await declarer.look("acme.crm")).ready == 1
        with pytest.raises(NotFound):
            await declarer.look("acme.confirm")


async def test_without_the_exchanges_nothing_is_made(amqp_url: str, url: BrokerUrl) -> None:
    ended = await run_flow("org", "add", "acme", "--crm", url=amqp_url)

    assert ended.code == 78
    assert ended.err.startswith("flow: The exchange system.fail was not found: run `flow setup`")
    async with Declarer(url) as declarer:
        with pytest.raises(NotFound):
            await declarer.look("acme.crm")


async def test_a_queue_of_another_type_is_reported_and_left_alone(amqp_url: str) -> None:
    await run_flow("setup", url=amqp_url)
    await run_flow("org", "add", "acme", "--crm", url=amqp_url)

    ended = await run_flow("org", "add", "acme", "--crm", "--queue-type", "classic", url=amqp_url)

    assert (ended.code, ended.out) == (78, "")
    assert ended.err.startswith("flow: The queue acme.crm exists with x-")


async def test_the_management_api_tells_who_there_is_and_who_reads(managed: RabbitMQNode) -> None:
    vhost = "org/it"
    await managed.add_vhost(vhost)
    amqp_url, url = managed.url(vhost), BrokerUrl.parse(managed.url(vhost))
    api = {"FLOW_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{managed.management_port}"}
    await run_flow("setup", "--queue", "my.queue", url=amqp_url)
    nobody = await run_flow("org", "list", url=amqp_url, **api)
    await run_flow("org", "add", "acme", "--crm", "--sqs", url=amqp_url)
    other = await run_flow("org", "add", "ärger", "--moderate", url=amqp_url)
    assert other.code == 0, other.err
    off = await run_flow("org", "off", "ärger", "--moderate", url=amqp_url)
    assert off.code == 0, off.err
    await run_flow("org", "add", "only-sqs", "--sqs", url=amqp_url)

    async with Consumer(url, "acme.crm"):
        refusals: list[Ended] = []

        async def told() -> bool:  # some seconds later
            refusals.append(await run_flow("org", "drop", "acme", "--crm", url=amqp_url, **api))
            return "(guest from 127.0.0.1)" in refusals[-1].err

        await eventually(told)
        lists: list[Ended] = []

        async def listed() -> bool:  # another statistic, which may come later
            lists.append(await run_flow("org", "list", url=amqp_url, **api))
            return "1 reading" in lists[-1].out

        await eventually(listed)
    named = await run_flow("org", "list", "acme", "nobody", url=amqp_url, **api)
    await managed.delete_vhost(vhost)

    assert "no organisation has a queue here" in nobody.err
    assert all(one.code == 1 for one in refusals)
    assert "no message waits in it and 1 consumer reads it" in refusals[-1].err
    assert lines(lists[-1]) == [
        "ORGANISATION CRM CONFIRM MODERATE SQS",
        "acme on, 1 reading - - on",
        "only-sqs - - - on",
        "ärger - - off -",
    ]
    assert lines(named)[1:] in (
        ["acme on - - on", "nobody - - - -"],
        ["acme on, 1 reading - - on", "nobody - - - -"],
    )


async def test_messages_that_only_the_management_api_sees_are_not_dropped(managed: RabbitMQNode) -> None:
    """A client took a message without a consumer: AMQP shows an empty queue that nobody reads."""
    vhost = "org/hands"
    await managed.add_vhost(vhost)
    amqp_url, url = managed.url(vhost), BrokerUrl.parse(managed.url(vhost))
    api = {"FLOW_MANAGEMENT_URL": f"http://guest:guest@127.0.0.1:{managed.management_port}"}
    await run_flow("setup", url=amqp_url)
    await run_flow("org", "add", "acme", "--crm", url=amqp_url)
    publisher = Publisher(url)
    await publisher.publish("deliver", "acme.custom.action", b"{}")
    await publisher.close()
    connection = await connected(amqp_url)
    channel = await connection.channel()
    taken = await channel.basic_get("acme.crm")

    async def counted() -> bool:  # some seconds later
        return "1 waiting" in (await run_flow("org", "list", "acme", url=amqp_url, **api)).out

    await eventually(counted)
    ended = await run_flow("org", "drop", "acme", "--crm", url=amqp_url, **api)
    await channel.basic_ack(taken.delivery_tag)
    await connection.close()
    await managed.delete_vhost(vhost)

    assert ended.code == 1
    assert "; 1 more, in somebody's hands or on the way to another queue" in ended.err
