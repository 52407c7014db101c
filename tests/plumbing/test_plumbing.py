"""Each operation alone, all of them over one connection, and none that harms another."""

from collections.abc import AsyncIterator
from typing import Any

import anyio
import pytest

from flow.broker.declaring import Declarer
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.errors import (
    AccessDenied,
    ConfigError,
    DecodeError,
    InUse,
    NotFound,
    PublishFailed,
    PublishReturned,
)
from flow.plumbing import Outgoing, Plumbing
from flow.plumbing.organisations import drop
from flow.topology import Binding, organisation_binding
from tests.broker.queues import eventually
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.plumbing.consumer import Consumer

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NAME = "flow plumbing"


@pytest.fixture
async def plumbing(amqp_url: str) -> AsyncIterator[Plumbing]:
    async with Plumbing(amqp_url, retry_delay=0.1) as plumbing:
        yield plumbing


async def ready(url: BrokerUrl, queue: str) -> int:
    async with Declarer(url) as declarer:
        return (await declarer.look(queue)).ready


async def exists(url: BrokerUrl, queue: str) -> bool:
    try:
        await ready(url, queue)
    except NotFound:
        return False
    return True


async def test_the_exchanges_alone(plumbing: Plumbing, url: BrokerUrl) -> None:
    assert await plumbing.set_up_exchanges() == []
    assert await plumbing.set_up_exchanges() == []

    async with Declarer(url) as declarer:
        for name in ("confirm", "deliver", "system.fail", "system.retry", "system.park"):
            await declarer.look_for_exchange(name)
        with pytest.raises(NotFound):
            await declarer.look("system.dead")


async def test_the_global_queues_get_the_messages_of_all_organisations(
    plumbing: Plumbing, url: BrokerUrl
) -> None:
    assert await plumbing.set_up_global_queues() == []

    await plumbing.push("confirm", "acme.system.supporter", {"supporterId": 9})
    await plumbing.push("deliver", "other.system.action", {"actionId": 7})

    await eventually(lambda: holds(url, {"system.email.confirm": 1, "system.email.thankyou": 1}))
    assert await ready(url, "system.sqs") == 0
    with pytest.raises(PublishReturned):
        await plumbing.push("deliver", "acme.custom.action", {})
    with pytest.raises(PublishReturned):
        await plumbing.push("confirm", "acme.custom.supporter", {})


async def holds(url: BrokerUrl, counts: dict[str, int]) -> bool:
    return {queue: await ready(url, queue) for queue in counts} == counts


async def test_what_an_organisation_wants_gets_its_own_messages_only(
    plumbing: Plumbing, url: BrokerUrl
) -> None:
    """The whole table of bindings, row by row."""
    await plumbing.set_up_global_queues()
    await plumbing.set_up_organisations(
        {"acme": ["crm", "confirm", "moderate", "sqs"], "other": ["crm"], "none": []}
    )

    for exchange, key in (
        ("confirm", "acme.system.supporter"),
        ("confirm", "acme.custom.supporter"),
        ("confirm", "acme.custom.action"),
        ("deliver", "acme.system.action"),
        ("deliver", "acme.custom.action"),
        ("deliver", "other.system.action"),
    ):
        await plumbing.push(exchange, key, key)

    expected = {
        "acme.crm": ["acme.custom.action", "acme.system.action"],
        "acme.confirm": ["acme.custom.supporter"],
        "acme.moderate": ["acme.custom.action"],
        "other.crm": ["other.system.action"],
        "system.email.confirm": ["acme.system.supporter"],
        "system.email.thankyou": ["acme.system.action", "other.system.action"],
        "system.sqs": ["acme.system.action"],
    }
    for queue, keys in expected.items():
        async with Consumer(url, queue) as consumer:
            messages = [await consumer.next() for _ in keys]
            assert sorted(message.routing_key for message in messages) == keys, queue
            for message in messages:
                message.origin.ack(message)
    assert await holds(url, dict.fromkeys(expected, 0))


async def test_one_queue_many_queues_and_the_crm_queue(plumbing: Plumbing, url: BrokerUrl) -> None:
    await plumbing.set_up_global_queues()

    assert await plumbing.set_up_queue("one") == []
    assert await plumbing.set_up_queues(["many.1", "many.2"]) == []
    assert await plumbing.create_crm_queue("acme") == []
    assert await plumbing.create_organisation_queue("acme", "confirm") == []

    for queue in ("one", "many.1", "many.2", "acme.crm", "acme.confirm"):
        assert await exists(url, queue)
    assert await plumbing.drop_crm_queue("acme")
    assert not await plumbing.drop_crm_queue("acme")
    assert not await exists(url, "acme.crm")
    assert await exists(url, "acme.confirm")


