"""Tests of the pipeline in signatures.py on a broker in memory, with faults on purpose."""

import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

import pytest
from signatures import Signatures

from flow import Batch, Batching
from flow.devbroker.server import DevBroker
from flow.plumbing import Plumbing
from flow.schema import ActionMessage
from flow.testing import action, running, until

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the database is made in the current folder


@pytest.fixture
async def plumbing(devbroker: DevBroker) -> AsyncIterator[Plumbing]:
    async with Plumbing(devbroker.url()) as plumbing:
        await plumbing.set_up_global_queues()  # the exchanges, the retry loop, the park
        await plumbing.set_up_organisations({"acme": ["crm"]})
        yield plumbing


class Soon(Signatures):
    batching = Batching(size=100, timeout=0.05)  # time is real here


def stored() -> list[int]:
    with closing(sqlite3.connect("signatures.db")) as database:
        return [number for (number,) in database.execute("select id from signed")]


async def test_a_connection_that_breaks_loses_nothing(devbroker: DevBroker, plumbing: Plumbing) -> None:
    devbroker.faults.drop_connection("before ack", 1)

    async with running(Soon(), devbroker.url()) as runner:
        await plumbing.push("deliver", "acme.system.action", action(id=7))
        await until(lambda: runner.account.delivered == 2)  # with its acknowledgement lost, it came again

    assert devbroker.faults.struck == ["connection dropped before an ack"]
    assert stored() == [7]
    assert devbroker.lengths()["acme.crm"] == 0


class FailingOnce(Soon):
    queue = "acme.signed"
    dead_letter = "assume"  # the test made its retry loop
    failed = False

    def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        if not self.failed:
            self.failed = True
            raise OSError("the disk is full")
        super().handle_batch(batch)


async def test_what_failed_comes_back_after_the_retry_delay(devbroker: DevBroker, plumbing: Plumbing) -> None:
    await plumbing.set_up_queue("acme.signed", ["deliver:acme.*.*"])

    async with running(FailingOnce(), devbroker.url()) as runner:
        await plumbing.push("deliver", "acme.system.action", action(id=8))
        await until(lambda: devbroker.lengths()["system.retry"] == 1)
        devbroker.clock.advance(30)  # the retry delay passes at once
        await until(lambda: runner.account.delivered == 1)

    assert stored() == [8]
    assert devbroker.lengths()["acme.crm"] == 1  # bound as well, and nobody consumes it here
