"""Claims and the rate limit before the delivering callback: tokens are for what is delivered only."""

import itertools
from collections.abc import Hashable
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.claim import MARGIN, Claim, Hold
from flow.message import Message
from flow.outcome import Unavailable
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries
from tests.stages.conftest import Line, Number, Start, quiet
from tests.stages.faulty import FaultyLedger
from tests.stages.test_claims import Anything, of

pytestmark = pytest.mark.anyio

PIPELINE, HERE, DEAD = "numbers", "another worker", "a worker that was killed"


class Mail(Pipeline[Number, int]):
    """Keeps the batches it was given, with the time, in `batches`."""

    queue = "numbers"
    concurrency = 1
    batching = Batching(size=3, timeout=0.5)
    batch_timeout = 60.0
    claim = Claim(key=of, unknown="park")
    rate_limit = RateLimit(messages=3, per=3.0)

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.batches: list[list[int]] = []

    async def handle_message(self, message: Message[Number]) -> int:
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        for message in batch:
            async with batch.sending(message):
                pass
        self.batches.append(batch.bodies)


class Single(Mail):
    """The same without batches."""

    queue = "numbers"
    batching = None
    handler_timeout = 60.0

    async def handle_message(self, message: Message[Number]) -> int:
        self.batches.append([message.body.n])
        return message.body.n

    handle_batch = Pipeline.handle_batch  # type: ignore[assignment]


class Books:
    """A line with a ledger, of which another worker shares the claims."""

    def __init__(self, line: Line) -> None:
        self.line = line
        books = line.engine.books
        assert books is not None
        assert isinstance(books.commit.ledger, FaultyLedger)
        self.ledger = books.commit.ledger
        self.ledger.identities = Anything()

    @property
    def delivered(self) -> list[int]:
        return [n for batch in self.line.engine.pipeline.batches for n in batch]

    async def hold(self, *numbers: int, seconds: float, holder: str = DEAD) -> list[Hold]:
        """Claim *numbers* for another worker, as far as it can have them."""
        keys = [str(n) for n in numbers]
        found = await self.ledger.take(self.line.metrics.pipeline, keys, holder, seconds, "park")
        return [found[key].hold for key in keys]

    async def free(self, *numbers: int, holder: str = DEAD) -> None:
        await self.ledger.free(self.line.metrics.pipeline, [str(n) for n in numbers], holder)

    async def until(self, reached: Any, seconds: float, step: float = 0.25) -> float:
        """Let time pass until *reached* or *seconds* are over; return how many seconds did."""
        passed = 0.0
        while not reached() and passed < seconds:
            await self.line.advance(step)
            passed += step
        return passed

    async def follows(self, taken: bool) -> None:
        """Let the next token go to 4, or to 5 when 4 was *taken* by another worker; see that it does."""
        await self.line.advance(1000.0)
        delivered = list(self.delivered)
        await self.line.push(5)
        await self.until(lambda: len(self.delivered) > len(delivered), 2000.0, step=5.0)
        assert delivered == [1, 2, 3] + [4] * (not taken)
        assert self.delivered == [*delivered, 5]
        assert not self.line.rejected

    def late(self, *numbers: int) -> tuple[anyio.Event, list[int]]:
        """Keep back the answers about claims of *numbers*, or all, until the event that is returned.

        The list gets how many claims are asked for each time.
        """
        answer, take, asked = anyio.Event(), self.ledger.take, list[int]()
        late = {str(n) for n in numbers}

        async def taking(pipeline: str, keys: Any, *args: Any) -> Any:
            asked.append(len(keys))
            if not late or late.intersection(keys):
                await answer.wait()
            return await take(pipeline, keys, *args)

        self.ledger.take = taking  # type: ignore[method-assign]
        return answer, asked


async def begun(start: Start, kind: type[Mail], prefetch: int = 1000, **options: Any) -> Books:
    made = type(kind.__name__, (kind,), {"queue": "numbers", **options})
    return Books(await start(made, prefetch, ledger=True))


