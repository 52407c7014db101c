"""The rows of the outbox: who holds which, and what is said of those that were not taken."""

import pytest

from flow.records import outbox
from flow.records.database import Database
from tests.records.signatures import after

pytestmark = pytest.mark.anyio


async def three(database: Database) -> list[int]:
    """Put three messages into the outbox and return their ids."""
    async with database.begin() as connection:
        await outbox.put(connection, [outbox.Outgoing("deliver", f"key.{n}", b"{}") for n in range(3)])
    found = await outbox.claim(database, after(0), after(0), 10)
    return [message.id for message in found]


async def ids(database: Database, now: float, *, refused_after: int | None = None) -> list[int]:
    """Claim for ten seconds what may be claimed *now*."""
    found = await outbox.claim(database, after(now), after(now + 10), 10, refused_after=refused_after)
    return [message.id for message in found]


async def test_what_is_held_is_claimed_by_nobody_else_until_its_time_is_over(database: Database) -> None:
    all_three = await three(database)

    assert await ids(database, 1) == all_three
    assert await ids(database, 10.9) == []
    await outbox.release(database, all_three[1:2])
    assert await ids(database, 10.9) == all_three[1:2]
    assert await ids(database, 11) == [all_three[0], all_three[2]]


async def test_what_was_refused_waits_or_is_asked_for_beyond_an_id(database: Database) -> None:
    """So a command can try each once, and ends."""
    first, second, third = await three(database)
    await outbox.refuse(database, {first: "no queue", second: "no queue", third: "too large"}, after(500))

    assert await outbox.refusals(database) == {"no queue": 2, "too large": 1}
    assert await ids(database, 1) == []
    assert await ids(database, 1, refused_after=first) == [second, third]
    assert await ids(database, 501) == [first, second, third]


async def test_what_is_tried_again_is_not_called_refused_meanwhile(database: Database) -> None:
    first, *_ = await three(database)
    await outbox.refuse(database, {first: "no queue"}, after(5))
    before = await outbox.waiting(database)

    await ids(database, 6)

    assert (before, await outbox.waiting(database)) == ((3, 1), (3, 0))
    assert await outbox.refusals(database) == {}


async def test_whoever_confirms_second_notes_nothing(database: Database) -> None:
    all_three = await three(database)

    counts = [await outbox.confirm(database, one, after(7)) for one in (all_three[:2], all_three)]

    assert counts == [2, 1]
    assert await outbox.waiting(database) == (0, 0)
