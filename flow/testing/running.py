"""A pipeline that consumes from a broker while a test looks on."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio

from flow.broker.url import BrokerUrl
from flow.pipeline import Pipeline
from flow.runner import Runner, RunOptions

SHUTDOWN = 5.0  # seconds
TICK = 0.01  # seconds between two looks


@asynccontextmanager
async def running(pipeline: Pipeline[Any, Any], url: str) -> AsyncIterator[Runner]:
    """Run *pipeline* on the broker at *url* as `flow run` does, and drain it at the end of the block.

    Its queue must be there. `account` of what it yields counts what became of the messages so far. A drain
    takes 5 seconds at most. All that is waited for takes real time, batches and retries too.

    Raises:
        ConfigError: something is missing in the class of the pipeline, or *url* is wrong.
        BrokerError: the set-up is wrong, as when the queue does not exist; it ends the block at once.
        Exception: what the lifespan raises.
    """
    pipeline.check()
    runner = Runner(pipeline, BrokerUrl.parse(url), RunOptions(shutdown_timeout=SHUTDOWN))
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(runner.run)
            try:
                yield runner
            finally:
                runner.stop()
    except BaseExceptionGroup as group:
        error = alone(group)
        raise error from error.__cause__


async def until(true: Callable[[], object], *, within: float = 10.0) -> None:
    """Look again and again until what *true* returns is true.

    Raises:
        TimeoutError: it is not after *within* real seconds.
    """
    with anyio.move_on_after(within):
        while not true():  # noqa: ASYNC110 (what a test looks at has no event)
            await anyio.sleep(TICK)
        return
    raise TimeoutError(f"what the test waits for was not so after {within:g} s")


def alone(error: BaseException) -> BaseException:
    """Return the only exception in a group of groups; the group, if there are several."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error