@pytest.fixture(params=[Mail, Single])
def kind(request: pytest.FixtureRequest) -> type[Mail]:
    """Each kind of delivering callback."""
    found: type[Mail] = request.param
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("held", "rate"), [(500, 100), (300, 20)])
async def test_what_a_killed_worker_had_claimed_is_delivered_as_fast_as_the_limit_allows(
    start: Start, kind: type[Mail], held: int, rate: int
) -> None:
    """When its claims have ended, and a little later; new messages do not wait for that."""
    seconds = 300.0 + MARGIN
    options: dict[str, Any] = {"rate_limit": RateLimit(messages=rate, per=1.0), "concurrency": 10}
    options |= {"handler_timeout": 300.0, "batch_timeout": 300.0}
    if kind is Mail:
        options["batching"] = Batching(size=50, timeout=1.0)
    books = await begun(start, kind, **options)
    await books.hold(*range(held), seconds=seconds)

    await books.line.push(*range(held))
    await books.line.push(*range(held, held + 50))
    live = await books.until(lambda: len(books.delivered) == 50, 60.0)
    passed = live + await books.until(lambda: len(books.delivered) == held + 50, 600.0)

    assert live <= 50 / rate + 2.0
    assert passed <= seconds + held / rate + 3.0
    assert sorted(books.delivered) == list(range(held + 50))
    assert books.line.account == {"received": held + 50, "delivered": held + 50}


async def test_what_is_held_elsewhere_costs_no_tokens(start: Start, kind: type[Mail]) -> None:
    books = await begun(start, kind)
    await books.hold(1, 2, 3, seconds=20.0, holder=HERE)

    await books.line.push(1, 2, 3)
    await books.line.advance(1.0)
    await books.line.push(4, 5, 6)
    await books.line.advance(0.5)

    assert sorted(books.delivered) == [4, 5, 6]


async def test_what_was_done_before_costs_no_tokens(start: Start, kind: type[Mail]) -> None:
    books = await begun(start, kind, rate_limit=RateLimit(messages=3, per=30.0))
    await books.line.push(1, 2, 3)
    await books.line.advance(1.0)

    await books.line.push(1, 2, 3)
    await books.line.push(4, 5, 6)
    for _ in range(30):
        await books.line.advance(1.0)

    assert sorted(books.delivered) == [1, 2, 3, 4, 5, 6]
    assert books.line.account == {"received": 9, "delivered": 6, "skipped": 3}


async def test_what_comes_back_is_batched(start: Start) -> None:
    books = await begun(start, Mail, rate_limit=None, batching=Batching(size=4, timeout=0.5))
    await books.hold(*range(10), seconds=60.0)
    await books.line.push(*range(10))

    await books.until(lambda: len(books.delivered) == 10, 70.0)

    assert [len(batch) for batch in books.line.engine.pipeline.batches] == [4, 4, 2]


async def test_what_comes_back_keeps_the_limits_of_batches(start: Start) -> None:
    batching = Batching(size=10, timeout=0.5, weight=lambda message: message.body, max_weight=6)
    books = await begun(start, Mail, rate_limit=None, batching=batching)
    await books.hold(1, 2, 3, 4, seconds=1.0)

    await books.line.push(1, 2, 3, 4)
    await books.until(lambda: len(books.delivered) == 4, 10.0)

    assert books.line.engine.pipeline.batches == [[1, 2, 3], [4]]


async def test_what_comes_back_and_cannot_be_weighed_any_more_goes_alone(start: Start) -> None:
    weights = iter([1, 1, 1])
    batching = Batching(size=10, timeout=0.5, weight=lambda message: next(weights), max_weight=6)
    books = await begun(start, Mail, rate_limit=None, batching=batching)
    await books.hold(1, 2, seconds=1.0)

    await books.line.push(1, 2)
    await books.until(lambda: len(books.delivered) == 2, 10.0)

    assert books.line.engine.pipeline.batches == [[1], [2]]


async def test_what_was_alone_comes_back_alone(start: Start) -> None:
    books = await begun(start, Mail, rate_limit=None, retries=Retries(attempts=2))
    await books.hold(1, 2, seconds=1.0)
    await books.line.push(1, 2, attempt=2)

    await books.until(lambda: len(books.delivered) == 2, 10.0)

    assert books.line.engine.pipeline.batches == [[1], [2]]


