"""The feeder: everything is in the records once, in waves, and what nobody can read is on the broker."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest

from flow.broker.publisher import Publisher
from flow.demo.broker import plumbed
from flow.demo.cast import Signature
from flow.demo.feeder import Feeder
from flow.demo.organisations import PARTIES
from flow.devbroker.server import DevBroker
from flow.plumbing.submitting import Submitting
from flow.records.database import Database
from flow.records.standings import standings

pytestmark = pytest.mark.anyio


@dataclass
class Field:
    """What a feeder works on."""

    database: Database
    broker: DevBroker
    publisher: Publisher
    met: list[tuple[int, Signature]] = field(default_factory=list)

    def feeder(self, signatures: int, seconds: float, *, forever: bool = False) -> Feeder:
        return Feeder(
            Submitting(self.database),
            self.publisher,
            signatures,
            seconds,
            forever=forever,
            meet=lambda action_id, signature: self.met.append((action_id, signature)),
        )


@asynccontextmanager
async def field_in(folder: Path) -> AsyncIterator[Field]:
    async with Database.opened(f"sqlite:///{folder}/records.db") as database, plumbed() as (broker, url):
        publisher = Publisher(url)
        try:
            yield Field(database, broker, publisher)
        finally:
            await publisher.close()


async def test_a_round_is_submitted(tmp_path: Path) -> None:
    async with field_in(tmp_path) as there:
        feeding = there.feeder(200, 0.5)
        with anyio.fail_after(60):
            await feeding.prepare()
            await feeding.run()

        found = await standings(there.database)

        assert {one.submission for one in found} == {f"demo-{number}" for number in range(1, 201)}
        assert {one.action_id for one in found} == feeding.signatures.keys()
        assert there.met == list(feeding.signatures.items())
        # What was asked for at once: Acme's supporters confirm, Sady's actions are moderated.
        assert {(one.action, one.supporter) for one in found} == {
            ("new", "confirming"),
            ("confirming", "accepted"),
        }
        assert [one.id for one in feeding.poison] == ["poison-1", "poison-2"]
        assert there.broker.lengths()[PARTIES[0].queue] == 2


async def test_what_lost_its_confirm_is_published_again(tmp_path: Path) -> None:
    async with field_in(tmp_path) as there:
        there.broker.faults.drop_connection("publish", 1)
        feeding = there.feeder(100, 0.2)
        with anyio.fail_after(60):
            await feeding.prepare()
            await feeding.run()

        assert [one.id for one in feeding.poison] == ["poison-1"]
        assert there.broker.lengths()[PARTIES[0].queue] >= 1


@pytest.mark.parametrize(("signatures", "seconds", "forever"), [(100, 0.3, True), (50_000, 0.1, False)])
async def test_it_goes_on_until_it_is_stopped(
    tmp_path: Path, signatures: int, seconds: float, forever: bool
) -> None:
    """Also one that is late ends soon: whoever waits for the end of a burst waits for some of them only."""
    async with field_in(tmp_path) as there:
        feeding = there.feeder(signatures, seconds, forever=forever)
        await feeding.prepare()
        with anyio.fail_after(60):
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(feeding.run)
                while len(feeding.signatures) < 150:  # noqa: ASYNC110
                    await anyio.sleep(0.02)
                feeding.stop()

        assert len(await standings(there.database)) == len(feeding.signatures) < 2000
