"""The border to the client library: what waits for it is bounded, what it raises is translated."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import anyio

from flow.errors import BrokerError

T = TypeVar("T")

GRACE = 1.0  # seconds for what was given up to end


class Expired(Exception):
    """An operation took longer than *seconds* and was given up."""

    def __init__(self, seconds: float) -> None:
        super().__init__(seconds)
        self.seconds = seconds


Fault = Callable[[BaseException], BrokerError]
"""Translates what the library raised into a sentence of ours."""


async def bounded(
    operation: Coroutine[Any, Any, T], *, seconds: float, give_up: Callable[[], object], fault: Fault
) -> T:
    """Return what *operation* returns; after *seconds*, or when cancelled, give it up.

    The operation runs in a task of its own: the library cancels what waits for a lost connection, and a
    cancelled task of ours could not be told from one that somebody stopped. *give_up* must make it end, as
    dropping the connection does; cancelling alone waits for a peer that may be silent.

    Raises:
        BrokerError: what *fault* makes of the error, of a cancellation by the library, or of `Expired`.
    """
    task = background(operation)
    try:
        await asyncio.wait({task}, timeout=seconds)
    finally:
        expired = not task.done()
        if expired:
            give_up()
            task.cancel()
            with anyio.CancelScope(shield=True):
                await asyncio.wait({task}, timeout=GRACE)
    if expired:
        raise fault(Expired(seconds))
    return result(task, fault)


def background(operation: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
    """Start *operation* in a task of its own; an error that nobody asks for is dropped."""
    task = asyncio.get_running_loop().create_task(operation)
    task.add_done_callback(error_of)
    return task


def result(task: asyncio.Task[T], fault: Fault) -> T:
    """Return the result of a task that is done.

    Raises:
        BrokerError: what *fault* makes of its error, or of its cancellation by the library.
    """
    error = error_of(task)
    if error is not None:
        translated = fault(error)
        raise translated from (None if translated is error else error)
    return task.result()


def error_of(future: asyncio.Future[Any]) -> BaseException | None:
    """Return the error of a future that is done; a cancellation counts, as it was the library's."""
    return asyncio.CancelledError() if future.cancelled() else future.exception()
