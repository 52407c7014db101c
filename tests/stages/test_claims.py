"""Claims around the delivering callback, and a ledger that does not work."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.claim import Claim, Hold
from flow.errors import ConfigError, LedgerError
from flow.message import Message
from flow.outcome import Outcome, Reject, Retry, Skip, Unavailable
from flow.pipeline import Pipeline
from flow.ratelimit import RateLimit
from flow.retries import Retries
from flow.testing import run_messages
from tests.stages.conftest import Line, Number, Start, quiet
from tests.stages.faulty import FaultyLedger

pytestmark = pytest.mark.anyio

MINUTES = 1000.0  # seconds


def of(n: Message[Any]) -> str:
    return str(n.body if isinstance(n.body, int) else n.body.n)


class Mail(Pipeline[Number, int]):
    """Sends each number, and does first what is ordered for it."""

    queue = "numbers"
    batching = Batching(size=3, timeout=0.2)
    retries = Retries(attempts=3)
    claim = Claim(key=of, unknown="park")
    orders: ClassVar[dict[int, Callable[[], BaseException]]] = {}

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.sent: list[int] = []

    async def handle_message(self, message: Message[Number]) -> int:
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        for one in batch:
            async with batch.sending(one):
                if one.body in self.orders:
                    raise self.orders[one.body]()
                self.sent.append(one.body)


class Single(Mail):
    """The same without batches."""

    queue = "numbers"
    batching = None

    async def handle_message(self, message: Message[Number]) -> int:
        if message.body.n in self.orders:
            raise self.orders[message.body.n]()
        self.sent.append(message.body.n)
        return message.body.n

    handle_batch = Pipeline.handle_batch  # type: ignore[assignment]


@pytest.fixture(params=[Mail, Single])
def kind(request: pytest.FixtureRequest) -> type[Mail]:
    """Each kind of delivering callback."""
    return type(request.param.__name__, (request.param,), {"queue": "numbers", "orders": {}})


async def test_copies_are_skipped_whatever_the_broker_says_of_them(kind: type[Mail]) -> None:
    pipeline = kind()

    results = await run_messages(pipeline, [{"n": n} for n in (1, 2, 1, 3, 1, 2)])

    assert sorted(pipeline.sent) == [1, 2, 3]
    assert sorted(result.outcome.value for result in results) == ["delivered"] * 3 + ["skipped"] * 3
    assert {one.reason for one in results if one.outcome is Outcome.SKIPPED} == {
        "a duplicate: it was done before"
    }


async def test_an_error_in_the_middle_of_an_effect_is_an_unknown_outcome(kind: type[Mail]) -> None:
    pipeline = kind()
    pipeline.orders[2] = lambda: ValueError("secret")

    results = await run_messages(pipeline, [{"n": 1}, {"n": 2}, {"n": 2}])

    assert [one.outcome for one in results] == [Outcome.DELIVERED, Outcome.PARKED, Outcome.PARKED]
    assert all(one.reason.startswith("outcome unknown") for one in results[1:])
    assert "secret" not in results[1].reason


@pytest.mark.parametrize("verdict", [lambda: Retry("busy", after=1.0), lambda: Retry("busy")])
async def test_a_verdict_says_that_the_effect_did_not_happen(kind: type[Mail], verdict: Any) -> None:
    pipeline = kind()
    pipeline.orders[1] = verdict

    results = await run_messages(pipeline, [{"n": 1}], follow_retries=True)

    assert [(one.outcome, one.reason) for one in results] == [
        (Outcome.PARKED, "gave up after 3 attempts: busy")
    ]


async def test_with_again_what_is_unknown_is_tried_again(kind: type[Mail]) -> None:
    again = type("Again", (kind,), {"queue": "numbers", "claim": Claim(key=of, unknown="again")})
    pipeline, tries = again(), iter([True])

    def once() -> BaseException:
        pipeline.orders.clear()
        return ValueError("once")

    pipeline.orders[1] = once

    results = await run_messages(pipeline, [{"n": 1}], follow_retries=True)

    assert (results[0].outcome, pipeline.sent) == (Outcome.DELIVERED, [1])
    assert next(tries)


async def test_what_was_sent_is_delivered_whatever_is_raised_after_it() -> None:
    class Broken(Mail):
        queue = "numbers"

        async def handle_batch(self, batch: Batch[int]) -> None:
            async with batch.sending(batch[0]):
                self.sent.append(batch[0].body)
            with pytest.raises(ValueError, match="is delivered already"):
                batch.retry(batch[0], "no")
            raise Reject("the rest is wrong")

    results = await run_messages(Broken(), [{"n": n} for n in (1, 2, 3)])

    assert [one.outcome for one in results] == [Outcome.DELIVERED, Outcome.PARKED, Outcome.PARKED]


async def test_a_key_that_is_none_is_told() -> None:
    wrong = type("Wrong", (Mail,), {"queue": "numbers", "claim": Claim(key=lambda _: 7, unknown="park")})

    results = await run_messages(wrong(), [{"n": 1}])

    assert results[0].reason == "Claim.key must return a str, got int"


@pytest.mark.parametrize("wrong", ["", "x" * 256, "a\0b", "a\ud800b"])
async def test_a_key_that_cannot_be_kept_spoils_no_other(wrong: str) -> None:
    claim = Claim(key=lambda message: wrong if message.body == 1 else str(message.body), unknown="park")
    pipeline = type("Wrong", (Mail,), {"queue": "numbers", "claim": claim})()

    results = await run_messages(pipeline, [{"n": n} for n in (1, 2, 3)])

    assert results[0].reason.startswith("Claim.key must return 1 to 255 characters without NUL")
    assert [one.outcome for one in results[1:]] == [Outcome.DELIVERED] * 2


def test_a_claim_is_checked() -> None:
    with pytest.raises(ConfigError, match="unknown must be 'park' or 'again', got 'never'"):
        Claim(key=of, unknown="never")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Claim"):
        Claim(key=of)  # type: ignore[call-arg]
    with pytest.raises(ConfigError, match="must be an async def, as Plain has a claim"):
        type("Plain", (Mail,), {"queue": "numbers", "handle_batch": lambda self, batch: None})


async def test_sending_without_a_claim_does_nothing() -> None:
    free = type("Free", (Mail,), {"queue": "numbers", "claim": None, "orders": {2: lambda: Skip("no")}})

    results = await run_messages(free(), [{"n": 1}])

    assert results[0].outcome is Outcome.DELIVERED


def faulty(line: Line) -> FaultyLedger:
    books = line.engine.books
    assert books is not None
    assert isinstance(books.commit.ledger, FaultyLedger)
    return books.commit.ledger


async def begun(start: Start, kind: type[Mail], prefetch: int = 10) -> Line:
    """Start *kind* with a ledger that may fail, on the clock of the test."""
    line = await start(kind, prefetch, ledger=True)
    faulty(line).identities = Anything()
    return line


class Anything(dict[bytes, int]):
    """Knows every identity."""

    def __missing__(self, identity: bytes) -> int:
        return 0


async def test_what_is_held_elsewhere_waits_unacknowledged(start: Start, kind: type[Mail]) -> None:
    line = await begun(start, kind)
    ledger, pipeline = faulty(line), line.engine.pipeline
    await ledger.take("numbers", [], "nobody", 1.0, "park")
    name = line.metrics.pipeline
    await ledger.take(name, ["1"], "another worker", MINUTES, "park")

    await line.push(1, 2)
    await line.advance(0.3)
    assert (pipeline.sent, line.acked) == ([2], [2])
    await ledger.free(name, ["1"], "another worker")
    await line.advance(6.0)
    await line.advance(1.0)

    assert (pipeline.sent, line.acked, line.account["delivered"]) == ([2, 1], [2, 1], 2)
    assert not line.rejected
    assert not line.released


async def test_while_the_ledger_is_away_nothing_is_told_and_nothing_started(
    start: Start, kind: type[Mail]
) -> None:
    line = await begun(start, kind)
    ledger, pipeline = faulty(line), line.engine.pipeline
    await line.push(1)
    await line.advance(0.3)
    ledger.fails = "before"

    await line.push(2)
    await line.advance(0.3)
    await line.push(3)
    await line.advance(MINUTES)

    books = line.engine.books
    assert books is not None
    assert (line.acked, pipeline.sent) == ([1], [1])
    assert books.fault == "the ledger is away"
    ledger.fails = ""
    for _ in range(6):
        await line.advance(30.0)
    assert sorted(line.acked) == [1, 2, 3]
    assert books.fault is None


async def test_without_a_claim_nothing_is_started_either_while_the_ledger_is_away(start: Start) -> None:
    line = await begun(start, type("Single", (Single,), {"queue": "numbers", "claim": None}))
    ledger, pipeline = faulty(line), line.engine.pipeline
    ledger.fails = "before"
    await line.push(1)
    await line.push(2)
    await line.advance(MINUTES)
    before = list(pipeline.sent)
    ledger.fails = ""
    for _ in range(6):
        await line.advance(30.0)

    assert (before, pipeline.sent) == ([1], [1, 2])


@pytest.mark.slow
async def test_a_drain_ends_in_time_without_the_ledger(start: Start, kind: type[Mail]) -> None:
    line = await begun(start, kind)
    faulty(line).fails = "after"
    await line.push(1, 2)

    with anyio.fail_after(5):
        await line.engine.drain(1.0)

    assert line.account == {"received": 2, "returned": 2}


async def test_a_row_says_what_the_target_calls_the_record(start: Start) -> None:
    class Named(Single):
        queue = "numbers"
        claim = None

        async def handle_message(self, message: Message[Number]) -> int:
            message.target_id = f"contact-{message.body.n}"
            return 0

    line = await begun(start, Named)
    await line.push(7)

    assert [row.target_id for row in faulty(line).rows.values()] == ["contact-7"]


async def test_what_a_row_tells_is_not_worked_again(start: Start) -> None:
    line = await begun(start, Single)
    await line.push(1)
    ledger = faulty(line)
    second = await start(type("Second", (Single,), {"queue": "numbers", "claim": None}), 10, ledger=ledger)
    second.metrics.pipeline = line.metrics.pipeline
    second.engine.books.inquiry._pipeline = line.metrics.pipeline  # type: ignore[union-attr]

    await second.push(1, redelivered=True)
    await second.push(2, redelivered=True)
    await second.push(1)

    assert second.engine.pipeline.sent == [2, 1]
    assert second.acked == [1, 2, 1]
    assert second.metrics.duplicates_skipped == 1


async def test_an_unknown_outcome_that_could_not_be_noted_is_not_forgotten(
    start: Start, kind: type[Mail]
) -> None:
    """The claim is this worker's still, and a copy comes to it."""
    line = await begun(start, kind)
    ledger, pipeline = faulty(line), line.engine.pipeline
    went = []

    def away() -> BaseException:
        went.append(1)
        ledger.fails = "before"
        return ValueError("secret")

    pipeline.orders[1] = away
    await line.push(1)
    await line.advance(0.3)
    pipeline.orders.clear()
    ledger.fails = ""
    await line.advance(31.0)
    await line.push(1)
    for _ in range(4):
        await line.advance(MINUTES / 4)

    assert (went, pipeline.sent) == ([1], [])
    assert [n for n, _ in line.parked] == [1, 1]