async def test_a_claim_is_not_looked_at_all_the_time(start: Start, kind: type[Mail]) -> None:
    """A claim that is old is most likely a dead worker's; but another half a minute is long enough."""
    books = await begun(start, kind, handler_timeout=300.0, batch_timeout=300.0)
    looks, take = [], books.ledger.take
    await books.hold(1, seconds=300.0 + MARGIN)

    async def noted(*args: Any) -> Any:
        looks.append(books.line.clock.now())
        return await take(*args)

    books.ledger.take = noted  # type: ignore[method-assign]
    await books.line.push(1)
    await books.until(lambda: False, 300.0 + MARGIN - 1.0)

    pauses = [after - before for before, after in itertools.pairwise(looks)]
    assert min(pauses) >= 5.0
    assert 29.0 <= max(pauses) <= 31.0
    assert len(looks) < 30


@pytest.mark.parametrize("taken", [False, True])
async def test_a_claim_that_ended_while_its_message_waited_is_taken_again(start: Start, taken: bool) -> None:
    """And when somebody else has it by then, the message is left to them, and no token is spent for it."""
    books = await begun(start, Single, rate_limit=RateLimit(messages=3, per=3000.0))
    await books.line.push(1, 2, 3)
    await books.line.advance(1.0)
    await books.line.push(4)
    await books.line.advance(1.0)
    assert await books.hold(4, seconds=1.0) == [Hold.ELSEWHERE]

    await books.line.advance(60.0 + MARGIN)
    if taken:
        assert await books.hold(4, seconds=3600.0, holder=HERE) == [Hold.OURS]
    await books.follows(taken)


@pytest.mark.parametrize("taken", [False, True])
async def test_a_batch_is_claimed_when_the_limit_lets_it_go(start: Start, taken: bool) -> None:
    """While it waits another worker may have what is in it; then no token is spent for that."""
    books = await begun(start, Mail, rate_limit=RateLimit(messages=3, per=3000.0))
    await books.line.push(1, 2, 3)
    await books.line.advance(1.0)
    await books.line.push(4)
    await books.line.advance(1.0)
    assert await books.hold(4, seconds=3600.0, holder=HERE) == [Hold.OURS]
    if not taken:
        await books.free(4, holder=HERE)

    await books.follows(taken)


async def test_a_call_begins_with_time_left_on_its_claim(start: Start, kind: type[Mail]) -> None:
    """Enough for the longest callback, however long the limit made it wait."""
    books = await begun(start, kind, rate_limit=RateLimit(messages=1, per=100.0))
    left: list[float] = []
    begin = books.ledger.begin

    async def looking(pipeline: str, key: str, *args: Any) -> bool:
        left.append(books.ledger._claims[pipeline, key].until - books.line.clock.now())
        return await begin(pipeline, key, *args)

    books.ledger.begin = looking  # type: ignore[method-assign]
    for n in range(5):
        await books.line.push(n)
        await books.line.advance(35.0)
    await books.until(lambda: len(books.delivered) == 5, 1000.0, step=5.0)

    assert len(left) == 5
    assert min(left) >= 60.0


async def test_of_two_workers_one_delivers_however_long_the_limit_holds_it_up(
    start: Start, kind: type[Mail]
) -> None:
    """A wait is longer than a claim: the other worker delivers then, and the first one learns it."""
    first = await begun(start, kind, rate_limit=RateLimit(messages=1, per=300.0))
    second = Books(await start(type(first.line.engine.pipeline), ledger=first.ledger))
    await first.line.push(1)
    await first.line.advance(1.0)
    await first.line.push(2)
    await first.line.advance(1.0)

    await second.line.push(2)
    for _ in range(340):
        await first.line.advance(1.0)
        await second.line.advance(1.0)

    assert (first.delivered, second.delivered) == ([1], [2])
    assert first.line.account == {"received": 2, "delivered": 1, "skipped": 1}