async def test_a_queue_of_ones_own_is_bound_as_asked(plumbing: Plumbing, url: BrokerUrl) -> None:
    await plumbing.set_up_global_queues()

    assert await plumbing.set_up_queue("acme.webhook", ["confirm:acme.custom.*"]) == []
    with pytest.raises(ConfigError, match=r"^the binding 'acme' must be an exchange, a colon and a key"):
        await plumbing.set_up_queue("other.webhook", ["acme"])

    await plumbing.push("confirm", "acme.custom.action", {})  # or it would be returned
    assert not await exists(url, "other.webhook")


@pytest.mark.parametrize("name", ["Grüne", "grün-2", "a+b", "a/b", "50%", "日本", "a" * 238])
async def test_harmless_names_work_from_end_to_end(plumbing: Plumbing, url: BrokerUrl, name: str) -> None:
    await plumbing.set_up_global_queues()
    assert await plumbing.set_up_organisation(name, ["crm", "confirm", "moderate", "sqs"]) == []

    await plumbing.push("confirm", f"{name}.custom.supporter", {})
    await plumbing.push("deliver", f"{name}.custom.action", {})

    async with Consumer(url, f"{name}.crm") as consumer:
        message = await consumer.next()
        message.origin.reject(message)
        again = await consumer.next()
        again.origin.ack(again)
        assert again.attempt == 2
    await eventually(lambda: unread(url, f"{name}.crm"))
    assert await plumbing.drop_crm_queue(name)


async def test_queues_need_the_loop_that_they_lead_to(plumbing: Plumbing, url: BrokerUrl) -> None:
    """A queue whose rejected messages would be lost is not made."""
    with pytest.raises(NotFound, match=r"^The exchange system\.fail was not found: run `flow setup`"):
        await plumbing.create_crm_queue("acme")

    assert not await exists(url, "acme.crm")


async def test_all_names_are_checked_before_anything_is_made(plumbing: Plumbing, url: BrokerUrl) -> None:
    await plumbing.set_up_global_queues()

    with pytest.raises(ConfigError, match="must not contain #"):
        await plumbing.set_up_organisations({"acme": ["crm"], "#": ["crm"]})
    with pytest.raises(ConfigError, match="an organisation has no queue 'cmr'; did you mean crm"):
        await plumbing.drop_organisation_queue("acme", "cmr")
    with pytest.raises(ConfigError, match="belongs to the campaign server"):
        await plumbing.set_up_queues(["mine", "cus.7.deliver"])

    assert not await exists(url, "acme.crm")
    assert not await exists(url, "mine")


async def test_a_queue_in_use_is_kept_with_its_bindings(plumbing: Plumbing, url: BrokerUrl) -> None:
    await plumbing.set_up_global_queues()
    await plumbing.create_crm_queue("acme")
    await plumbing.push("deliver", "acme.system.action", {})

    with pytest.raises(
        InUse, match=r"^The queue acme\.crm is not dropped: 1 message waits in it and no consumer reads it"
    ):
        await plumbing.drop_crm_queue("acme")
    await plumbing.push("deliver", "acme.custom.action", {})  # it is bound as it was
    async with Consumer(url, "acme.crm") as consumer:
        message = await consumer.next()
        with pytest.raises(InUse, match="1 consumer reads it"):
            await plumbing.drop_crm_queue("acme")
        message.origin.reject(message)
        assert (await consumer.next()).routing_key == "acme.custom.action"
        again = await consumer.next()  # and gets its retries back
        assert again.attempt == 2


class Meanwhile(Declarer):
    """Another publisher gets in a message just before the queue is unbound."""

    plumbing: Plumbing

    async def unbind(self, binding: Binding) -> None:
        if binding.exchange == "deliver":
            await self.plumbing.push("deliver", "acme.custom.action", {"late": True})
        await super().unbind(binding)


