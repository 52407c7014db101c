"""Two organisations, thousands of signatures, and every process killed once: all is as the model says.

FLOW_TEST_SIGNATURES sets how many signatures there are (500), FLOW_TEST_SEED repeats a run.
"""

import os
import random
import subprocess
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.abc
import msgspec
import pytest
from sqlalchemy import func, select, update

from flow.crypto import KeyStore
from flow.devbroker.server import DevBroker
from flow.records.database import Database
from flow.records.tables import actions, contacts, outbox, supporters
from flow.schema import ActionMessage
from tests.broker.queues import eventually
from tests.end_to_end.campaigning import SIZE, Campaigning, text
from tests.end_to_end.conftest import FLOW, environment
from tests.end_to_end.deciding import Crowd, serving, sweeping
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode
from tests.plumbing.signature_model import Model
from tests.plumbing.signatures import statuses
from tests.plumbing.wires import Wires

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(1800)]

Restart = Callable[[], Awaitable[None]]


@asynccontextmanager
async def process(*arguments: str, **more: str) -> AsyncIterator[anyio.abc.Process]:
    """Start `flow`, and end it at last."""
    running = await anyio.open_process(
        [*FLOW, *arguments], stdout=subprocess.DEVNULL, stderr=None, env=environment(**more)
    )
    try:
        yield running
    finally:
        if running.returncode is None:
            running.kill()
        await running.aclose()


async def stored(database: Database) -> int:
    async with database.reading() as connection:
        return await connection.scalar(select(func.count()).select_from(actions)) or 0


async def numbers(database: Database) -> dict[int, tuple[int, str | None]]:
    """Return the place of each action in the input, by id, and its contact reference."""
    reading = select(actions.c.id, actions.c.submission, supporters.c.contact_ref).outerjoin(
        supporters, supporters.c.id == actions.c.supporter_id
    )
    async with database.reading() as connection:
        rows = (await connection.execute(reading)).all()
    return {row[0]: (int(row[1].removeprefix("form-")), row[2]) for row in rows}


async def show(url: str, broker: str, kill_broker: Restart, folder: Path) -> None:
    """Do everything; `flow submit`, `flow serve`, `flow sweep` and the broker are killed at random points."""
    seed = int(os.environ.get("FLOW_TEST_SEED", random.randrange(10**6)))
    print(f"seed {seed}, {SIZE} signatures")  # noqa: T201  (shown when it fails)
    campaign = Campaigning(seed)
    file = folder / "signatures.jsonl"
    file.write_bytes(b"\n".join(campaign.lines()) + b"\n")
    setting = {"FLOW_DATABASE_URL": url, "AMQP_URL": broker}

    async with Database.opened(url) as database:
        begin = time.monotonic()
        await submit_with_a_kill(database, file, campaign.random.randrange(SIZE), setting)
        submitted = time.monotonic()
        print(f"submitted in {submitted - begin:.1f} s", flush=True)  # noqa: T201
        known = await numbers(database)
        assert sorted(number for number, _ in known.values()) == list(range(SIZE))
        await decide_with_kills(database, campaign, known, kill_broker, folder, setting)
        decided = time.monotonic()
        await sweep_the_rest(database, setting)
        swept = time.monotonic()
        print(f"decided in {decided - submitted:.1f} s, swept in {swept - decided:.1f} s")  # noqa: T201
        await check(database, campaign, broker, {id_: number for id_, (number, _) in known.items()})


async def submit_with_a_kill(database: Database, file: Path, at: int, setting: dict[str, str]) -> None:
    async with process("submit", str(file), **setting) as running:
        await eventually(lambda: reached(database, at, running), 600)
        running.kill()
    async with process("submit", str(file), **setting) as running:
        with anyio.fail_after(600):
            assert await running.wait() == 0
    assert not file.with_name("signatures.jsonl.wrong").exists()


async def reached(database: Database, count: int, running: anyio.abc.Process) -> bool:
    return running.returncode is not None or await stored(database) >= count


