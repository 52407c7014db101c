"""What the sweeper says of the database while it works; what it publishes is in test_outbox.py."""

from typing import Any

import anyio
import pytest

from flow.plumbing.outbox import Outbox
from flow.plumbing.sweeper import Sweeper
from flow.records.database import Database
from tests.broker.queues import until
from tests.plumbing.signature_model import Org
from tests.plumbing.signatures import define, signature, submit

pytestmark = pytest.mark.anyio


class Slow:
    """A broker that confirms nothing for now."""

    def __init__(self) -> None:
        self.asked = anyio.Event()

    async def publish(self, *_: Any, **__: Any) -> None:
        self.asked.set()
        await anyio.sleep_forever()


async def test_the_database_is_there_however_long_the_broker_takes(database: Database) -> None:
    """Links can be answered meanwhile, and whoever watches them sees that."""
    org, slow = Org("acme"), Slow()
    await define(database, org)
    await submit(database, signature(org, "ada@example.org"))
    sweeper = Sweeper(database, Outbox(database, slow))
    before = sweeper.down

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sweeper.run, 3600.0)
        await slow.asked.wait()
        meanwhile = sweeper.down
        tasks.cancel_scope.cancel()

    assert before == "the database was not reached yet"
    assert meanwhile is None


async def test_a_database_that_comes_back_is_seen(tmp_path: Any) -> None:
    """Its file is away, then there."""
    database = Database(f"sqlite:///{tmp_path / 'records.db'}", patience=0.001)
    said: list[str] = []
    sweeper = Sweeper(database, Outbox(database, Slow()), say=said.append)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(sweeper.run, 0.05)
        await until(lambda: bool(said))
        away = sweeper.down
        database._patience = 30.0
        await until(lambda: sweeper.down is None)
        tasks.cancel_scope.cancel()
    await database.close()

    assert away is not None
    assert away.endswith("did not answer in 0.001 seconds")
    assert len(said) == 1
