"""A target that answers badly is in the log before its messages are parked, and not once for each of them."""

import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Reject, Retry, Skip
from flow.pipeline import Pipeline
from flow.retries import Retries
from flow.stages.complaint import QUIET
from tests.stages.conftest import Line, Number, Start

pytestmark = pytest.mark.anyio


class Batches(Pipeline[Number, Number]):
    """Has a target that answers 500."""

    queue = "numbers"
    concurrency = 1
    batching = Batching(size=2, timeout=1.0)
    retries = Retries(attempts=3)

    async def handle_message(self, message: Message[Number]) -> Number:
        return message.body

    async def handle_batch(self, batch: Batch[Number]) -> None:
        raise Retry("the target answered 500")


class Marks(Batches):
    """Has a target that answers 500 for each message of its own."""

    async def handle_batch(self, batch: Batch[Number]) -> None:
        for message in batch:
            batch.retry(message, "the target answered 500")


class Singles(Pipeline[Number, None]):
    """Has one that takes single messages, and answers 500 as well."""

    queue = "numbers"
    concurrency = 1

    async def handle_message(self, message: Message[Number]) -> None:
        raise Retry("the target answered 500")


async def after(line: Line, seconds: float) -> None:
    await line.advance(seconds)
    await line.push(5, 6)


@pytest.mark.parametrize(("pipeline", "first", "then"), [(Batches, 2, 4), (Marks, 2, 4), (Singles, 1, 4)])
async def test_what_is_tried_again_is_said_at_once_and_then_once_a_minute(
    start: Start, caplog: pytest.LogCaptureFixture, pipeline: type[Batches], first: int, then: int
) -> None:
    line = await start(pipeline)
    await line.push(1, 2)
    await line.push(3, 4)
    await after(line, QUIET)

    assert [(one.levelname, one.getMessage()) for one in caplog.records] == [
        ("WARNING", f"{line.metrics.pipeline}: {said} tried again: the target answered 500")
        for said in ("1 message is" if first == 1 else f"{first} messages are", f"{then} messages are")
    ]


@pytest.mark.parametrize("verdict", [Skip("nothing to do"), Reject("invalid")])
async def test_what_is_not_tried_again_is_not_said_to_be(
    start: Start, caplog: pytest.LogCaptureFixture, verdict: Exception
) -> None:
    class Final(Batches):
        async def handle_batch(self, batch: Batch[Number]) -> None:
            raise verdict

    line = await start(Final)
    await line.push(1, 2)

    assert not [one for one in caplog.records if "tried again" in one.getMessage()]


async def test_an_error_is_said_once_and_not_as_a_complaint_too(
    start: Start, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Batches):
        async def handle_batch(self, batch: Batch[Number]) -> None:
            raise ValueError

    line = await start(Broken)
    await line.push(1, 2)

    assert [one.levelname for one in caplog.records] == ["ERROR"]