async def test_a_batch_pays_for_what_is_left_of_it(start: Start) -> None:
    books = await begun(start, Mail, rate_limit=RateLimit(messages=4, per=4000.0))
    await books.hold(1, 2, seconds=9000.0, holder=HERE)

    await books.line.push(1, 2, 3)
    await books.line.push(4, 5, 6)
    await books.line.advance(0.5)

    assert books.delivered == [3, 4, 5, 6]


async def test_a_session_that_ends_gives_up_claims_and_pays_nothing(start: Start) -> None:
    books = await begun(start, Mail, rate_limit=RateLimit(messages=3, per=30.0))
    await books.line.push(1, 2, 3)
    await books.line.push(4, 5, 6)
    await books.line.advance(1.0)

    books.line.lose()
    await books.line.push(7)
    await books.line.advance(10.0)

    assert books.delivered == [1, 2, 3, 7]
    assert await books.hold(4, 5, 6, seconds=1.0) == [Hold.OURS] * 3


async def test_a_target_that_went_down_meanwhile_costs_no_tokens(start: Start, kind: type[Mail]) -> None:
    """What waits for the limit while another call finds out goes back into its line, and pays later."""
    gate, calls = anyio.Event(), []

    async def deliver(self: Any, *args: Any) -> int:
        calls.append(books.line.clock.now())
        if len(calls) == 1:
            await gate.wait()
            raise Unavailable("away", after=50.0)
        return 0

    name = "handle_batch" if kind is Mail else "handle_message"
    options: dict[str, Any] = {name: deliver, "concurrency": 2, "rate_limit": RateLimit(messages=1, per=20.0)}
    if kind is Mail:
        options["batching"] = Batching(size=1, concurrency=2)
    books = await begun(start, kind, **options)
    await books.line.push(1, 2)
    gate.set()
    await quiet()
    for _ in range(80):
        await books.line.advance(1.0)

    assert [round(moment - calls[0]) for moment in calls[:3]] == [0, 50, 70]


class Away(Mail):
    """Its first call ends with a target that is away for 5 seconds, when `gate` is opened."""

    queue = "numbers"

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.gate = anyio.Event()

    async def handle_batch(self, batch: Batch[int]) -> None:
        self.batches.append(batch.bodies)
        if len(self.batches) == 1:
            await self.gate.wait()
            raise Unavailable("away", after=5.0)


async def test_a_probe_waits_for_the_tokens_of_one_message_only(start: Start) -> None:
    books = await begun(start, Away, rate_limit=RateLimit(messages=3, per=30.0))
    await books.line.push(1, 2, 3)
    await books.line.push(4, 5, 6)
    books.line.engine.pipeline.gate.set()
    await quiet()
    for _ in range(11):
        await books.line.advance(1.0)

    assert books.line.engine.pipeline.batches == [[1, 2, 3], [1]]


async def test_a_probe_is_one_message_although_its_claims_took_long(start: Start) -> None:
    """The batch was taken while all was well."""
    books = await begun(start, Away, rate_limit=None)
    await books.line.push(1, 2, 3)
    answer, _ = books.late()
    await books.line.push(4, 5, 6)
    books.line.engine.pipeline.gate.set()
    await quiet()
    await books.line.advance(6.0)
    answer.set()
    await quiet()

    assert [len(batch) for batch in books.line.engine.pipeline.batches[:2]] == [3, 1]


async def test_a_drain_gives_back_what_waits_for_the_limit_and_its_claims(
    start: Start, kind: type[Mail]
) -> None:
    books = await begun(start, kind, rate_limit=RateLimit(messages=1, per=3000.0))
    await books.line.push(1)
    await books.line.advance(1.0)
    await books.line.push(2, 3)
    await books.line.advance(1.0)

    with anyio.fail_after(10):
        await books.line.engine.drain(0.5)

    assert sorted(books.line.released) == [2, 3]
    assert await books.hold(2, 3, seconds=1.0) == [Hold.OURS] * 2
    assert books.line.account == {"received": 3, "delivered": 1, "returned": 2}


