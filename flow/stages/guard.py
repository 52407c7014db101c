"""The one place where errors of the user's callbacks are caught."""

import asyncio
import math
from types import TracebackType

import anyio

from flow.errors import FlowError, LedgerError
from flow.outcome import Unavailable
from flow.retries import place

EXIT = "it wanted to end the process (SystemExit)"
CANCELLED = "it cancelled itself, or waited for something that was cancelled,"


class CallbackCancelled(FlowError):
    """A callback cancelled itself, or waited for something that was cancelled; the text names the place."""


class CallbackExit(FlowError):
    """A callback wanted to end the process, which only signals do; the text names the place."""


class CallbackTimeout(TimeoutError, FlowError):
    """A callback was cancelled because it took too long; the text names it."""


class NotNow(Exception):
    """A delivering call may not start now, although one could when its message was taken."""


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
            self.error = told(error)
            return True
        if exits(error):
            self.error = CallbackExit(f"{EXIT}{place(traceback)}: raise an error instead")
        elif isinstance(error, asyncio.CancelledError) and not ours():
            self.error = CallbackCancelled(f"{CANCELLED}{place(traceback)}")
        else:
            return False
        self.error.with_traceback(traceback)
        return True


def exits(error: BaseException) -> bool:
    """Tell whether *error* is what `sys.exit` raises, perhaps through a task group, and nothing stronger."""
    if isinstance(error, BaseExceptionGroup):
        _, others = error.split((SystemExit, Exception))
        return others is None
    return isinstance(error, SystemExit)


def told(error: Exception) -> Exception:
    """Return what a group of errors tells: its only one, or that target or ledger are away, or itself.

    A callback with a task group of its own raises groups.
    """
    if not isinstance(error, ExceptionGroup):
        return error
    parts = [told(one) for one in error.exceptions]
    away = [one for kind in (Unavailable, LedgerError) for one in parts if isinstance(one, kind)]
    found = parts if len(parts) == 1 else away
    return found[0] if found else error


def ours() -> bool:
    """Tell whether a scope around the running task was cancelled; else take a stray cancellation back."""
    if anyio.current_effective_deadline() == -math.inf:
        return True
    task = asyncio.current_task()
    while task is not None and task.cancelling():
        task.uncancel()
    return False