async def decide_with_kills(
    database: Database,
    campaign: Campaigning,
    known: dict[int, tuple[int, str | None]],
    kill_broker: Restart,
    folder: Path,
    setting: dict[str, str],
) -> None:
    decisions = campaign.decisions()
    serve, sweep = serving(folder, setting), sweeping(folder, setting)
    crowd = Crowd(campaign, database, known)
    points = campaign.random.sample(range(1, len(decisions) * 4 // 5), 3)
    kills = dict(zip(points, (serve.restart, sweep.restart, kill_broker), strict=True))
    try:
        await sweep.start()
        await crowd.decide(decisions, serve, kills)
        await serve.stop()
        await sweep.stop()
    finally:
        await serve.kill()
        await sweep.kill()
    assert crowd.broken > 0
    print(f"killed at {points}, {crowd.broken} requests cut off; {dict(crowd.answers)}")  # noqa: T201


async def sweep_the_rest(database: Database, setting: dict[str, str]) -> None:
    """Two minutes later, when the claims of the killed are void, one sweep publishes all that is left."""
    async with database.begin() as connection:
        await connection.execute(update(outbox).values(claimed_until=None))
    async with process("sweep", **setting) as running:
        with anyio.fail_after(300):
            assert await running.wait() == 0


async def check(database: Database, campaign: Campaigning, broker: str, places: dict[int, int]) -> None:
    """Compare every status and every queue with the model."""
    model = campaign.model
    found = {places[id_]: state for id_, state in (await statuses(database)).items()}
    for deed in model.deeds:
        person = deed.person
        expected = (deed.status, person.status if person else None, person.rank if person else None)
        assert found[deed.number] == expected, deed
    async with database.reading() as connection:
        assert await connection.scalar(select(func.count()).select_from(outbox)) == 0
        boxes = select(func.count()).select_from(contacts).where(contacts.c.nonce.is_not(None))
        people = [one for one in model.people if one.org is campaign.brook]
        assert await connection.scalar(boxes) == len(people)
    keys = KeyStore.parse(
        msgspec.json.encode({campaign.public: {"private": text(bytes(campaign.private))}}).decode()
    )
    async with Wires(broker) as wires:
        for queue in QUEUES:
            several = await wires.drain(queue)
            if queue == "brook.crm":
                opened(several, keys, model, places)
            assert Wires.words(several, places) == model.queue(queue, campaign.orgs), queue
            ids = {one.header.properties.message_id for one in several}
            print(f"{queue}: {len(ids)} messages, {len(several) - len(ids)} twice")  # noqa: T201


QUEUES = [
    "system.email.confirm",
    "acme.confirm",
    "brook.confirm",
    "acme.moderate",
    "brook.moderate",
    "system.email.thankyou",
    "acme.crm",
    "brook.crm",
    "system.sqs",
]


def opened(several: list[Any], keys: KeyStore, model: Model, places: dict[int, int]) -> None:
    """Check that nothing personal is in the clear, and that the organisation can open it."""
    assert several
    for one in several:
        assert b"Waters" not in one.body
        assert b"@" not in one.body
        if b'"proca:action:2"' in one.body:
            body = keys.opened(msgspec.json.decode(one.body, type=ActionMessage))
            person = model.deeds[places[body.action_id]].person
            assert person is not None
            assert body.contact.email == person.email


@pytest.mark.broker
async def test_on_rabbitmq_and_postgresql(
    rabbitmq: RabbitMQControl, vhost: str, amqp_url: str, postgresql_url: str, tmp_path: Path
) -> None:
    async with Wires(amqp_url) as wires:
        await wires.lay(["acme", "brook"])
    if isinstance(rabbitmq, RabbitMQNode):
        await rabbitmq.restart()  # what was just declared may not be on the disk yet

    async def kill() -> None:
        """Kill the private node; a broker that others use loses the connections of this virtual host."""
        if isinstance(rabbitmq, RabbitMQNode):
            rabbitmq.kill()
            await rabbitmq.start()
        else:
            await rabbitmq.close_connections_of(vhost)

    await show(postgresql_url, amqp_url, kill, tmp_path)


async def test_on_the_embedded_broker_and_sqlite(tmp_path: Path) -> None:
    async with DevBroker() as broker:
        async with Wires(broker.url()) as wires:
            await wires.lay(["acme", "brook"])

        async def kill() -> None:
            """Cut all connections for a moment: killed, a broker in memory would keep nothing."""
            broker.faults.drop_connections()

        await show(f"sqlite:///{tmp_path / 'records.db'}", broker.url(), kill, tmp_path)
