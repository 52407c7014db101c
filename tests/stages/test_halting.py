"""What waits to be started: a drain wants an end, the ledger is away, or something is to be noted first."""

from collections.abc import Collection

import pytest

from flow.batching import Batching
from flow.errors import LedgerError
from flow.ratelimit import RateLimit
from tests.stages.conftest import Start
from tests.stages.test_claims import Mail, Single, begun, faulty
from tests.stages.test_suspects import Numbers, delivery, received

pytestmark = pytest.mark.anyio


class Batches(Mail):
    """One call for each number, and one number in a hundred seconds."""

    queue = "numbers"
    batching = Batching(size=1, concurrency=4)
    claim = None
    rate_limit = RateLimit(calls=1, per=100.0)


class Singles(Single):
    """The same without batches."""

    queue = "numbers"
    claim = None
    rate_limit = RateLimit(calls=1, per=100.0)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Batches, Singles])
async def test_a_drain_gives_back_what_waits_for_the_rate_limit_and_waits_for_nobody(
    start: Start, kind: type[Mail]
) -> None:
    line = await start(kind)
    await line.push(1, 2, 3)

    hung = await line.engine.drain(1.0)

    assert hung == 0
    assert (line.acked, sorted(line.released)) == ([1], [2, 3])
    assert line.account == {"received": 3, "delivered": 1, "returned": 2}


@pytest.mark.parametrize("kind", [Mail, Single])
async def test_nothing_starts_while_what_became_of_it_could_not_be_noted(
    start: Start, kind: type[Mail]
) -> None:
    """Not only claims wait for the ledger."""
    line = await begun(start, type("Plain", (kind,), {"queue": "numbers", "claim": None}))
    pipeline, ledger = line.engine.pipeline, faulty(line)
    assert isinstance(pipeline, Mail)
    ledger.fails = "before"
    await line.push(1)
    await line.advance(0.3)
    first = list(pipeline.sent)

    await line.push(2, 3, 4)  # as many as a batch holds
    await line.advance(0.3)
    halted = list(pipeline.sent)
    ledger.fails = ""
    for _ in range(3):
        await line.advance(30.0)

    assert (first, halted, pipeline.sent) == ([1], [1], [1, 2, 3, 4])
    assert line.acked == [1, 2, 3, 4]


class Journal:
    """Keeps in memory what is to be noted, unless it is away."""

    def __init__(self) -> None:
        self.away = False
        self.over: list[set[object]] = []

    async def started(self, identity: object) -> int:
        return 0

    async def ended(self, identities: Collection[object]) -> None:
        if self.away:
            raise LedgerError("it is away")
        self.over.append(set(identities))


async def test_the_end_of_a_suspect_is_noted_once(start: Start) -> None:
    """A second note could come after the next start of the same message, and hide a crash."""
    journal = Journal()
    line = await start(Numbers, journal=journal)
    suspects = [delivery(line.origin, n, 3) for n in (1, 2, 3)]
    journal.away = True
    await received(line, suspects[0])
    journal.away = False

    for message in suspects[1:]:
        await received(line, message)

    assert line.acked == [1, 2, 3]
    assert journal.over == [{message.identity()} for message in suspects]
