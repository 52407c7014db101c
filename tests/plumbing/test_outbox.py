"""The outbox on real brokers: nothing is lost or forgotten by any crash, and what comes twice has one id."""

import os
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import func, select, update

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.devbroker.server import DevBroker
from flow.errors import NoVirtualHost
from flow.plumbing.outbox import LEASE, Outbox
from flow.plumbing.sweeper import Sweeper
from flow.records import outbox
from flow.records.database import Database
from flow.records.tables import actions, published
from tests.broker.queues import eventually
from tests.plumbing.signature_model import Org
from tests.plumbing.signatures import define, outgoing, signature, statuses, submit
from tests.plumbing.wires import Wires

# The node is started by a loop of its own, so before any fixture that runs on the loop of the tests.
pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("real")]

ROOT = Path(__file__).parent.parent.parent
KILLED = 9


@pytest.fixture(params=["devbroker", pytest.param("rabbitmq", marks=pytest.mark.broker)])
def real(request: pytest.FixtureRequest) -> str | None:
    """The URL of the real broker; None stands for the devbroker."""
    return None if request.param == "devbroker" else str(request.getfixturevalue("amqp_url"))


@pytest.fixture
async def broker(real: str | None) -> AsyncIterator[str]:
    """The URL of each of the two brokers in turn."""
    if real is not None:
        yield real
        return
    async with DevBroker() as dev:
        yield dev.url()


@pytest.fixture
async def wires(broker: str) -> AsyncIterator[Wires]:
    async with Wires(broker) as wires:
        yield wires


@pytest.fixture
async def publisher(broker: str) -> AsyncIterator[Publisher]:
    publisher = Publisher(BrokerUrl.parse(broker))
    yield publisher
    await publisher.close()


@pytest.fixture
async def acme(database: Database) -> Org:
    """An organisation that demands nothing: whoever signs is delivered."""
    org = Org("acme")
    await define(database, org)
    return org


async def sign(database: Database, org: Org, count: int) -> list[int]:
    several = [signature(org, f"n{number}@example.org") for number in range(count)]
    return [one.action_id for one in await submit(database, *several)]


def later(seconds: float) -> Any:
    return lambda: datetime.now(UTC) + timedelta(seconds=seconds)


async def notes(database: Database) -> int:
    async with database.reading() as connection:
        return await connection.scalar(select(func.count()).select_from(published)) or 0


