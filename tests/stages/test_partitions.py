"""`partition_key`: what belongs together stays in order, and a slow partition blocks no other."""

from collections.abc import Hashable, Sequence
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Unavailable
from flow.pipeline import Pipeline
from flow.stages.partitions import partition
from tests.messages import MemoryOrigin
from tests.stages.conftest import Number, Start, number, quiet

pytestmark = pytest.mark.anyio


class Parted(Pipeline[Number, int]):
    """Two partitions, even and odd numbers; each may be made to wait."""

    queue = "numbers"
    concurrency = 2

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.handled: list[int] = []
        self.batches: list[tuple[list[int], int | None]] = []
        self.waits: dict[int, anyio.Event] = {}
        self.asked: list[int] = []

    def partition_key(self, message: Message[Number]) -> Hashable:
        self.asked.append(message.body.n)
        return message.body.n % 2

    async def handle_message(self, message: Message[Number]) -> int:
        n = message.body.n
        if n % 2 in self.waits:
            await self.waits[n % 2].wait()
        self.handled.append(n)
        if n == 99:
            raise ValueError
        message.body.n = -1  # the partition was computed before
        return n


class PartedBatches(Parted):
    """As before, with batches of two."""

    queue = "numbers"
    batching = Batching(size=2, timeout=0.2)

    async def handle_batch(self, batch: Batch[int]) -> None:
        part = (batch.partition or 0) + 10
        if part in self.waits:
            await self.waits[part].wait()
        self.batches.append((batch.bodies, batch.partition))


class Keyed(PartedBatches):
    """With batches of four, and a key beside the partition."""

    queue = "numbers"
    batching = Batching(size=4, timeout=0.2)

    def batch_key(self, message: Message[int]) -> Hashable:
        return message.body >= 20


async def test_a_partition_is_handled_in_order_by_one_worker(start: Start) -> None:
    """G01, G10: a partition that waits blocks only itself, and each number is asked for once."""
    line = await start(Parted)
    pipeline: Any = line.engine.pipeline
    pipeline.waits[0] = anyio.Event()

    await line.push(*range(1, 9))
    odd = list(pipeline.handled)
    pipeline.waits[0].set()
    await quiet()

    assert odd == [1, 3, 5, 7]
    assert pipeline.handled[4:] == [2, 4, 6, 8]
    assert sorted(line.acked) == list(range(1, 9))
    assert pipeline.asked == list(range(1, 9))


async def test_batches_of_a_partition_go_one_after_another(start: Start) -> None:
    """G02, G05, G06: each is of one partition, which was computed from the message as it came."""
    line = await start(PartedBatches)
    pipeline: Any = line.engine.pipeline
    pipeline.waits[11] = anyio.Event()

    await line.push(*range(1, 13))
    even = list(pipeline.batches)
    pipeline.waits[11].set()
    await quiet()

    assert even == [([2, 4], 0), ([6, 8], 0), ([10, 12], 0)]
    assert pipeline.batches[3:] == [([1, 3], 1), ([5, 7], 1), ([9, 11], 1)]


async def test_keys_are_kept_apart_within_a_partition(start: Start) -> None:
    """G03."""
    line = await start(Keyed)
    pipeline: Any = line.engine.pipeline

    await line.push(*range(16, 24))
    await line.advance(0.2)

    assert sorted(bodies for bodies, _ in pipeline.batches) == [[16, 18], [17, 19], [20, 22], [21, 23]]


async def test_a_failed_message_does_not_stop_its_partition(start: Start) -> None:
    """G09."""
    line = await start(Parted)

    await line.push(1, 99, 3)

    assert (line.acked, line.rejected) == ([1, 3], [99])


async def test_what_has_no_partition_fails_alone(start: Start) -> None:
    """G07: bad bytes too are an outcome of their own message."""

    class Raising(Parted):
        queue = "numbers"

        def partition_key(self, message: Message[Number]) -> Hashable:
            return 1 // (3 - message.body.n)

    line = await start(Raising)

    await line.push(2, 3, b"{", 4)

    assert line.acked == [2, 4, -1]
    assert line.rejected == [3]
    assert line.parked == [(-1, "not JSON: it ends too early")]


async def test_a_partition_whose_target_is_down_goes_on_in_order(start: Start) -> None:
    class Down(Parted):
        queue = "numbers"
        down = True

        async def handle_message(self, message: Message[Number]) -> int:
            if self.down:
                raise Unavailable("closed", after=5.0)
            return await super().handle_message(message)

    line = await start(Down)
    pipeline: Any = line.engine.pipeline
    await line.push(1, 3, 5, 7)
    pipeline.down = False

    await line.advance(5.0)

    assert pipeline.handled == [1, 3, 5, 7]
    assert line.acked == [1, 3, 5, 7]


async def test_a_batch_whose_failure_shows_that_the_target_is_down_loses_its_place(start: Start) -> None:
    """Another one of its partition probes; the others keep theirs, and no attempt of it is spent."""

    class Failing(PartedBatches):
        queue = "numbers"
        down = True

        async def handle_batch(self, batch: Batch[int]) -> None:
            if self.down:
                raise ValueError
            await super().handle_batch(batch)

    line = await start(Failing)
    pipeline: Any = line.engine.pipeline
    await line.push(*range(1, 24, 2))
    pipeline.down = False
    rejected = list(line.rejected)
    await line.advance(5.0)

    assert rejected == [1, 3, 5, 7, 9, 11, 13, 15]
    assert [n for bodies, _ in pipeline.batches for n in bodies] == [21, 23, 17, 19]
    assert line.acked == [21, 23, 17, 19]


