"""The plumbing of a campaign server as `flow check` finds it: looked at, and never declared."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiormq.abc import AbstractChannel

from flow.broker.url import BrokerUrl
from flow.checking.finding import Finding
from flow.checking.server import check_server
from tests.broker.queues import connected
from tests.cli.conftest import run_flow
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

MINE = """
from flow import Pipeline
from flow.schema import ActionMessage

class Mine(Pipeline[ActionMessage]):
    queue = "cus.7.deliver"

    def handle_message(self, message):
        raise AssertionError("consumed")
"""


@pytest.fixture
async def channel(amqp_url: str) -> AsyncIterator[AbstractChannel]:
    """A channel of the server, which has declared all of organisation 7."""
    connection = await connected(amqp_url)
    channel = await connection.channel()
    for name in ("confirm.supporter", "confirm.action", "deliver", "event"):
        await channel.exchange_declare(f"org.7.{name}", exchange_type="topic", durable=True)
    await channel.exchange_declare("org.7.fail", exchange_type="fanout", durable=True)
    await channel.exchange_declare("org.7.retry", exchange_type="direct", durable=True)
    waiting = {"x-dead-letter-exchange": "org.7.retry", "x-message-ttl": 30_000}
    await channel.queue_declare("org.7.fail", durable=True, arguments=waiting)
    await channel.queue_bind("org.7.fail", "org.7.fail", "")
    for queue in ("cus.7.deliver", "wrk.7.sqs"):
        dead = {"x-dead-letter-exchange": "org.7.fail", "x-dead-letter-routing-key": queue}
        await channel.queue_declare(queue, durable=True, arguments=dead)
        await channel.queue_bind(queue, "org.7.retry", queue)
    yield channel
    await connection.close()


async def found(amqp_url: str, queue: str) -> list[Finding]:
    findings: list[Finding] = []
    await check_server(BrokerUrl.parse(amqp_url), queue, findings.append)
    return findings


async def test_a_queue_says_whose_it_is_and_where_its_retries_go(
    amqp_url: str, channel: AbstractChannel
) -> None:
    assert await found(amqp_url, "cus.7.deliver") == [
        Finding(
            "ok",
            "cus.7.deliver is of organisation 7 of a campaign server, which declares it: actions for the CRM "
            "of the organisation",
        ),
        Finding(
            "ok",
            "the retry loop of cus.7.deliver is there: "
            "exchange org.7.fail -> queue org.7.fail -> exchange org.7.retry",
        ),
    ]
    assert {finding.state for finding in await found(amqp_url, "wrk.7.sqs")} == {"ok"}
    assert await found(amqp_url, "acme.crm") == []


async def test_missing_parts_are_told_and_stay_missing(
    amqp_url: str, channel: AbstractChannel, rabbitmq: RabbitMQControl
) -> None:
    await channel.exchange_delete("org.7.retry")
    await channel.exchange_delete("org.7.deliver")
    await channel.queue_delete("org.7.fail")

    for _ in range(2):
        findings = await found(amqp_url, "cus.7.deliver")

        assert findings[1:] == [
            Finding(
                "wrong",
                "the queue org.7.fail and the exchange org.7.retry are missing, so that what cus.7.deliver "
                "rejects is lost: have the server declare it",
            ),
            Finding("caution", "cus.7.deliver gets nothing: the exchange org.7.deliver is missing"),
        ]
    assert "org.7.fail" not in await rabbitmq.queue_lengths(BrokerUrl.parse(amqp_url).vhost)


async def test_a_queue_that_is_missing_is_not_for_flow_to_declare(amqp_url: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)

    ended = await run_flow("check", "mine", url=amqp_url, PYTHONPATH=str(tmp_path))

    assert ended.code == 78
    sentence = "cus.7.deliver is missing: have the campaign server declare it, or correct its name"
    assert f"wrong        {sentence}\n" in ended.out
    assert "The queue cus.7.deliver was not found: run" not in ended.out


async def test_a_name_that_no_server_makes_is_a_caution(amqp_url: str, channel: AbstractChannel) -> None:
    finding = (await found(amqp_url, "cus.7.deliever"))[0]

    assert finding.state == "caution"
    assert "none of this name is known: wrk.N.email.supporter, " in finding.text


async def test_an_account_that_may_only_read_its_queue_is_told_all_of_it(
    amqp_url: str, channel: AbstractChannel, rabbitmq: RabbitMQControl, vhost: str, tmp_path: Path
) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    await rabbitmq.add_user(vhost, "secret")
    await rabbitmq.permit(vhost, vhost, "^$", "^$", r"^cus\.7\.deliver$")

    reader = rabbitmq.url(vhost, user=vhost, password="secret")
    ended = await run_flow("check", "mine", url=reader, PYTHONPATH=str(tmp_path))
    await rabbitmq.delete_user(vhost)

    assert ended.code == 0, ended.out
    for sentence in (
        "ok           cus.7.deliver is of organisation 7 of a campaign server",
        "ok           the retry loop of cus.7.deliver is there",
        "ok           Mine: retries go through the retry loop that cus.7.deliver has by its name",
        "caution      Mine: hopeless messages cannot be parked and stay in the retry loop",
    ):
        assert sentence in ended.out
