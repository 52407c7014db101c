"""What a test is told of the messages that it runs through a pipeline."""

import asyncio
import socket
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest

from flow.batch import Batch, Trigger
from flow.batching import Batching
from flow.errors import ConfigError, DecodeError
from flow.message import Message
from flow.outcome import Outcome, Reject, Retry, Skip, Unavailable
from flow.pipeline import Pipeline
from flow.retries import Retries
from flow.testing import InBatch, Result, message, run_messages
from tests.messages import MemoryOrigin
from tests.testing.numbers import Number, Numbers, numbers

pytestmark = pytest.mark.anyio


class Single(Pipeline[Number]):
    """Delivers in `handle_message`."""

    queue = "single"

    def handle_message(self, message: Message[Number]) -> Number:
        return message.body


async def test_a_message_has_a_result() -> None:
    """N01: the result of one message is delivered, with nothing to say about it."""
    results = await run_messages(Single(), numbers(1))

    assert results == [Result(outcome=Outcome.DELIVERED)]


async def test_properties_reach_the_callback() -> None:
    """N02: headers, id, attempt and the like are in the message; without them the headers are empty."""
    seen: list[Message[Any]] = []

    class Seeing(Single):
        def handle_message(self, message: Message[Number]) -> Number:
            seen.append(message)
            return message.body

    given = message(
        Number(1),
        attempt=3,
        redelivered=True,
        headers={"field": "value"},
        message_id="m-1",
        routing_key="acme.system.action",
    )
    await run_messages(Seeing(), [given, Number(2)])

    one, other = sorted(seen, key=lambda message: message.body.n)
    assert (one.attempt, one.redelivered, one.message_id) == (3, True, "m-1")
    assert (one.headers["field"], one.routing_key, one.queue) == ("value", "acme.system.action", "single")
    assert (other.attempt, other.redelivered, other.message_id, other.headers) == (1, False, None, {})
    assert (other.routing_key, other.queue) == ("single", "single")


async def test_messages_form_batches() -> None:
    """N04, E02: full batches by size, the remainder by its timeout."""
    pipeline = Numbers()

    results = await run_messages(pipeline, numbers(1, 2, 3, 4, 5))

    full = InBatch(key=None, batcher="default", trigger=Trigger.SIZE, size=2)
    last = InBatch(key=None, batcher="default", trigger=Trigger.TIMEOUT, size=1)
    assert pipeline.batches == [[1, 2], [3, 4], [5]]
    assert [result.batch for result in results] == [full, full, full, full, last]
    assert results[0].batch is results[1].batch
    assert results[1].batch is not results[2].batch


async def test_batches_have_default_sizes() -> None:
    """N05: a few messages are one batch of the default size, which goes at its timeout."""

    class Plain(Numbers):
        batching = None

    pipeline = Plain()

    results = await run_messages(pipeline, numbers(1, 2))

    assert [result.outcome for result in results] == [Outcome.DELIVERED] * 2
    assert pipeline.batches == [[1, 2]]


async def test_messages_of_several_queues_share_a_batch() -> None:
    """N06: each is settled in its own queue, by whatever way it came."""
    pipeline = Numbers()

    results = await run_messages(pipeline, [message(Number(1), queue="other"), Number(3)])

    assert pipeline.handled == [1, 3]
    assert pipeline.batches == [[1, 3]]
    assert [result.outcome for result in results] == [Outcome.DELIVERED] * 2


def test_no_broker_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    """N07: a pipeline starts, works and stops in a plain function without touching the network."""

    def refuse(*args: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)

    results = asyncio.run(run_messages(Numbers(), numbers(1)))

    assert [result.outcome for result in results] == [Outcome.DELIVERED]


async def test_what_is_raised_is_a_result() -> None:
    class Raising(Pipeline[Number]):
        queue = "numbers"
        retries = Retries(attempts=3)
        errors = (
            Skip("nothing to do"),
            Retry("busy", after=7.0),
            Reject("never"),
            ValueError("secret"),
        )

        def handle_message(self, message: Message[Number]) -> Number:
            raise self.errors[message.body.n]

    results = await run_messages(Raising(), [*numbers(0, 1, 2, 3), message(Number(3), attempt=3)])

    assert [(one.outcome, one.after) for one in results] == [
        (Outcome.SKIPPED, None),
        (Outcome.RETRYING, 7.0),
        (Outcome.PARKED, None),
        (Outcome.RETRYING, None),
        (Outcome.PARKED, None),
    ]
    assert [one.reason for one in results[:3]] == ["nothing to do", "busy", "never"]
    assert "secret" not in results[3].reason
    assert results[4].reason.startswith("gave up after 3 attempts: ValueError")
    assert [one.error for one in results] == [*Raising.errors, Raising.errors[3]]
    assert all(one.batch is None for one in results)