@pytest.mark.slow
@pytest.mark.parametrize("fails", ["", "after"])
async def test_a_claim_whose_answer_is_not_awaited_is_let_go_of(
    start: Start, kind: type[Mail], fails: str
) -> None:
    """A drain ends meanwhile, or the ledger went away after it had noted the claim."""
    line = await begun(start, kind)
    ledger, answer = faulty(line), anyio.Event()
    take = ledger.take

    async def slow(*args: Any) -> Any:
        taken = await take(*args)
        await answer.wait()
        return taken

    ledger.take = slow  # type: ignore[method-assign]
    ledger.fails = fails
    await line.push(1)
    await line.advance(0.3)
    ledger.fails, ledger.take = "", take  # type: ignore[method-assign]
    assert ledger._claims[line.metrics.pipeline, "1"].state == "claimed"

    with anyio.fail_after(5):
        await line.engine.drain(1.0)

    assert line.released == [1]
    assert not ledger._claims


async def test_a_duplicate_says_nothing_about_a_target_that_is_down(start: Start) -> None:
    """Nor does what is held elsewhere: neither is a call."""
    single = type("Single", (Single,), {"queue": "numbers", "orders": {}, "concurrency": 2})
    line = await begun(start, single)
    ledger, pipeline = faulty(line), line.engine.pipeline
    await line.push(1)
    await ledger.take(line.metrics.pipeline, ["2"], "another worker", MINUTES, "park")
    pipeline.orders[3] = lambda: Unavailable("away", after=10.0)
    await line.push(3)

    await line.push(1, 2)
    await line.advance(10.5)
    down = line.engine.down()

    assert line.metrics.duplicates_skipped == 1
    assert list(down) == ["numbers"]