async def test_what_arrives_between_look_and_deletion_is_not_dropped(
    plumbing: Plumbing, url: BrokerUrl
) -> None:
    """The second look refuses, and the queue is bound again as it was."""
    await plumbing.set_up_global_queues()
    await plumbing.create_crm_queue("acme")
    declarer = Meanwhile(url)
    declarer.plumbing = plumbing

    with pytest.raises(InUse, match="1 message waits in it"):
        await drop(declarer, organisation_binding("acme", "crm"), None, url.vhost)
    await declarer.close()

    await plumbing.push("deliver", "acme.custom.action", {})
    async with Consumer(url, "acme.crm") as consumer:
        messages = [await consumer.next(), await consumer.next()]
        messages[0].origin.reject(messages[0])
        assert (await consumer.next()).attempt == 2


async def test_retries_of_a_dropped_queue_are_parked(plumbing: Plumbing, url: BrokerUrl) -> None:
    async with Plumbing(url, retry_delay=3.0) as slow:
        await slow.set_up_global_queues()
    await plumbing.create_crm_queue("acme")
    await plumbing.push("deliver", "acme.custom.action", {"a": 1})
    async with Consumer(url, "acme.crm") as consumer:
        message = await consumer.next()
        message.origin.reject(message)
        await eventually(lambda: holds(url, {"system.retry": 1}))

    await eventually(lambda: unread(url, "acme.crm"))
    assert await plumbing.drop_crm_queue("acme")

    await eventually(lambda: holds(url, {"system.dead": 1}))


async def unread(url: BrokerUrl, queue: str) -> bool:
    async with Declarer(url) as declarer:
        return not (await declarer.look(queue)).consumers


async def test_turning_off_leaves_what_waits_alone(plumbing: Plumbing, url: BrokerUrl) -> None:
    await plumbing.set_up_global_queues()
    await plumbing.set_up_organisation("acme", ["crm", "sqs"])
    await plumbing.push("deliver", "acme.custom.action", 1)
    await plumbing.push("deliver", "acme.system.action", 2)

    for _ in range(2):
        await plumbing.turn_off("acme", "crm")
        await plumbing.turn_off("acme", "sqs")
    with pytest.raises(PublishReturned):
        await plumbing.push("deliver", "acme.custom.action", 3)
    await plumbing.push("deliver", "acme.system.action", 4)  # to the thank-you mailer

    await eventually(lambda: holds(url, {"acme.crm": 2, "system.sqs": 1, "system.email.thankyou": 2}))
    async with Consumer(url, "acme.crm") as consumer:
        message = await consumer.next()
        message.origin.reject(message)
        await consumer.next()
        assert (await consumer.next()).attempt == 2  # its retries come back


async def test_everything_goes_over_one_connection_and_a_refusal_harms_no_other(
    plumbing: Plumbing, url: BrokerUrl, rabbitmq: RabbitMQControl
) -> None:
    await plumbing.set_up_global_queues()
    await plumbing.create_crm_queue("acme")
    refused: list[type[BaseException]] = []

    async def wrongly(number: int) -> None:
        """Each of these costs a channel."""
        try:
            if number % 2:
                await plumbing.push("missing", "key", {})
            else:
                async with Plumbing(url) as other:  # a retry queue with another delay
                    assert len(await other.set_up_global_queues()) == 1
                assert await plumbing.drop_organisation_queue(f"org{number}", "crm") is False
        except NotFound as error:
            refused.append(type(error))

    async def rightly(number: int) -> None:
        await plumbing.set_up_queue(f"queue.{number}")

    async with anyio.create_task_group() as group:
        for number in range(12):
            group.start_soon(wrongly, number)
            group.start_soon(rightly, number)

    assert len(refused) == 6
    for number in range(12):
        assert await exists(url, f"queue.{number}")
    await plumbing.push("deliver", "acme.custom.action", {})
    assert (await rabbitmq.connection_names(url.vhost)).count(NAME) == 1


async def test_push_returns_after_the_confirm_with_a_persistent_message(
    plumbing: Plumbing, url: BrokerUrl
) -> None:
    await plumbing.set_up_global_queues()
    await plumbing.create_crm_queue("acme")

    await plumbing.push("deliver", "acme.custom.action", {"name": "ä"}, message_id="m-1")
    await plumbing.push("deliver", "acme.custom.action", b"{raw}", headers={"x": 1})

    async with Consumer(url, "acme.crm") as consumer:
        first, second = await consumer.next(), await consumer.next()
    assert (first.raw, first.message_id) == ('{"name":"ä"}'.encode(), "m-1")
    assert (second.raw, second.headers.get("x")) == (b"{raw}", 1)