async def test_marks_and_errors_of_a_batch_are_results() -> None:
    class Marking(Numbers):
        batching = Batching(size=5)

        async def handle_batch(self, batch: Batch[int]) -> None:
            for one in batch:
                if one.body == 1:
                    batch.retry(one, "busy", after=60.0)
                elif one.body == 2:
                    batch.reject(one, "invalid")
                elif one.body == 3:
                    batch.skip(one, "known")
            raise RuntimeError("half done")

    results = await run_messages(Marking(), numbers(0, 1, 2, 3, 4))

    together = results[0].batch
    assert together == InBatch(key=None, batcher="default", trigger=Trigger.SIZE, size=5)
    assert all(result.batch is together for result in results)
    assert [result.outcome.value for result in results] == [
        "retrying",
        "retrying",
        "parked",
        "skipped",
        "retrying",
    ]
    assert [type(result.error) for result in results] == [RuntimeError, Retry, Reject, Skip, RuntimeError]
    assert results[1].after == 60.0


async def test_bodies_are_decoded_as_the_pipeline_declares_them() -> None:
    """Structs of another kind, bad bytes, text, mappings and what is too large: as from a queue."""

    class Small(Single):
        max_body = 30

    class Other(msgspec.Struct):
        number: int

    bodies = [Other(1), b"\xff", '{"n": 1}', {"n": 2}, {"n": "one"}, {"n": 1, "more": "x" * 30}]
    results = await run_messages(Small(), bodies)

    assert [result.outcome.value for result in results] == [
        "parked",
        "parked",
        "delivered",
        "delivered",
        "parked",
        "retrying",
    ]
    assert [result.reason for result in results if result.error] == [
        "n is missing",
        "invalid UTF-8",
        "n is not a whole number",
        f"the body has {len(msgspec.json.encode(bodies[5]))} bytes, more than the 30 allowed",
    ]
    assert all(isinstance(result.error, DecodeError) for result in results if result.error)


async def test_attempt_is_that_of_the_bodies() -> None:
    class Failing(Numbers):
        retries = Retries(attempts=4)

        async def handle_batch(self, batch: Batch[int]) -> None:
            raise ValueError

    results = await run_messages(Failing(), [Number(1), message(Number(2), attempt=2)], attempt=4)

    assert [result.outcome for result in results] == [Outcome.PARKED, Outcome.RETRYING]


async def test_a_retry_is_worked_once_unless_it_is_followed() -> None:
    """Also one that is held in the process; what follows counts the attempts like the broker."""
    attempts: list[int] = []

    class Trying(Single):
        def handle_message(self, message: Message[Number]) -> Number:
            attempts.append(message.attempt)
            if message.attempt == 1:
                raise ValueError
            if message.attempt < 4:
                raise Retry("busy", after=message.attempt * 20.0)
            return message.body

    once = await run_messages(Trying(), numbers(1), attempt=2)
    held = await run_messages(Trying(), numbers(1), attempt=3)
    before, attempts[:] = list(attempts), []
    followed = await run_messages(Trying(), numbers(1), follow_retries=True)

    assert [one.after for one in once + held] == [40.0, 60.0]
    assert before == [2, 3]
    assert attempts == [1, 2, 3, 4]
    assert followed == [Result(outcome=Outcome.DELIVERED)]


async def test_holds_are_followed_too() -> None:
    attempts: list[int] = []

    class Hasty(Single):
        retries = Retries(attempts=4)

        def handle_message(self, message: Message[Number]) -> Number:
            attempts.append(message.attempt)
            raise Retry("busy", after=1.0)

    results = await run_messages(Hasty(), numbers(1), follow_retries=True)

    assert attempts == [1, 2, 3, 4]
    assert [(one.outcome, one.reason) for one in results] == [
        (Outcome.PARKED, "gave up after 4 attempts: busy")
    ]


async def test_holds_are_forgotten_by_the_broker() -> None:
    """What was held is rejected in the end, and comes back as its second attempt: it was rejected once."""
    attempts: list[int] = []

    class Mixed(Numbers):
        async def handle_message(self, message: Message[Number]) -> int:
            attempts.append(message.attempt)
            if len(attempts) == 1:
                raise Retry("busy", after=1.0)
            if len(attempts) == 2:
                raise ValueError
            return message.body.n

    await run_messages(Mixed(), numbers(1), follow_retries=True)

    assert attempts == [1, 2, 2]


async def test_the_error_is_that_of_the_last_attempt() -> None:
    class Mixed(Numbers):
        async def handle_message(self, message: Message[Number]) -> int:
            if message.attempt == 1:
                raise Retry("busy", after=1.0)
            return message.body.n

        async def handle_batch(self, batch: Batch[int]) -> None:
            if batch.bodies == [1]:
                batch.reject(batch[0], "never")

    results = await run_messages(Mixed(), [Number(1)], follow_retries=True)
    other = await run_messages(Mixed(), [Number(2)], follow_retries=True)

    assert [type(one.error) for one in results + other] == [Reject, type(None)]