async def test_a_ledger_that_fails_before_an_effect_says_nothing_about_the_target(start: Start) -> None:
    single = type("Single", (Single,), {"queue": "numbers", "orders": {}, "concurrency": 1})
    line = await begun(start, single)
    ledger, pipeline = faulty(line), line.engine.pipeline
    begin = ledger.begin

    async def lost(*args: Any) -> bool:
        ledger.begin = begin  # type: ignore[method-assign]
        return False

    pipeline.orders[1] = lambda: Unavailable("away", after=10.0)
    await line.push(1)
    pipeline.orders.clear()
    ledger.begin = lost  # type: ignore[method-assign]
    await line.advance(10.5)
    await line.advance(0.1)

    assert pipeline.sent == [1]
    assert line.metrics.circuit_open == {"default": False} or line.engine.down()


@pytest.mark.parametrize("unknown", ["park", "again"])
async def test_nothing_is_kept_of_what_is_over(start: Start, kind: type[Mail], unknown: str) -> None:
    """Whatever became of it: a worker runs for months."""
    options = {"queue": "numbers", "orders": {}, "claim": Claim(key=of, unknown=unknown), "retry_delay": 5.0}
    line = await begun(start, type(kind.__name__, (kind,), options), prefetch=100)
    ledger, pipeline = faulty(line), line.engine.pipeline
    ends = [ValueError("x"), Retry("no"), Retry("soon", after=1.0), Skip("no"), Reject("no")]
    pipeline.orders.update({n: (lambda error=error: error) for n, error in enumerate(ends)})
    pipeline.orders[50] = lambda: Unavailable("away", after=2.0)
    await ledger.take(line.metrics.pipeline, ["8", "9"], "another worker", 30.0, "park")
    for round_ in range(3):
        await line.push(*range(10), *range(5, 8), 50)
        await line.advance(1.0)
        if round_ < 2:
            line.lose()
            await line.push(*range(10), *range(5, 8), 50, redelivered=True)
        await line.advance(10.0)
    pipeline.orders.clear()
    for _ in range(40):
        await line.advance(5.0)

    claimant = line.engine.books.claimant  # type: ignore[union-attr]
    assert line.account["received"] == sum(line.account.values()) - line.account["received"]
    left = {name: one for name, one in vars(claimant).items() if isinstance(one, dict | set | list) and one}
    assert not left
    assert not claimant.waiting  # type: ignore[union-attr]


