"""`blocking`: callbacks that block run in threads of the pipeline's own."""

import gc
import threading
import weakref
from typing import Any

import anyio
import pytest

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.outcome import Skip
from flow.pipeline import Pipeline
from flow.stages.threads import Threads
from tests.broker.queues import until
from tests.stages.conftest import Number, Start

pytestmark = pytest.mark.anyio


class Blocking(Pipeline[Number, int]):
    """Waits in its threads until the test lets it go on."""

    queue = "numbers"
    concurrency = 2
    blocking = True
    handler_timeout = 3.0

    def __init__(self, settings: Any = None) -> None:
        super().__init__(settings)
        self.threads: dict[int, str] = {}
        self.go = threading.Event()

    def handle_message(self, message: Message[Number]) -> int:
        self.threads[message.body.n] = threading.current_thread().name
        if message.body.n == 7:
            raise Skip("seven")
        assert self.go.wait(30)
        return message.body.n


async def test_blocking_callbacks_run_in_threads_and_not_in_the_loop(start: Start) -> None:
    line = await start(Blocking)
    pipeline: Any = line.engine.pipeline

    await line.push(1, 2, 3, 7)
    await until(lambda: len(pipeline.threads) == 2)
    pipeline.go.set()
    await until(lambda: not line.engine.unfinished)

    assert sorted(line.acked) == [1, 2, 3, 7]
    assert line.account == {"received": 4, "delivered": 3, "skipped": 1}
    assert all(name.startswith("flow blocking_") for name in pipeline.threads.values())


async def test_blocking_batches_run_in_threads_too(start: Start) -> None:
    class Batches(Blocking):
        queue = "numbers"
        batching = Batching(size=2)

        def handle_batch(self, batch: Batch[int]) -> None:
            self.threads[-1] = threading.current_thread().name
            batch.reject(batch[1], "the second")

    line = await start(Batches)
    pipeline: Any = line.engine.pipeline
    pipeline.go.set()

    await line.push(1, 2)
    await until(lambda: not line.engine.unfinished)

    assert pipeline.threads[-1].startswith("flow batches_")
    assert line.account == {"received": 2, "delivered": 1, "parked": 1}


async def test_a_thread_that_hangs_is_given_up_and_keeps_its_place(start: Start) -> None:
    """Nothing can end a thread: when all of them hang, the pipeline says that it is stuck."""
    line = await start(Blocking)
    pipeline: Any = line.engine.pipeline
    await line.push(1, 2)
    await until(lambda: len(pipeline.threads) == 2)

    await line.advance(3.0)
    hanging = line.engine.stuck()
    pipeline.go.set()
    await until(lambda: line.engine.stuck() is None)
    await line.push(3)
    await until(lambda: not line.engine.unfinished)

    assert hanging == "every thread of blocking hangs in a callback that was given up"
    assert (sorted(line.rejected), line.acked) == ([1, 2], [3])


async def test_a_drain_waits_for_no_thread(start: Start) -> None:
    line = await start(Blocking)
    pipeline: Any = line.engine.pipeline
    await line.push(1)
    await until(lambda: pipeline.threads)

    with anyio.fail_after(10):
        hung = await line.engine.drain(0.2)
    pipeline.go.set()

    assert hung == 1
    assert line.released == [1]


async def test_an_iterator_that_is_empty_is_an_error_like_any_other(start: Start) -> None:
    """`next` raises what no future may hold: its callback would seem to hang."""

    class Empty(Blocking):
        """Looks for something that is not there."""

        queue = "numbers"

        def handle_message(self, message: Message[Number]) -> int:
            return next(iter(()))

    line = await start(Empty)

    await line.push(1)
    await until(lambda: line.rejected == [1])


class Kept:
    """What a call returns that nobody waits for."""


async def test_what_was_given_up_and_ended_is_forgotten() -> None:
    """Else every call that takes too long would stay in memory, where nobody asks for the health."""
    threads = Threads(1, "forgetful")
    results: weakref.WeakSet[Kept] = weakref.WeakSet()
    ends: list[threading.Event] = []

    def call() -> Kept:
        result = Kept()
        results.add(result)
        end = threading.Event()
        ends.append(end)
        assert end.wait(30)
        return result

    for count in range(1, 4):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(threads.run, call)
            await until(lambda count=count: len(ends) == count)
            tasks.cancel_scope.cancel()
        ends[-1].set()
    await threads.run(int)
    gc.collect()
    left, hanging = len(results), threads.exhausted
    threads.close()

    assert left <= 1, "the last one, until the next is given up"
    assert not hanging
