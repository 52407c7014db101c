"""The stand-in for SQS, as flow's own target talks to it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from flow.demo.sqs_server import KEY, QUEUE, REGION, SECRET, SqsServer
from flow.endpoint import Endpoint
from flow.outcome import Reject, Retry, Unavailable
from flow.targets.sqs import Entry, SqsTarget

pytestmark = pytest.mark.anyio


def entry(number: int, schema: str = "proca:action:2") -> Entry:
    return Entry(
        body=f'{{"schema": "{schema}", "actionId": {number}}}'.encode(), attributes={"Schema": schema}
    )


@asynccontextmanager
async def sqs(
    monkeypatch: pytest.MonkeyPatch, queue: str = QUEUE, key: str = KEY
) -> AsyncIterator[tuple[SqsServer, SqsTarget]]:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    server = SqsServer()
    async with Endpoint(server.application(), "127.0.0.1", 0, options="--", extra="ops") as endpoint:
        target = SqsTarget(endpoint.address + queue, region=REGION, endpoint=endpoint.address)
        async with target:
            yield server, target


async def test_what_is_sent_is_counted_by_schema_and_action(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sqs(monkeypatch) as (server, target):
        verdicts = await target.send([entry(number) for number in range(12)])
        verdicts += await target.send([entry(1), entry(1, "proca:event:2")])

    assert set(verdicts) == {None}
    assert server.stored["proca:action:2", 1] == 2
    assert server.stored["proca:event:2", 1] == 1
    assert server.stored.total() == 14


async def test_one_entry_may_fail_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sqs(monkeypatch) as (server, target):
        server.failing = 1
        verdicts = await target.send([entry(1), entry(2)])

    assert isinstance(verdicts[0], Retry)
    assert verdicts[1] is None
    assert set(server.stored) == {("proca:action:2", 2)}


async def test_what_is_no_message_is_the_fault_of_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    async with sqs(monkeypatch) as (_, target):
        (verdict,) = await target.send([Entry(body=b"[]")])

    assert isinstance(verdict, Reject)


@pytest.mark.parametrize(
    ("queue", "key", "throttled"), [(QUEUE, KEY, True), ("/1/x", KEY, False), (QUEUE, "x", False)]
)
async def test_it_refuses_the_whole_call(
    monkeypatch: pytest.MonkeyPatch, queue: str, key: str, throttled: bool
) -> None:
    async with sqs(monkeypatch, queue, key) as (server, target):
        server.throttled = throttled
        with pytest.raises(Unavailable):
            await target.send([entry(1)])

    assert not server.stored
