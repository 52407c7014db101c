"""Tests of the pipeline in signatures.py; no broker is needed, and no test waits."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from signatures import Signatures

from flow import Batch, Reject, Retries, Unavailable
from flow.testing import Outcome, Trigger, action, message, run_messages

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # the database is made in the current folder


async def test_signatures_are_stored_and_tests_are_skipped() -> None:
    results = await run_messages(Signatures(), [action(id=7, country="AT"), action(testing=True)])

    assert [result.outcome for result in results] == [Outcome.DELIVERED, Outcome.SKIPPED]
    assert results[1].reason == "a test action"
    with closing(sqlite3.connect("signatures.db")) as database:
        stored = database.execute("select id, campaign, country from signed").fetchall()
    assert stored == [(7, "clean_water", "AT")]


async def test_a_signature_that_comes_again_is_stored_once() -> None:
    await run_messages(Signatures(), [action(id=7), action(id=7)])

    with closing(sqlite3.connect("signatures.db")) as database:
        assert database.execute("select count(*) from signed").fetchall() == [(1,)]


async def test_campaigns_are_batched_apart() -> None:
    bodies = [action(campaign="rivers"), action(campaign="lakes"), action(campaign="rivers")]

    first, second, third = await run_messages(Signatures(), bodies)

    assert first.batch
    assert second.batch
    assert first.batch is third.batch
    assert (first.batch.key, first.batch.size, first.batch.trigger) == ("rivers", 2, Trigger.TIMEOUT)
    assert second.batch.key == "lakes"


async def test_what_cannot_be_read_is_parked() -> None:
    results = await run_messages(Signatures(), [b"not JSON", {"schema": "proca:action:2"}, "{}"])

    assert {result.outcome for result in results} == {Outcome.PARKED}
    assert results[1].reason == "actionId is missing"


class Failing(Signatures):
    """Fails three times, then works."""

    retries = Retries(attempts=4)
    calls = 0

    def handle_batch(self, batch: Batch[Any]) -> None:
        self.calls += 1
        if self.calls <= 3:
            raise OSError("disk full")
        super().handle_batch(batch)


async def test_a_failure_is_tried_again() -> None:
    [result] = await run_messages(Failing(), [action()])

    assert result.outcome is Outcome.RETRYING
    assert isinstance(result.error, OSError)


async def test_the_last_attempt_parks() -> None:
    [result] = await run_messages(Failing(), [message(action(), attempt=4)])

    assert result.outcome is Outcome.PARKED
    assert result.reason.startswith("gave up after 4 attempts: OSError")


async def test_the_fourth_attempt_delivers() -> None:
    [result] = await run_messages(Failing(), [action()], follow_retries=True)

    assert result.outcome is Outcome.DELIVERED


class Down(Signatures):
    """The target is down for a minute; it refuses what is too old."""

    calls = 0

    def handle_batch(self, batch: Batch[Any]) -> None:
        self.calls += 1
        if self.calls == 1:
            raise Unavailable("maintenance", after=60.0)
        batch.reject(batch[0], "too old")


async def test_an_outage_costs_no_attempt_and_marks_are_for_one() -> None:
    pipeline = Down()

    results = await run_messages(pipeline, [action(), action(), action()])

    assert isinstance(results[0].error, Reject)
    assert pipeline.calls == 3  # the outage, one message as the probe, the other two
    assert [result.outcome.value for result in results] == ["parked", "parked", "delivered"]