async def test_an_unroutable_or_refused_message_is_an_error_without_its_body(
    plumbing: Plumbing, url: BrokerUrl
) -> None:
    await plumbing.set_up_exchanges()
    async with Declarer(url) as declarer:
        await declarer._change(
            lambda channel: channel.queue_declare(
                "full", durable=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"}
            ),
            "The queue full",
        )
        await declarer.bind(Binding(exchange="deliver", key="full", queue="full"))

    with pytest.raises(PublishReturned, match=r"exchange deliver with the key acme\.x\.y") as unroutable:
        await plumbing.push("deliver", "acme.x.y", {"name": "Secret"})
    with pytest.raises(
        PublishFailed, match="exchange deliver with the key full: a queue there is full"
    ) as full:
        await push_ten(plumbing)
    with pytest.raises(DecodeError, match=r"cannot be written as JSON \(TypeError\)"):
        await plumbing.push("deliver", "full", object())

    assert "Secret" not in f"{unroutable.value} {full.value}"


async def push_ten(plumbing: Plumbing) -> None:
    for _ in range(10):
        await plumbing.push("deliver", "full", {"name": "Secret"})


async def test_many_are_pushed_at_a_time_and_those_that_fail_come_back(
    plumbing: Plumbing, url: BrokerUrl
) -> None:
    await plumbing.set_up_global_queues()
    await plumbing.create_crm_queue("acme")
    keys = ["acme.custom.action" if number % 100 else "other.custom.action" for number in range(2000)]

    left = await plumbing.push_many(
        Outgoing(exchange="deliver", routing_key=key, body=b"%d" % number) for number, key in enumerate(keys)
    )

    assert [one.number for one in left] == list(range(1, 2001, 100))
    assert all(isinstance(one.error, PublishReturned) for one in left)
    await eventually(lambda: holds(url, {"acme.crm": 1980}))
    await plumbing.create_crm_queue("other")
    assert await plumbing.push_many(one.message for one in left) == []


async def test_pushing_many_survives_closed_connections(
    plumbing: Plumbing, url: BrokerUrl, rabbitmq: RabbitMQControl
) -> None:
    await plumbing.set_up_global_queues()
    await plumbing.create_crm_queue("acme")
    arrived: dict[str, int] = {}

    def receive(messages: list[Any]) -> None:
        for message in messages:
            arrived[message.message_id] = arrived.get(message.message_id, 0) + 1

    outgoing = [
        Outgoing(exchange="deliver", routing_key="acme.custom.action", body=b"%d" % number)
        for number in range(5000)
    ]
    left: list[Any] = []

    async def push() -> None:
        left.extend(await plumbing.push_many(outgoing))

    async with anyio.create_task_group() as group:
        group.start_soon(push)
        await eventually(lambda: more_than(url, 300))
        await rabbitmq.close_all_connections()

    assert all(one.may_have_arrived for one in left)
    assert await plumbing.push_many(one.message for one in left) == []
    session = await Session.open(url, {"acme.crm": 20_000}, receive)
    await eventually(lambda: everything(arrived, 5000))
    await session.close()
    assert set(arrived) == {one.message_id for one in outgoing}
    assert {key for key, count in arrived.items() if count > 1} <= {one.message.message_id for one in left}


async def more_than(url: BrokerUrl, count: int) -> bool:
    return await ready(url, "acme.crm") > count


async def everything(arrived: dict[str, int], count: int) -> bool:
    return len(arrived) >= count


async def test_an_account_that_may_only_publish_pushes(
    plumbing: Plumbing, rabbitmq: RabbitMQControl, vhost: str
) -> None:
    await plumbing.set_up_global_queues()
    await rabbitmq.add_user(vhost, "secret")
    await rabbitmq.permit(vhost, vhost, "^$", "^deliver$", "^$")

    try:
        async with Plumbing(rabbitmq.url(vhost, user=vhost, password="secret")) as narrow:
            await narrow.push("deliver", "acme.system.action", {})
            with pytest.raises(AccessDenied, match="is refused to user"):
                await narrow.create_crm_queue("acme")
            with pytest.raises(AccessDenied, match="may not publish to exchange confirm"):
                await narrow.push("confirm", "acme.system.supporter", {})
            await narrow.push("deliver", "acme.system.action", {})
            assert "secret" not in repr(narrow.url)
    finally:
        await rabbitmq.delete_user(vhost)
