"""Requests to stop: SIGINT and SIGTERM, as they are meant by who sends them."""

import signal
from collections.abc import AsyncIterator

import anyio

TOGETHER = 0.3  # seconds


async def apart(signals: AsyncIterator[signal.Signals]) -> AsyncIterator[signal.Signals]:
    """Yield *signals*, but those that come within 0.3 s of one count as that one.

    A wrapper like `timeout` sends the same request to the process and to its group.
    """
    until = -1.0
    async for number in signals:
        now = anyio.current_time()
        if now >= until:
            until = now + TOGETHER
            yield number