async def test_a_row_that_the_ledger_refused_does_not_let_a_copy_through(
    start: Start, kind: type[Mail]
) -> None:
    """The claim is this worker's still, and nothing says that it is done."""
    line = await begun(start, kind)
    ledger, pipeline = faulty(line), line.engine.pipeline
    write = ledger.write

    async def refused(rows: Any) -> Any:
        return [None] * len(rows)

    ledger.write = refused  # type: ignore[method-assign]
    await line.push(1)
    await line.advance(0.3)
    ledger.write = write  # type: ignore[method-assign]
    assert line.acked == [1]

    await line.push(1)
    for _ in range(5):
        await line.advance(MINUTES / 4)

    assert pipeline.sent == [1]
    assert [(n, reason) for n, reason in line.parked] == [
        (1, "outcome unknown: a worker ended in the middle of it")
    ]


async def test_what_was_sent_is_noted_with_the_next_effect_when_its_row_was_refused(start: Start) -> None:
    line = await begun(start, Mail)
    ledger, pipeline = faulty(line), line.engine.pipeline
    write = ledger.write

    async def refused(rows: Any) -> Any:
        ledger.write = write  # type: ignore[method-assign]
        return [None] * len(rows)

    ledger.write = refused  # type: ignore[method-assign]
    for n in (1, 2):
        await line.push(n)
        await line.advance(0.3)
    noted = list(line.engine.books.claimant._sent)  # type: ignore[union-attr]
    await line.push(1)
    await line.advance(0.3)

    assert (pipeline.sent, noted) == ([1, 2], [])
    assert line.account == {"received": 3, "delivered": 2, "skipped": 1}


