"""Runs blocking callbacks in threads of the pipeline's own, as many as it may run callbacks."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from typing import Any, TypeVar

T = TypeVar("T")


class Threads:
    """A bounded number of threads. Nothing can end a thread: one whose call was given up keeps its place."""

    def __init__(self, count: int, name: str) -> None:
        """Start up to *count* threads, when they are needed."""
        self._count = count
        self._executor = ThreadPoolExecutor(count, thread_name_prefix=f"flow {name}")
        self._abandoned: set[Future[Any]] = set()

    @property
    def exhausted(self) -> bool:
        """Whether every thread hangs in a call that was given up, so that none can start any more."""
        return len(self._hanging()) >= self._count

    async def run(self, function: Callable[..., T], *args: object) -> T:
        """Return what *function* returns in a thread; when cancelled, give it up, and it may go on alone."""
        future = self._executor.submit(copy_context().run, called, function, *args)
        try:
            return await asyncio.wrap_future(future)
        finally:
            if not future.cancel() and not future.done():
                self._hanging().add(future)

    def _hanging(self) -> set[Future[Any]]:
        """Return what still runs of that which was given up; the rest is forgotten."""
        self._abandoned = {one for one in self._abandoned if not one.done()}
        return self._abandoned

    def close(self) -> None:
        """Start nothing more; what runs goes on, and nobody waits for it."""
        self._executor.shutdown(wait=False, cancel_futures=True)


def called(function: Callable[..., T], *args: object) -> T:
    """Return what *function* returns; what no future may hold is raised as another error."""
    try:
        return function(*args)
    except StopIteration as error:
        raise RuntimeError("raised StopIteration") from error
