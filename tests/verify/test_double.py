"""The double over real connections: what it notes, how it answers, and how it fails on purpose."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice, pairwise

import httpx2
import pytest

from flow.verify.double import FINE, Double, plan, shape
from flow.verify.history import Ending, History
from flow.verify.marks import Marks

BODY = b'{"actionId": 7000001}'


@asynccontextmanager
async def running(seed: int) -> AsyncIterator[tuple[Double, History, httpx2.AsyncClient]]:
    history = History({}, [])
    async with (
        Double(history, Marks([BODY]), seed) as double,
        httpx2.AsyncClient(base_url=double.url, trust_env=False, verify=False) as client,
    ):
        yield double, history, client


@pytest.mark.anyio
@pytest.mark.parametrize("seed", range(6))
async def test_each_call_ends_for_the_client_as_it_is_noted(seed: int) -> None:
    async with running(seed) as (_, history, client):
        for _ in range(20):
            try:
                taken = (await client.post("/actions", content=BODY)).is_success
            except httpx2.HTTPError:
                taken = False
            assert taken == (history.calls[-1].ending is Ending.TAKEN)

    endings = [call.ending for call in history.calls]
    assert [call.about for call in history.calls] == [{0}] * 20
    assert Ending.REFUSED in endings[:2]
    assert Ending.TAKEN in endings


@pytest.mark.anyio
async def test_looking_something_up_delivers_nothing_and_never_fails() -> None:
    async with running(1) as (_, history, client):
        answers = [(await client.get("/campaigns", params={"id": "7000001"})).json() for _ in range(9)]

    assert answers == [[{"id": "verify"}]] * 9
    assert (history.calls, history.others) == ([], 9)


@pytest.mark.anyio
async def test_a_list_is_answered_item_by_item_also_when_it_comes_in_chunks() -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'[{"id": "one"}, {"i'
        yield b'd": "two"}]'

    async with running(1) as (_, _, client):
        answer = await client.post("/contacts", content=chunks())

    assert answer.json() == [{"id": "one", "status": "ok"}, {"id": "two", "status": "ok"}]


@pytest.mark.parametrize(
    ("value", "looks"),
    [
        ([{"id": 7, "status": "ok"}, {"id": 8}], '[{"id": number, "status": text}, …]'),
        ({"id": "ada@example.org", "tries": [1.5], "fine": True, "why": None}, None),
        ([], "[]"),
    ],
)
def test_an_answer_is_told_by_its_shape(value: object, looks: str | None) -> None:
    assert shape(value) == (looks or '{"id": text, "tries": [number, …], "fine": true or false, "why": null}')


@pytest.mark.anyio
async def test_what_has_no_id_gets_no_answer_of_its_own_and_fails_nothing() -> None:
    async with running(1) as (_, _, client):
        listed = await client.post("/contacts", json=[{"name": "x"}, "y", {"id": "one"}])
        stored = await client.post("/", json={"Entries": [{"Id": "0"}, {"name": "x"}, "y"]})

    assert listed.json() == [{"id": "one", "status": "ok"}]
    assert [one["Id"] for one in stored.json()["Successful"]] == ["0"]


@pytest.mark.parametrize("seed", range(50))
def test_the_plan_is_repeatable_begins_soon_and_opens_no_breaker(seed: int) -> None:
    faults = list(islice(plan(seed), 100))

    assert faults == list(islice(plan(seed), 100))
    assert {*faults[:2]} != {FINE}
    assert all(FINE in pair for pair in pairwise(faults))