async def test_what_could_not_begin_begins_later(start: Start, kind: type[Mail]) -> None:
    """The ledger noted that the effect is under way, but its answer was lost: nothing has happened."""
    line = await begun(start, kind)
    ledger, pipeline = faulty(line), line.engine.pipeline
    begin, tries = ledger.begin, []

    async def lost(*args: Any) -> bool:
        tries.append(await begin(*args))
        if len(tries) == 1:
            raise LedgerError("the ledger went away")
        return tries[-1]

    ledger.begin = lost  # type: ignore[method-assign]
    await line.push(1)
    for _ in range(10):
        await line.advance(0.3)

    assert (tries, pipeline.sent, line.acked) == ([True, True], [1], [1])


async def test_a_target_that_is_away_lets_an_effect_begin_again(start: Start, kind: type[Mail]) -> None:
    line = await begun(start, kind)
    pipeline = line.engine.pipeline

    def once() -> BaseException:
        pipeline.orders.clear()
        return Unavailable("away", after=5.0)

    pipeline.orders[1] = once
    await line.push(1)
    await line.advance(0.3)
    await line.advance(5.1)
    await line.advance(0.3)

    assert (pipeline.sent, line.acked) == ([1], [1])


async def test_a_drain_that_cuts_a_batch_off_keeps_what_was_sent(start: Start) -> None:
    """The one under way is unknown, the rest is free at once."""

    class Hanging(Mail):
        queue = "numbers"

        async def handle_batch(self, batch: Batch[int]) -> None:
            for one in batch:
                async with batch.sending(one):
                    if one.body == 2:
                        await anyio.sleep_forever()

    line = await begun(start, Hanging)
    await line.push(1, 2, 3)

    with anyio.fail_after(5):
        hung = await line.engine.drain(0.5)

    ledger, name = faulty(line), line.metrics.pipeline
    found = await ledger.take(name, ["1", "2", "3"], "another worker", 1.0, "park")
    assert (hung, line.acked, sorted(line.released)) == (1, [1], [2, 3])
    assert [found[key].hold for key in "123"] == [Hold.DONE, Hold.ELSEWHERE, Hold.OURS]
    line.clock.advance(MINUTES)
    found = await ledger.take(name, ["2"], "another worker", 1.0, "park")
    assert found["2"].hold is Hold.UNKNOWN


async def test_what_was_sent_and_could_not_be_written_is_nobodys_to_send_again(start: Start) -> None:
    """It goes back to its queue at the end of a drain, and whoever gets it finds that it was under way."""
    line = await begun(start, Mail)
    ledger, name = faulty(line), line.metrics.pipeline
    write = ledger.write

    async def away(rows: Any) -> Any:
        raise LedgerError("the ledger is away")

    ledger.write = away  # type: ignore[method-assign]
    await line.push(1)
    await line.advance(0.3)
    assert line.engine.pipeline.sent == [1]

    with anyio.fail_after(5):
        await line.engine.drain(1.0)
    ledger.write = write  # type: ignore[method-assign]

    assert line.released == [1]
    await line.engine.books.claimant.flush()  # type: ignore[union-attr]
    assert (await ledger.take(name, ["1"], "another worker", 1.0, "park"))["1"].hold is Hold.ELSEWHERE
    line.clock.advance(MINUTES)
    assert (await ledger.take(name, ["1"], "another worker", 1.0, "park"))["1"].hold is Hold.UNKNOWN