async def test_a_drain_gives_back_what_is_held_elsewhere(start: Start, kind: type[Mail]) -> None:
    books = await begun(start, kind)
    await books.hold(1, 2, seconds=3000.0)
    await books.line.push(1, 2, 3)
    await books.line.advance(1.0)

    with anyio.fail_after(10):
        await books.line.engine.drain(5.0)

    assert sorted(books.line.released) == [1, 2]
    assert books.line.account == {"received": 3, "delivered": 1, "returned": 2}
    await books.line.advance(4000.0)
    assert books.delivered == [3]


async def test_a_drain_gives_back_at_once_what_is_held_elsewhere(start: Start) -> None:
    """It does not wait for the batches that are being delivered."""
    gate = anyio.Event()

    async def waiting(self: Any, batch: Batch[int]) -> None:
        await gate.wait()

    books = await begun(start, Mail, handle_batch=waiting)
    await books.hold(1, seconds=3000.0)
    await books.line.push(1, 2, 3)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(books.line.engine.drain, 20.0)
        await quiet()
        released = list(books.line.released)
        gate.set()

    assert released == [1]
    assert books.line.account == {"received": 3, "delivered": 2, "returned": 1}


@pytest.mark.parametrize("pause", [0.5, 1.0])
async def test_a_large_batch_is_not_overtaken_by_small_ones_for_ever(start: Start, pause: float) -> None:
    """The limit serves in the order of coming: what saves up for more is not outbid."""

    def key(self: Any, message: Message[int]) -> Hashable:
        return message.body >= 100

    books = await begun(
        start,
        Mail,
        batch_key=key,
        claim=None,
        batching=Batching(size=10, timeout=0.1, concurrency=2),
        rate_limit=RateLimit(messages=10, per=10.0),
        handle_batch=noted,
    )
    await books.line.push(*range(10))
    await books.line.push(*range(10, 20))
    for n in range(100, 160):
        await books.line.push(n)
        await books.line.advance(pause)

    assert set(range(20)) <= set(books.delivered)


async def test_a_large_batch_is_not_overtaken_by_small_ones_of_another_batcher(start: Start) -> None:
    """They share the limit of the pipeline."""
    books = await begun(
        start,
        Mail,
        claim=None,
        batcher=lambda self, message: "small" if message.body >= 100 else "large",
        batching={"large": Batching(size=10, timeout=0.1), "small": Batching(size=1)},
        rate_limit=RateLimit(messages=10, per=10.0),
        handle_batch=noted,
    )
    await books.line.push(*range(10))
    await books.line.push(*range(10, 20))
    for n in range(100, 160):
        await books.line.push(n)
        await books.line.advance(0.5)

    assert set(range(20)) <= set(books.delivered)
    assert len(books.delivered) >= 20 + 18  # and the limit is made use of


async def test_batches_that_are_claimed_at_once_keep_the_limit(start: Start) -> None:
    """What one of them is going to take is there for no other one, which would hold a slot meanwhile."""
    books = await begun(
        start,
        Mail,
        batching=Batching(size=3, concurrency=4),
        batch_key=lambda self, message: message.body // 10,
        rate_limit=RateLimit(messages=6, per=6.0),
    )
    answer, asked = books.late()
    await books.line.push(1, 2, 3, 11, 12, 13, 21, 22, 23)
    before = list(asked)
    answer.set()
    await quiet()

    assert before == [3, 3]
    assert sorted(books.delivered) == [1, 2, 3, 11, 12, 13]
    await books.line.advance(3.0)
    assert sorted(books.delivered) == [1, 2, 3, 11, 12, 13, 21, 22, 23]


async def test_what_one_batch_needs_no_more_is_for_the_next_at_once(start: Start) -> None:
    """Also for one of another batcher."""
    books = await begun(
        start,
        Mail,
        batcher=lambda self, message: "b" if message.body >= 10 else "a",
        batching={"a": Batching(size=3), "b": Batching(size=3)},
    )
    await books.hold(1, 2, 3, seconds=20.0, holder=HERE)
    answer, _ = books.late(1)
    await books.line.push(1, 2, 3)
    await books.line.push(11, 12, 13)
    before = list(books.delivered)
    answer.set()
    await quiet()

    assert (before, books.delivered) == ([], [11, 12, 13])


