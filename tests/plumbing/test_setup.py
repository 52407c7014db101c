import anyio
import pytest

from flow.broker.declaring import Declarer, declare
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.errors import AccessDenied, ConfigError, ConnectionLost, NotFound, PublishFailed, TopologyMismatch
from flow.plumbing.setup import set_up, topology_for
from flow.topology import Binding, Exchange, Queue, Topology, work_queue
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.plumbing.consumer import Consumer

pytestmark = [pytest.mark.anyio, pytest.mark.broker]


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_setting_up_twice_changes_nothing(url: BrokerUrl, queue_type: str) -> None:
    topology = topology_for(["acme"], ["my.queue"], queue_type=queue_type)  # type: ignore[arg-type]

    assert await set_up(url, topology) == []
    assert await set_up(url, topology) == []


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_rejected_message_comes_back_with_its_death(
    url: BrokerUrl, publisher: Publisher, queue_type: str
) -> None:
    topology = topology_for(["acme"], queue_type=queue_type, retry_delay=0.1)  # type: ignore[arg-type]
    await set_up(url, topology)
    await publisher.publish("deliver", "acme.system.action", b"{}", message_id="m-1")

    async with Consumer(url, "acme.crm") as consumer:
        for attempt in (1, 2, 3):
            message = await consumer.next()
            assert message.attempt == attempt
            message.origin.reject(message)
        message = await consumer.next()
        message.origin.ack(message)

    assert message.attempt == 4
    assert message.message_id == "m-1"
    assert (message.exchange, message.routing_key) == ("system.retry", "acme.crm")


async def test_an_organisation_gets_its_own_messages_only(url: BrokerUrl, publisher: Publisher) -> None:
    await set_up(url, topology_for(["acme"]))

    with pytest.raises(PublishFailed, match=r"exchange deliver with the key other\.system\.action"):
        await publisher.publish("deliver", "other.system.action", b"{}")
    await publisher.publish("deliver", "acme.custom.action", b"{}")


async def test_a_message_whose_queue_is_gone_is_parked_instead_of_lost(
    url: BrokerUrl, publisher: Publisher
) -> None:
    await set_up(url, topology_for(retry_delay=0.1))

    await publisher.publish("system.fail", "gone.crm", b"{}")

    async with Consumer(url, "system.dead") as consumer:
        assert (await consumer.next()).routing_key == "gone.crm"


async def test_other_arguments_are_reported_each_with_one_sentence_and_left_as_they_are(
    url: BrokerUrl,
) -> None:
    await set_up(url, topology_for(["acme"], queue_type="classic"))
    changed = topology_for(["acme"], retry_delay=5, queue_type="classic")
    quorum = topology_for(["acme"])

    drifts = await set_up(url, changed)
    others = await set_up(url, quorum)

    assert [(drift.kind, drift.name) for drift in drifts] == [("queue", "system.retry")]
    assert drifts[0].sentence == (
        "The queue system.retry exists with x-message-ttl = 30000 where 5000 is wanted: "
        "ask for what is there, or empty and delete it and run `flow setup` again"
    )
    assert [drift.name for drift in others] == ["system.dead", "system.retry", "acme.crm"]
    assert others[0].sentence.startswith("The queue system.dead exists with x-queue-type = ")
    assert await set_up(url, topology_for(["acme"], queue_type="classic")) == []


async def test_an_exchange_without_its_alternate_is_reported_with_the_policy_that_sets_it(
    url: BrokerUrl,
) -> None:
    await declare(url, Topology(exchanges=(Exchange(name="system.fail"),)))

    drifts = await set_up(url, topology_for(["acme"]))

    assert [(drift.kind, drift.name) for drift in drifts] == [("exchange", "system.fail")]
    assert "exists with alternate-exchange = none where system.park is wanted" in drifts[0].sentence
    assert f"rabbitmqctl set_policy -p {url.vhost} --apply-to exchanges" in drifts[0].sentence


async def test_everything_else_is_declared_beside_what_differs(url: BrokerUrl, publisher: Publisher) -> None:
    await declare(url, Topology(exchanges=(Exchange(name="system.retry"),), queues=(Queue(name="acme.crm"),)))

    drifts = await set_up(url, topology_for(["acme", "other"], retry_delay=0.1))

    assert [drift.name for drift in drifts] == ["system.retry", "acme.crm"]
    await publisher.publish("deliver", "other.system.action", b"{}")
    async with Consumer(url, "other.crm") as consumer:
        message = await consumer.next()
        message.origin.reject(message)
        assert (await consumer.next()).attempt == 2
    with pytest.raises(PublishFailed):  # a queue that differs gets no new messages
        await publisher.publish("deliver", "acme.system.action", b"{}")