class Slow:
    """A call of the ledger whose first answers wait for `go`."""

    def __init__(self, ledger: FaultyLedger, name: str, count: int = 1, *, after: bool = False) -> None:
        self.go = anyio.Event()
        self._call, self._left, self._after = getattr(ledger, name), count, after
        setattr(ledger, name, self)

    async def __call__(self, *args: Any) -> Any:
        self._left -= 1
        if self._left < 0:
            return await self._call(*args)
        if not self._after:
            await self.go.wait()
            return await self._call(*args)
        answer = await self._call(*args)
        await self.go.wait()
        return answer


async def test_letting_go_does_not_reach_what_is_claimed_after_it(start: Start, kind: type[Mail]) -> None:
    """A copy takes the claim that another call is about to end."""
    line = await begun(start, type(kind.__name__, (kind,), {"queue": "numbers", "concurrency": 2}))
    ledger, pipeline = faulty(line), line.engine.pipeline
    slow, begins, begin = Slow(ledger, "free"), [], ledger.begin

    async def noted(*args: Any) -> bool:
        begins.append(await begin(*args))
        return begins[-1]

    def once() -> BaseException:
        pipeline.orders.clear()
        return Reject("no")

    ledger.begin = noted  # type: ignore[method-assign]
    pipeline.orders[1] = once
    await line.push(1)
    await line.advance(0.3)
    taking = Slow(ledger, "take", after=True)
    await line.push(1)
    for _ in range(4):
        await line.advance(0.3)
    slow.go.set()
    await quiet()
    taking.go.set()
    for _ in range(4):
        await line.advance(0.3)

    assert (begins, pipeline.sent) == ([True, True], [1])
    assert line.account == {"received": 2, "parked": 1, "delivered": 1}


async def test_what_is_let_go_of_meanwhile_is_not_forgotten(start: Start) -> None:
    """A session ends while the claim of another message is let go of."""
    gate = anyio.Event()

    class Waiting(Mail):
        queue = "numbers"
        batching = Batching(size=2, concurrency=2)
        rate_limit = RateLimit(messages=2, per=MINUTES, key=lambda message: message.body % 2)

        async def handle_batch(self, batch: Batch[int]) -> None:
            await gate.wait()
            raise Reject("no")

    line = await begun(start, Waiting)
    ledger, name = faulty(line), line.metrics.pipeline
    await ledger.take(name, ["4"], "another worker", MINUTES, "park")
    await line.push(1, 5)
    await line.push(4, 3)  # 3 is claimed, and waits for the limit of 1 and 5
    claimed = await ledger.take(name, ["3"], "another worker", 1.0, "park")
    slow = Slow(ledger, "free")
    gate.set()
    await quiet()
    line.lose()
    slow.go.set()
    await line.push(6, 8)

    found = await ledger.take(name, ["1", "3", "5"], "another worker", 1.0, "park")
    assert claimed["3"].hold is Hold.ELSEWHERE
    assert [found[key].hold for key in "135"] == [Hold.OURS] * 3


async def test_a_mark_in_a_block_says_that_the_effect_did_not_happen(start: Start) -> None:
    """Whether the block ends well or not."""

    class Marking(Mail):
        queue = "numbers"

        async def handle_batch(self, batch: Batch[int]) -> None:
            for one in batch:
                with suppress(ValueError):
                    async with batch.sending(one):
                        self.sent.append(one.body)
                        if self.sent.count(one.body) == 1:
                            batch.reject(one, "never")
                            if one.body == 2:
                                raise ValueError

    line = await begun(start, Marking)
    for _ in range(2):
        await line.push(1, 2)
        await line.advance(0.3)

    assert line.engine.pipeline.sent == [1, 2, 1, 2]
    assert line.parked == [(1, "never"), (2, "never")]
    assert line.account == {"received": 4, "parked": 2, "delivered": 2}


