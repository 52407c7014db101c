"""Which signals are requests of their own."""

import signal
from collections.abc import AsyncIterator

import anyio
import pytest

from flow.signals import TOGETHER, apart


@pytest.mark.anyio
async def test_signals_that_come_together_are_one_request() -> None:
    async def come() -> AsyncIterator[signal.Signals]:
        yield signal.SIGTERM
        yield signal.SIGTERM
        yield signal.SIGINT
        await anyio.sleep(TOGETHER)
        yield signal.SIGINT

    assert [one async for one in apart(come())] == [signal.SIGTERM, signal.SIGINT]