async def test_a_limit_whose_key_fails_decides_the_batch(start: Start) -> None:
    limit = RateLimit(messages=3, key=lambda message: 1 // (message.body - 2))
    books = await begun(start, Mail, rate_limit=limit, batching=Batching(size=1))

    await books.line.push(1, 2, 3)

    assert sorted(books.delivered) == [1, 3]
    assert books.line.rejected == [2]


async def test_what_is_claimed_may_leave_a_batch_with_another_limit(start: Start) -> None:
    """It goes back into its line and waits there, claimed, without a slot."""
    limit = RateLimit(messages=2, per=10.0, key=lambda message: message.body % 2)
    books = await begun(start, Mail, rate_limit=limit, batching=Batching(size=2, concurrency=1))
    await books.line.push(3, 5)
    await books.hold(2, seconds=100.0, holder=HERE)

    await books.line.push(2, 7)
    await books.line.push(4, 6)
    meanwhile, claimed = list(books.delivered), await books.hold(7, seconds=1.0)
    await books.until(lambda: 7 in books.delivered, 20.0)

    assert (meanwhile, claimed) == ([3, 5], [Hold.ELSEWHERE])
    assert books.delivered == [3, 5, 7, 4, 6]


async def noted(self: Any, batch: Batch[int]) -> None:
    self.batches.append(batch.bodies)


async def test_nothing_starts_when_the_ledger_went_away_while_the_limit_was_waited_for(
    start: Start, kind: type[Mail]
) -> None:
    name = "handle_batch" if kind is Mail else "handle_message"
    claims = {"claim": None, name: noted} if kind is Mail else {"claim": None}
    books = await begun(start, kind, **claims, rate_limit=RateLimit(messages=1, per=10.0))
    await books.line.push(1)
    await books.line.advance(1.0)
    await books.line.push(2)
    await books.line.advance(1.0)
    books.ledger.fails = "before"
    await books.line.push(9, redelivered=True)  # the ledger is asked about it
    assert books.line.engine.books is not None
    assert books.line.engine.books.fault

    await books.line.advance(20.0)
    before = list(books.delivered)
    books.ledger.fails = ""
    await books.until(lambda: len(books.delivered) == 3, 100.0)

    assert before == [1]
    assert sorted(books.delivered) == [1, 2, 9]


class Paced(Mail):
    """Delivers pages of hundred numbers in the pace of their sender, who has ten pages: five a second."""

    queue = "numbers"
    clock: Any = None
    batching = Batching(size=50, timeout=0.1, concurrency=2)
    rate_limit = RateLimit(messages=5, per=1.0, key=lambda message: message.body // 1000)

    def batch_key(self, message: Message[int]) -> Hashable:
        return message.body // 100

    async def handle_batch(self, batch: Batch[int]) -> None:
        for message in batch:
            async with batch.sending(message):
                self.batches.append([message.body])
            over = anyio.Event()
            self.clock.call_at(self.clock.now() + 0.2, over.set)
            await over.wait()


BUSY = [page * 100 + n for page in range(3) for n in range(20)]


@pytest.mark.parametrize("claimed", [True, False])
async def test_a_batch_that_waits_for_its_limit_costs_no_slot(start: Start, claimed: bool) -> None:
    """Three pages of a busy sender, and two slots: the mails of another sender do not wait for them."""
    books = await begun(start, Paced, **({} if claimed else {"claim": None}))
    pipeline: Any = books.line.engine.pipeline
    pipeline.clock = books.line.clock
    await books.line.push(*BUSY)
    await books.line.advance(0.1)
    await books.line.advance(0.5)

    await books.line.push(1000, 1001, 1002)
    other = await books.until(lambda: {1000, 1001, 1002} <= set(books.delivered), 20.0, step=0.1)
    rest = await books.until(lambda: len(books.delivered) == 63, 20.0, step=0.1)
    await books.line.advance(1.0)

    assert other <= 1.0
    assert 10.0 <= other + rest <= 13.0
    for page in (0, 1, 2, 10):
        mails = [n for n in books.delivered if n // 100 == page]
        assert mails == sorted(mails)
    assert books.line.account == {"received": 63, "delivered": 63}
