"""`flow check` as a process: findings on standard output, 0 or 78."""

import json
from pathlib import Path

import pytest

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.plumbing.setup import set_up, topology_for
from tests.cli.conftest import Ended, run_flow, until_ready
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio

MINE = """
from flow import Pipeline
from flow.schema import IdsMessage

class Mine(Pipeline[IdsMessage]):
    queue = "acme.crm"

    def handle_message(self, message):
        raise AssertionError("consumed")
"""
NOWHERE = "amqp://guest:canary-secret@127.0.0.1:1/"


@pytest.fixture
def folder(tmp_path: Path) -> str:
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "other.py").write_text(MINE)
    (tmp_path / "more.py").write_text(MINE + MINE.replace("class Mine", "class More"))
    (tmp_path / "ordered.py").write_text(MINE + "    partition_key = Pipeline.batch_key\n")
    (tmp_path / "broken.py").write_text("class Mine:\n    raise ValueError('canary-secret')\n")
    return str(tmp_path)


async def checked(folder: str, *arguments: str, url: str | None = None, **more: str) -> Ended:
    return await run_flow("check", *arguments, url=url, PYTHONPATH=folder, **more)


def states(ended: Ended) -> set[str]:
    return {line[:11].strip() for line in ended.out.splitlines()}


async def test_as_many_workers_are_asked_about_as_would_run(folder: str) -> None:
    shared = await checked(folder, "ordered", FLOW_WORKERS="2")
    alone = await checked(folder, "ordered", "--workers", "1", FLOW_WORKERS="2")

    sentence = "--workers 2 would break the order that Mine.partition_key promises"
    assert sentence in shared.out
    assert sentence not in alone.out


async def test_everything_is_told_at_once_also_when_much_is_wrong(folder: str) -> None:
    """A broken module, a missing one, no settings and no broker: each in its line, no secret in any."""
    ended = await checked(
        folder, "mine", "broken", "nothere", "pipelines.crm", url=NOWHERE, CRM_TOKEN="canary"
    )

    assert ended.code == 78
    for words in (
        "mine has Mine",
        "broken cannot be imported",
        "there is no module nothere",
        "Nothing listens",
    ):
        assert words in ended.out
    assert "CrmSettings needs CRM_URL to be set" in ended.out
    assert "canary" not in ended.out + ended.err
    assert ended.err == ""


async def test_what_does_not_go_together_is_told(folder: str) -> None:
    """What `flow run` refuses of several pipelines is wrong; a queue that two of them consume is a trap."""
    same = await checked(folder, "mine", "other", "mine:Mine")
    alone = await checked(folder, "more", "--queue", "any.queue")
    run = await run_flow("run", "more", "--queue", "any.queue", url=NOWHERE, PYTHONPATH=folder)
    sharing = await checked(folder, "more")

    assert same.out.count("mine:Mine and other:Mine are both called mine: give one of them another name") == 1
    assert same.out.count("Mine: options and callbacks") == 2
    assert f"wrong        {run.err.removeprefix('flow: ')}" in alone.out
    assert "Mine and More consume the same queue acme.crm: each of its messages goes to one of" in sharing.out
    assert "same queue" not in alone.out


async def test_the_retry_loop_of_a_queue_is_as_the_command_line_says(folder: str) -> None:
    said = await checked(folder, "mine", "--queue", "acme.own", "--dead-letter", "assume", url=NOWHERE)
    doubted = await checked(folder, "mine", "--queue", "acme.own", url=NOWHERE)
    several = await checked(folder, "more", "--dead-letter", "assume", url=NOWHERE)

    assert "ok           Mine: retries go to the dead-letter exchange of acme.own" in said.out
    assert "makes it), give --dead-letter assume" in doubted.out
    assert "wrong        --dead-letter goes with one pipeline, but more has 2" in several.out


async def test_an_address_in_the_place_of_a_target_is_not_shown(folder: str) -> None:
    for command in ("check", "run", "verify"):
        ended = await run_flow(command, NOWHERE, url=NOWHERE, PYTHONPATH=folder)

        assert ended.code in (2, 78)
        assert "not an address" in ended.out + ended.err
        assert "canary" not in ended.out + ended.err


async def test_a_database_that_cannot_be_used_is_wrong_without_a_broker_too(folder: str) -> None:
    ended = await checked(folder, "mine", url=NOWHERE, FLOW_DATABASE_URL="mysql://u:canary@x/y")

    assert ended.code == 78
    assert "wrong        The database URL must begin with sqlite:// or postgresql://" in ended.out
    assert "not checked  Mine: what a crash or another worker may repeat: needs the database" in ended.out
    assert "canary" not in ended.out + ended.err