async def test_the_printed_policy_is_one_that_rabbitmq_takes(
    url: BrokerUrl, publisher: Publisher, rabbitmq: RabbitMQControl
) -> None:
    bare = Topology(exchanges=(Exchange(name="system.fail"), Exchange(name="system.retry")))
    await declare(url, bare)
    drifts = await set_up(url, topology_for())
    command = drifts[0].sentence.partition("rabbitmqctl ")[2].partition(" (policies")[0]

    await rabbitmq.ctl(*(word.strip("'") for word in command.split(" ")))
    await publisher.publish("system.retry", "gone.crm", b"{}")

    async with Consumer(url, "system.dead") as consumer:
        assert (await consumer.next()).routing_key == "gone.crm"


async def test_arguments_that_the_broker_cannot_take_are_reported_in_its_words(url: BrokerUrl) -> None:
    odd = Queue(name="odd", arguments={"x-message-ttl": -1})

    drifts = await declare(url, Topology(queues=(odd,)))

    assert drifts[0].sentence.startswith("The queue odd is refused as it is wanted: PRECONDITION_FAILED")


async def test_an_account_that_may_not_declare_is_told_so(
    url: BrokerUrl, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    await rabbitmq.add_user(vhost, "secret")
    await rabbitmq.permit(vhost, vhost, "^$", "^$", ".*")
    reader = BrokerUrl.parse(rabbitmq.url(vhost, user=vhost, password="secret"))

    try:
        with pytest.raises(
            AccessDenied, match=f"^The exchange system.park is refused to user {vhost}"
        ) as caught:
            await set_up(reader, topology_for())
    finally:
        await rabbitmq.delete_user(vhost)

    assert "secret" not in str(caught.value)


async def test_nothing_listening_is_one_sentence() -> None:
    with pytest.raises(ConnectionLost, match=r"^Nothing listens at 127\.0\.0\.1:1:"):
        await set_up(BrokerUrl.parse("amqp://127.0.0.1:1"), topology_for())


async def test_a_binding_to_nothing_is_told(url: BrokerUrl) -> None:
    async with Declarer(url) as declarer:
        with pytest.raises(
            NotFound, match=r"^The binding of none to nowhere was not found: run `flow setup`"
        ):
            await declarer.bind(Binding(exchange="nowhere", key="k", queue="none"))


@pytest.mark.parametrize("queue_type", ["quorum", "classic"])
async def test_a_queue_is_deleted_only_when_it_is_empty_and_unused(
    url: BrokerUrl, publisher: Publisher, queue_type: str
) -> None:
    await set_up(url, topology_for(["acme"], queue_type=queue_type))  # type: ignore[arg-type]
    await publisher.publish("deliver", "acme.system.action", b"{}")

    async with Declarer(url) as declarer:
        with pytest.raises(
            TopologyMismatch,
            match=r"acme\.crm is not deleted: 1 message waits in it and no consumer reads it",
        ):
            await declarer.delete_queue("acme.crm")
        async with Consumer(url, "acme.crm") as consumer:
            message = await consumer.next()
            message.origin.ack(message)
            with pytest.raises(TopologyMismatch, match="no message waits in it and 1 consumer reads it"):
                await declarer.delete_queue("acme.crm")
        with anyio.fail_after(30):
            while (await declarer.look("acme.crm")).consumers:  # a closed session takes a moment to be gone
                continue
        await declarer.delete_queue("acme.crm")
        with pytest.raises(NotFound):
            await declarer.look("acme.crm")
        await declarer.delete_queue("acme.crm")


async def test_an_unbound_queue_keeps_what_waits_in_it(url: BrokerUrl, publisher: Publisher) -> None:
    await set_up(url, topology_for(["acme"]))
    await publisher.publish("deliver", "acme.system.action", b"{}")

    async with Declarer(url) as declarer:
        await declarer.unbind(Binding(exchange="deliver", key="acme.*.*", queue="acme.crm"))
        with pytest.raises(PublishFailed):
            await publisher.publish("deliver", "acme.system.action", b"{}")
        assert (await declarer.look("acme.crm")).ready == 1


def test_names_are_checked_before_the_broker_is_asked() -> None:
    with pytest.raises(ConfigError, match=r"organisation name 'a\.b'"):
        topology_for(["a.b"])
    with pytest.raises(ConfigError, match="the queue name 'a b'"):
        topology_for(queues=["a b"])
    assert topology_for(queues=["a.b"]).queues[-1] == work_queue("a.b").queues[0]