async def test_what_never_leaves_the_loop_is_followed_as_long_as_there_are_attempts() -> None:
    class Looping(Single):
        retries = Retries(attempts=3)
        park = "loop"

        def handle_message(self, message: Message[Number]) -> Number:
            raise Reject("never")

    results = await run_messages(Looping(), numbers(1), follow_retries=True)

    assert [(one.outcome, one.reason) for one in results] == [
        (Outcome.RETRYING, "could not be parked: never")
    ]


async def test_keys_batchers_and_triggers_are_told() -> None:
    class Sorting(Numbers):
        batching = {"even": Batching(size=2), "odd": Batching(size=3)}  # noqa: RUF012 # as users write it

        def batcher(self, message: Message[int]) -> str:
            return "odd" if message.body % 2 else "even"

        def batch_key(self, message: Message[int]) -> Hashable:
            return message.body // 10

    results = await run_messages(Sorting(), numbers(2, 4, 11, 12))

    assert [(one.batch.batcher, one.batch.key, one.batch.size) for one in results if one.batch] == [
        ("even", 0, 2),
        ("even", 0, 2),
        ("odd", 1, 1),
        ("even", 1, 1),
    ]


async def test_the_window_is_that_of_the_pipeline() -> None:
    """When open batches fill it they are released early, as with a broker."""

    class Narrow(Numbers):
        batching = Batching(size=10, timeout=3600.0)
        prefetch = 4

    results = await run_messages(Narrow(), numbers(*range(10)))

    assert {one.batch.trigger for one in results[:8] if one.batch} == {Trigger.STARVED}
    assert max(one.batch.size for one in results if one.batch) <= 4


async def test_handle_failed_is_told() -> None:
    told: list[tuple[int, Outcome, str]] = []

    class Observed(Single):
        def handle_message(self, message: Message[Number]) -> Number:
            raise Reject("never")

        async def handle_failed(self, message: Message[Any], outcome: Outcome, reason: str) -> None:
            await asyncio.sleep(0.01)
            told.append((message.body.n, outcome, reason))

    results = await run_messages(Observed(), numbers(1))

    assert told == [(1, Outcome.PARKED, "never")]
    assert [one.outcome for one in results] == [Outcome.PARKED]


async def test_the_lifespan_surrounds_the_run() -> None:
    steps: list[str] = []

    class Living(Numbers):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            steps.append("open")
            yield
            steps.append("close")

        async def handle_batch(self, batch: Batch[int]) -> None:
            steps.append("deliver")

    await run_messages(Living(), numbers(1))
    await run_messages(Living(), [])

    assert steps == ["open", "deliver", "close", "open", "close"]


async def test_what_the_lifespan_raises_is_raised() -> None:
    class Broken(Numbers):
        @asynccontextmanager
        async def lifespan(self) -> AsyncIterator[None]:
            raise OSError("no client")
            yield

    with pytest.raises(OSError, match="no client"):
        await run_messages(Broken(), numbers(1))


async def test_one_message_can_be_run_many_times() -> None:
    pipeline, one = Numbers(), message(Number(1))

    first = await run_messages(pipeline, [one, one])
    second = await run_messages(pipeline, [one])

    assert [result.outcome for result in first + second] == [Outcome.DELIVERED] * 3
    assert pipeline.batches == [[1, 1], [1]]


async def test_wrong_use_is_told_in_a_sentence() -> None:
    class Aimless(Pipeline[Number]):
        pass

    with pytest.raises(ConfigError, match="Aimless needs a queue"):
        await run_messages(Aimless(), [])
    with pytest.raises(ConfigError, match=r"run_messages\(attempt\) must be a whole number of at least 1"):
        await run_messages(Numbers(), [], attempt=0)
    with pytest.raises(TypeError, match=r"messages made by flow\.testing\.message"):
        await run_messages(Numbers(), [MemoryOrigin().message({"n": 1})])
    with pytest.raises(TypeError, match="takes a list of bodies, got one of str"):
        await run_messages(Numbers(), '{"n": 1}')
    with pytest.raises(TypeError, match="object"):
        await run_messages(Numbers(), [object()])  # type: ignore[list-item]


async def test_a_target_that_stays_down_ends_the_run() -> None:
    """Whatever waits for it is retrying, and no attempt was spent; what was decided before stays so."""

    class Down(Numbers):
        async def handle_batch(self, batch: Batch[int]) -> None:
            if batch.bodies != [1, 2]:
                raise Unavailable("maintenance")

    results = await run_messages(Down(), numbers(1, 2, 3, 4, 5))

    assert [one.outcome.value for one in results] == ["delivered", "delivered", *["retrying"] * 3]
    assert {one.reason for one in results[2:]} == {"maintenance"}
    assert all(isinstance(one.error, Unavailable) for one in results[2:])