async def test_a_missing_address_is_one_of_the_findings(folder: str) -> None:
    ended = await checked(folder, "mine")

    assert ended.code == 78
    assert "wrong        No broker is named" in ended.out
    assert "ok           Mine: options and callbacks" in ended.out


async def test_without_a_target_it_is_wrong_usage(folder: str) -> None:
    assert (await checked(folder, url=NOWHERE)).code == 2


async def test_lines_are_plain_where_no_terminal_is(folder: str) -> None:
    ended = await checked(folder, "mine", url=NOWHERE)

    assert "\x1b" not in ended.out


async def test_json_is_one_object_for_each_line(folder: str) -> None:
    plain, as_json = await checked(folder, "mine"), await checked(folder, "mine", "--json")

    rows = [json.loads(line) for line in as_json.out.splitlines()]
    assert [f"{row['state']:11}  {row['text']}" for row in rows] == plain.out.splitlines()


@pytest.fixture
async def filled(url: BrokerUrl, publisher: Publisher) -> None:
    await set_up(url, topology_for(["acme"], retry_delay=30.0))
    await publisher.publish("deliver", "acme.custom.action", b"{}")
    await until_ready(url, "acme.crm", lambda count: count == 1)


@pytest.mark.broker
@pytest.mark.usefixtures("filled")
class TestOnABroker:
    async def test_what_is_right_ends_with_0_and_consumes_nothing(
        self, folder: str, amqp_url: str, url: BrokerUrl
    ) -> None:
        ended = await checked(folder, "mine", url=amqp_url)

        assert ended.code == 0, ended.out
        assert states(ended) == {"ok", "caution", "not checked"}
        assert "the queue acme.crm exists, with 1 messages ready and 0 consumers" in ended.out
        assert ended.out.count("needs the management API (FLOW_MANAGEMENT_URL)") == 4
        assert await until_ready(url, "acme.crm", lambda count: count > 0) == 1

    async def test_a_warning_is_wrong_only_when_strict(self, folder: str, amqp_url: str) -> None:
        lax = await checked(folder, "mine", "--prefetch", "5", url=amqp_url)
        strict = await checked(folder, "mine", "--prefetch", "5", "--strict", url=amqp_url)

        assert (lax.code, strict.code) == (0, 78)
        assert "prefetch 5 is below" in lax.out

    async def test_an_account_without_any_permission_learns_of_queue_and_park(
        self, folder: str, rabbitmq: RabbitMQControl, vhost: str
    ) -> None:
        await rabbitmq.add_user(f"nobody-{vhost}", "secret")
        await rabbitmq.permit(f"nobody-{vhost}", vhost, "^$", "^$", "^$")
        named = rabbitmq.url(vhost, user=f"nobody-{vhost}", password="secret")

        ended = await checked(folder, "mine", url=named)
        await rabbitmq.delete_user(f"nobody-{vhost}")

        assert ended.code == 0, ended.out
        assert "hopeless messages go to the exchange system.park" in ended.out
        assert f"not checked  whether nobody-{vhost} may read acme.crm" in ended.out

    async def test_a_missing_queue_is_wrong(self, folder: str, amqp_url: str) -> None:
        ended = await checked(folder, "mine", "--queue", "missing.crm", url=amqp_url)

        assert ended.code == 78
        assert "wrong        The queue missing.crm does not exist in the virtual host" in ended.out
        assert "run flow org add missing --crm, or correct its name" in ended.out

    async def test_a_missing_park_is_a_caution(
        self, folder: str, amqp_url: str, rabbitmq: RabbitMQControl, vhost: str
    ) -> None:
        park = f'{{resource, <<"{vhost}">>, exchange, <<"system.park">>}}'
        await rabbitmq.evaluate(f'rabbit_exchange:delete({park}, false, <<"flow">>)')

        ended = await checked(folder, "mine", url=amqp_url)

        assert ended.code == 0, ended.out
        assert "caution      Mine: hopeless messages cannot be parked" in ended.out

    async def test_a_wrong_password_is_wrong_and_not_shown(
        self, folder: str, rabbitmq: RabbitMQControl, vhost: str
    ) -> None:
        named = rabbitmq.url(vhost, user="guest", password="canary-secret")
        ended = await checked(folder, "mine", url=named, FLOW_MANAGEMENT_URL="http://a:canary@127.0.0.1:1")

        assert ended.code == 78
        assert "refused the login of user guest" in ended.out
        assert "canary" not in ended.out + ended.err
