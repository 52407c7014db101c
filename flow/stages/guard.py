"""The one place where errors of the user's callbacks are caught."""

import asyncio
import math
from types import TracebackType

import anyio


class CallbackCancelled(Exception):
    """A callback cancelled itself, or waited for something that was cancelled."""


class Guard:
    """Contains what a callback raises: `error` holds it after the block, which then counts as left normally.

    A cancellation passes when it comes from around the block; one that a callback made itself is an error
    like any other.
    """

    __slots__ = ("error",)

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> None:
        self.error = None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool:
        if error is None:
            return False
        if isinstance(error, Exception):
            self.error = error
            return True
        if isinstance(error, asyncio.CancelledError) and not ours():
            self.error = CallbackCancelled("cancelled itself").with_traceback(traceback)
            return True
        return False


def ours() -> bool:
    """Tell whether a scope around the running task was cancelled; else take a stray cancellation back."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
    return False