async def test_a_claim_that_is_answered_after_its_session_is_let_go_of(start: Start) -> None:
    line = await begun(start, Mail)
    ledger = faulty(line)
    slow = Slow(ledger, "take")
    await line.push(1)
    await line.advance(0.3)

    line.lose()
    await line.push(2)  # before which everything is let go of
    await line.advance(0.3)
    slow.go.set()
    await quiet()
    await line.push(3)
    await line.advance(0.3)

    found = await ledger.take(line.metrics.pipeline, ["1"], "another worker", 1.0, "park")
    assert (line.engine.pipeline.sent, found["1"].hold) == ([2, 3], Hold.OURS)


async def test_a_claim_that_is_answered_late_stays_with_the_redelivery(start: Start) -> None:
    gate = anyio.Event()

    class Hanging(Mail):
        queue = "numbers"

        async def handle_batch(self, batch: Batch[int]) -> None:
            async with batch.sending(batch[0]):
                await gate.wait()
                self.sent.append(batch[0].body)

    line = await begun(start, Hanging)
    ledger, name = faulty(line), line.metrics.pipeline
    slow = Slow(ledger, "take", after=True)
    await line.push(1)
    await line.advance(0.3)
    line.lose()
    await line.push(1, redelivered=True)
    await line.advance(0.3)
    slow.go.set()
    await quiet()
    await line.engine.books.claimant.flush()  # type: ignore[union-attr]

    assert (await ledger.take(name, ["1"], "another worker", 1.0, "park"))["1"].hold is Hold.ELSEWHERE
    gate.set()
    await quiet()
    assert (line.engine.pipeline.sent, line.acked) == ([1], [1])


async def test_a_session_that_ends_while_a_neighbour_is_failed_takes_the_rest_of_the_batch_along(
    start: Start,
) -> None:
    gate = anyio.Event()

    def key(message: Message[int]) -> str:
        if message.body == 1:
            raise Reject("no key")
        return str(message.body)

    class Observed(Mail):
        queue = "numbers"
        claim = Claim(key=key, unknown="park")

        async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
            if not gate.is_set() and reason == "no key":
                await gate.wait()

    line = await begun(start, Observed)
    ledger, name = faulty(line), line.metrics.pipeline
    await ledger.take(name, ["2"], "a killed worker", 0.0, "park")
    await ledger.begin(name, "2", "a killed worker", 0.0)
    await ledger.take(name, ["3"], "another worker", MINUTES, "park")
    await line.push(1, 2, 3)
    await line.advance(0.3)
    line.lose()
    gate.set()
    await quiet()

    assert line.engine.buffered()["claims"] == 0
    await line.push(1, 2, redelivered=True)
    await line.advance(0.3)
    assert sorted(n for n, _ in line.parked) == [1, 2]
    assert sorted(line.acked) == [1, 2]


async def test_what_waits_for_a_claim_is_dropped_with_its_session(start: Start, kind: type[Mail]) -> None:
    line = await begun(start, kind)
    await faulty(line).take(line.metrics.pipeline, ["1"], "another worker", 10.0, "park")
    await line.push(1)
    await line.advance(0.3)
    before = line.engine.buffered()["claims"]

    line.lose()

    assert (before, line.engine.buffered()["claims"]) == (1, 0)
    await line.push(1, redelivered=True)
    for _ in range(40):
        await line.advance(0.3)
    assert (line.engine.pipeline.sent, line.acked) == ([1], [1])


@pytest.mark.parametrize("again_before", [True, False])
async def test_a_target_that_is_away_when_the_session_ended_leaves_no_claim_behind(
    start: Start, again_before: bool
) -> None:
    """The redelivery takes it over, whether it came before the end of the call or after it."""
    gate = anyio.Event()

    class Away(Mail):
        queue = "numbers"

        async def handle_batch(self, batch: Batch[int]) -> None:
            if not gate.is_set():
                await gate.wait()
                raise Unavailable("away", after=5.0)
            await super().handle_batch(batch)

    line = await begun(start, Away)
    await line.push(1)
    await line.advance(0.3)
    line.lose()
    if again_before:
        await line.push(1, redelivered=True)
    gate.set()
    await quiet()
    if not again_before:
        await line.push(1, redelivered=True)
    for _ in range(30):
        await line.advance(0.3)

    claimant = line.engine.books.claimant  # type: ignore[union-attr]
    assert (line.engine.pipeline.sent, line.acked) == ([1], [1])
    assert not claimant._keys  # type: ignore[union-attr]
    assert not claimant._mine  # type: ignore[union-attr]