async def test_messages_are_published_persistent_and_noted(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    queues = await wires.lay(["acme"])
    await sign(database, acme, 3)
    waiting = await outgoing(database, "acme")

    account = await Outbox(database, publisher).publish()

    assert (account.published, account.refused, account.fault) == (3, {}, None)
    assert await outgoing(database, "acme") == []
    assert await notes(database) == 3
    for queue in ("acme.crm", "system.email.thankyou", "system.sqs"):
        found = await wires.drain(queue)
        assert sorted(one.body for one in found) == sorted(body for *_, body in waiting)
        assert {one.header.properties.delivery_mode for one in found} == {2}
        assert len({one.header.properties.message_id for one in found}) == 3
    assert queues == sorted(
        [
            "acme.confirm",
            "acme.crm",
            "acme.moderate",
            "system.email.confirm",
            "system.email.thankyou",
            "system.sqs",
        ]
    )


async def test_what_no_queue_takes_is_kept_told_once_and_tried_again(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    said: list[str] = []
    await wires.exchanges()
    await sign(database, acme, 3)
    sweeper = Sweeper(database, Outbox(database, publisher), say=said.append)

    first, second = await sweeper.sweep(), await sweeper.sweep()

    assert (first.waiting, first.refused, sum(first.account.refused.values())) == (3, 3, 3)
    assert (second.waiting, second.refused, sum(second.account.refused.values())) == (3, 3, 0)
    assert first.sentence == "published 0 messages; 3 messages wait, 3 of them refused"
    assert len(said) == 1
    assert "3 messages not taken by the broker, kept to be tried again: " in said[0]
    assert "deliver" in said[0]
    assert "example.org" not in said[0]

    await wires.lay(["acme"])
    third = await sweeper.sweep(refused_too=True)

    assert (third.account.published, third.waiting, third.refused) == (3, 0, 0)
    assert len(await wires.drain("acme.crm")) == 3


async def test_a_sweeper_that_is_woken_publishes_and_settles_in_its_own_time(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    """Whoever decides wakes it; a look at all who have yet to confirm would keep every message waiting."""
    await wires.lay(["acme"])
    sweeper = Sweeper(database, Outbox(database, publisher))

    async def published(count: int) -> bool:
        return await notes(database) == count

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sweeper.run, 3600.0)
        [imported] = await sign(database, acme, 1)
        sweeper.wake()
        await eventually(lambda: published(1))
        async with database.begin() as connection:
            await connection.execute(update(actions).values(processing_status="new"))
        await sign(database, acme, 1)
        sweeper.wake()
        await eventually(lambda: published(2))
        woken = (await statuses(database))[imported][0]
        tasks.cancel_scope.cancel()
    await sweeper.sweep()

    assert woken == "new"
    assert (await statuses(database))[imported][0] == "delivered"


async def test_what_was_refused_is_tried_again_after_its_time(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    await wires.exchanges()
    await sign(database, acme, 1)
    await Outbox(database, publisher, again=10).publish()
    await wires.lay(["acme"])

    early = await Outbox(database, publisher, now=later(9)).publish()
    due = await Outbox(database, publisher, now=later(11)).publish()

    assert (early.published, due.published) == (0, 1)


async def test_a_missing_exchange_is_a_refusal(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    await sign(database, acme, 1)

    account = await Outbox(database, publisher).publish()

    assert list(account.refused.values()) == [1]
    assert "exchange" in next(iter(account.refused))
    assert account.fault is None


async def test_a_missing_virtual_host_is_one_fault_and_no_refusal(
    database: Database, acme: Org, broker: str, publisher: Publisher, wires: Wires
) -> None:
    """No message is to blame: each can be published as soon as the address is right."""
    await wires.lay(["acme"])
    await sign(database, acme, 2)
    misled = Publisher(BrokerUrl.parse(broker).on("nowhere"))

    fault = (await Outbox(database, misled).publish()).fault
    again = await Outbox(database, publisher).publish()
    await misled.close()

    assert isinstance(fault, NoVirtualHost)
    assert str(fault).startswith("There is no virtual host nowhere at ")
    assert await outbox.refusals(database) == {}
    assert again.published == 2


async def test_a_lost_broker_leaves_every_message_to_be_claimed_at_once(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    await wires.lay(["acme"])
    await sign(database, acme, 5)
    nowhere = Publisher(BrokerUrl.parse("amqp://guest:guest@127.0.0.1:1/"))

    lost = await Outbox(database, nowhere).publish()
    again = await Outbox(database, publisher).publish()
    await nowhere.close()

    assert lost.published == 0
    assert "127.0.0.1:1" in str(lost.fault)
    assert again.published == 5


async def test_several_at_once_publish_each_message_once(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    await wires.lay(["acme"])
    for _ in range(5):
        await sign(database, acme, 100)
    other = Database(database.url)
    accounts = []

    async def publish(one: Database) -> None:
        accounts.append(await Outbox(one, publisher).publish())

    async with anyio.create_task_group() as group:
        for number in range(4):
            group.start_soon(publish, (database, other)[number % 2])
    await other.close()

    assert sum(account.published for account in accounts) == 500
    assert len(await wires.drain("acme.crm")) == 500
    assert await notes(database) == 500


async def test_a_claim_of_a_crashed_process_runs_out(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    await wires.lay(["acme"])
    await sign(database, acme, 2)
    now = datetime.now(UTC)
    await outbox.claim(database, now, now + timedelta(seconds=LEASE), 100)

    early = await Outbox(database, publisher, now=later(LEASE - 5)).publish()
    due = await Outbox(database, publisher, now=later(LEASE + 5)).publish()

    assert (early.published, due.published) == (0, 2)


# Publishes the outbox, and is killed once so many messages are confirmed and before any of them is noted.
CRASHING = """
import os, signal, sys
import anyio
from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.plumbing.outbox import Outbox
from flow.records.database import Database

class Dying(Publisher):
    left = int(sys.argv[3])
    async def publish(self, *arguments, **options):
        await super().publish(*arguments, **options)
        Dying.left -= 1
        if Dying.left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

async def main():
    async with Database.opened(sys.argv[1]) as database:
        await Outbox(database, Dying(BrokerUrl.parse(sys.argv[2]))).publish()

anyio.run(main)
"""


@pytest.mark.parametrize("confirmed", [1, 20])
async def test_killed_between_the_confirm_and_the_note_it_publishes_again_with_the_same_id(
    database: Database, acme: Org, publisher: Publisher, wires: Wires, confirmed: int
) -> None:
    await wires.lay(["acme"])
    await sign(database, acme, 20)
    command = [sys.executable, "-c", CRASHING, database.url.text, wires.url, str(confirmed)]

    died = await anyio.run_process(command, check=False, cwd=ROOT, stderr=subprocess.STDOUT, env=os.environ)
    account = await Outbox(database, publisher, now=later(LEASE + 5)).publish()

    assert died.returncode == -KILLED, died.stdout
    assert account.published == 20
    ids = [one.header.properties.message_id for one in await wires.drain("acme.crm")]
    assert len(set(ids)) == 20
    assert len(ids) >= 20 + confirmed
    assert await notes(database) == 20


async def test_cancelled_it_notes_what_it_knows_and_gives_the_rest_back(
    database: Database, acme: Org, publisher: Publisher, wires: Wires
) -> None:
    await wires.lay(["acme"])
    await sign(database, acme, 50)

    class Slow(Publisher):
        async def publish(self, *arguments: Any, **options: Any) -> None:
            if options["message_id"] in slow:
                await anyio.sleep_forever()
            await publisher.publish(*arguments, **options)

    now = datetime.now(UTC)
    claimed = await outbox.claim(database, now, now, 100)
    slow = {one.message_id for one in claimed[::2]}
    with anyio.move_on_after(30) as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(Outbox(database, Slow(BrokerUrl.parse(wires.url))).publish)
            while (await wires.channel.queue_declare("acme.crm", passive=True)).message_count < 25:  # noqa: ASYNC110
                await anyio.sleep(0.01)
            await anyio.wait_all_tasks_blocked()
            group.cancel_scope.cancel()
    assert not scope.cancelled_caught

    account = await Outbox(database, publisher).publish()

    assert account.published in range(25, 51)
    ids = [one.header.properties.message_id for one in await wires.drain("acme.crm")]
    assert len(set(ids)) == 50
    assert await notes(database) == 50