async def test_a_drain_gives_back_what_no_worker_has_started(start: Start) -> None:
    line = await start(Parted)
    pipeline: Any = line.engine.pipeline
    pipeline.waits = {0: anyio.Event(), 1: anyio.Event()}
    await line.push(*range(1, 9))

    await line.engine.drain(0.2)

    assert sorted(line.released) == list(range(1, 9))
    assert line.account == {"received": 8, "returned": 8}


class Looking(Parted):
    """Looks its keys up where they may not be had."""

    queue = "numbers"
    down = False

    def partition_key(self, message: Message[Number]) -> Hashable:
        key = super().partition_key(message)
        if self.down:
            raise Unavailable("no keys", after=5.0)
        return key


async def test_a_key_that_cannot_be_had_now_holds_up_its_queue(start: Start) -> None:
    """No attempt is spent, the key is asked for with one message at a time, and the order stays."""
    line = await start(Looking)
    pipeline: Any = line.engine.pipeline
    pipeline.down = True

    await line.push(*range(1, 9))
    asked, down = list(pipeline.asked), line.engine.down()
    waits = line.engine.buffered()["processor"]
    await line.advance(5.0)
    again = list(pipeline.asked)
    pipeline.down = False
    await line.push(9, 10)
    await line.advance(5.0)

    assert (asked, list(down), waits) == ([1], ["numbers"], 8)
    assert again == [1, 1]
    assert [n for n in pipeline.handled if n % 2] == [1, 3, 5, 7, 9]
    assert [n for n in pipeline.handled if not n % 2] == [2, 4, 6, 8, 10]
    assert line.account == {"received": 10, "delivered": 10}
    assert line.engine.down() == {}


async def test_a_key_of_another_queue_is_asked_for_meanwhile(start: Start) -> None:
    class Elsewhere(Looking):
        """Has no keys for one of its queues."""

        queue = "numbers"

        def partition_key(self, message: Message[Number]) -> Hashable:
            self.down = message.queue == "numbers"
            return super().partition_key(message)

    line = await start(Elsewhere)
    other = MemoryOrigin("others", 10)
    line.metrics.account("others")
    line.send(1, 2)

    line.engine.receive([other.message({"n": n}, received_at=0.0) for n in (3, 4)])
    await quiet()

    assert {number(one) for one in other.acked} == {3, 4}
    assert line.acked == []


async def test_what_waits_for_a_key_goes_back_or_is_dropped_like_anything_else(start: Start) -> None:
    line = await start(Looking)
    pipeline: Any = line.engine.pipeline
    pipeline.down = True
    await line.push(1, 2, 3)
    line.clock.advance(2.0)
    waited = line.engine.waited("numbers")
    line.engine.give_back("numbers")
    given_back = list(line.released)

    await line.push(4, 5)
    line.lose()
    left = line.engine.buffered()["processor"]
    await line.push(6)
    await line.engine.drain(10.0)

    assert (waited, given_back, left) == (2.0, [1, 2, 3], 0)
    assert line.account == {"received": 6, "returned": 4, "stale": 2}


async def test_a_stop_is_not_held_up_by_a_key_that_cannot_be_had(start: Start) -> None:
    line = await start(Looking)
    pipeline: Any = line.engine.pipeline
    pipeline.down = True

    line.send(1, 2)
    with anyio.fail_after(10):
        await line.engine.drain(60.0)

    assert line.released == [1, 2]


class Preparing(Parted):
    """Prepares its messages, which may take long and go wrong."""

    queue = "numbers"
    down = True

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.prepared: list[int] = []
        self.go = anyio.Event()

    async def prepare_messages(self, messages: Sequence[Message[Number]]) -> None:
        self.prepared += [message.body.n for message in messages]
        if not self.down:
            await self.go.wait()
            if messages[0].body.n == 1:
                raise ValueError

    async def handle_message(self, message: Message[Number]) -> int:
        if self.down:
            raise Unavailable("closed", after=5.0)
        return await super().handle_message(message)


async def test_a_probe_that_ended_before_it_called_leaves_it_to_another_partition(start: Start) -> None:
    """Nothing would wake the others otherwise."""
    line = await start(Preparing)
    pipeline: Any = line.engine.pipeline
    await line.push(1)
    line.lose()  # it comes again, and is prepared again
    pipeline.down = False
    await line.push(1, 2)
    await line.advance(5.0)
    probing = list(pipeline.prepared)
    pipeline.go.set()
    await quiet()

    assert probing == [1, 1]
    assert (line.rejected, line.acked) == ([1], [2])


def test_any_value_has_a_partition() -> None:
    """G08: whole numbers as they are, anything else by its text, in every process the same."""
    assert [partition(number, 3) for number in (-1, 0, 4, True)] == [2, 0, 1, 1]
    assert partition("acme", 1000) == 679
    assert partition(("acme", 7), 1000) == 750
    assert partition(None, 1000) == 41