async def test_verdicts_are_not_counted_as_errors(start: Start, kind: type[Mail]) -> None:
    """A copy that is skipped is none, either."""
    line = await begun(start, type(kind.__name__, (kind,), {"queue": "numbers", "orders": {}}))
    line.engine.pipeline.orders.update({2: lambda: Reject("no"), 3: lambda: ValueError("x")})
    for n in (1, 1, 2, 3):
        await line.push(n)
        await line.advance(0.3)

    assert line.metrics.handler_errors + line.metrics.batch_errors == 1


class Together(Mail):
    """Sends a whole batch at once."""

    queue = "numbers"

    async def handle_batch(self, batch: Batch[int]) -> None:
        async with anyio.create_task_group() as tasks:
            for one in batch:
                tasks.start_soon(self.send, batch, one)

    async def send(self, batch: Batch[int], one: Message[int]) -> None:
        async with batch.sending(one):
            if one.body in self.orders:
                raise self.orders[one.body]()
            self.sent.append(one.body)


async def test_effects_that_cannot_begin_together_cost_no_attempt(start: Start) -> None:
    line = await begun(start, type("Together", (Together,), {"queue": "numbers", "orders": {}}))
    ledger, pipeline = faulty(line), line.engine.pipeline
    taken = ledger.take

    async def take(*args: Any) -> Any:
        standings = await taken(*args)
        ledger.fails = "before"  # in time for all that are to begin
        return standings

    ledger.take = take  # type: ignore[method-assign]
    await line.push(1, 2, 3)
    await quiet()
    before = list(pipeline.sent)
    ledger.take, ledger.fails = taken, ""  # type: ignore[method-assign]
    for _ in range(6):
        await line.advance(30.0)

    assert (before, sorted(pipeline.sent)) == ([], [1, 2, 3])
    assert line.account == {"received": 3, "delivered": 3}
    assert line.metrics.batch_errors == 0


async def test_each_unknown_outcome_is_told_with_its_own_error(start: Start) -> None:
    """Whatever else ends the batch, and in whatever order."""
    line = await begun(start, type("Together", (Together,), {"queue": "numbers", "orders": {}}))
    pipeline = line.engine.pipeline
    pipeline.orders.update({1: lambda: ValueError("secret"), 2: lambda: Unavailable("closed", after=5.0)})
    pipeline.orders[3] = lambda: KeyError("secret")

    await line.push(1, 2, 3)
    await line.advance(0.3)
    pipeline.orders.clear()
    await line.advance(5.0)

    reasons = dict(line.parked)
    assert reasons[1].startswith("outcome unknown: ValueError")
    assert reasons[3].startswith("outcome unknown: KeyError")
    assert (pipeline.sent, line.acked.count(2)) == ([2], 1)


async def test_the_ledger_works_again_only_when_claims_can_be_written(
    start: Start, kind: type[Mail], caplog: pytest.LogCaptureFixture
) -> None:
    """Rows and claims are tables of their own: what is missing for one of them is missing."""
    ledger, claims = (FaultyLedger(lambda: 0.0) for _ in range(2))
    ledger.identities = Anything()
    claims.fails = "before"
    line = await start(kind, ledger=(ledger, claims))

    await line.push(1)
    for _ in range(10):
        await line.advance(30.0)
    told = [record.getMessage() for record in caplog.records]
    claims.fails = ""
    for _ in range(3):
        await line.advance(30.0)

    assert told == [f"{line.metrics.pipeline}: the ledger is down, nothing is started: the ledger is away"]
    assert (line.engine.pipeline.sent, line.acked) == ([1], [1])
