"""A ledger that fails."""

from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from datetime import datetime
from typing import Any, TypeVar

import anyio

from flow.errors import LedgerError
from flow.ledger import Found, Row
from flow.outcome import Outcome
from flow.records.memory_ledger import MemoryLedger

T = TypeVar("T")


class FaultyLedger(MemoryLedger):
    """A ledger that outlives its engines; it may fail, before or after it has written, and be slow."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.fails = ""  # "before" or "after" it has done what it was asked
        self.takes = 0.0  # seconds
        self.closed = False  # who asks has been killed
        self.identities: dict[bytes, int] = {}
        self.recorded: Counter[tuple[int, Outcome]] = Counter()  # by number
        self._written: dict[tuple[bytes, datetime], int | None] = {}

    async def _answer(self, ask: Callable[..., Coroutine[Any, Any, T]], *args: Any) -> T:
        await anyio.sleep(self.takes)
        if self.fails == "before" or self.closed:
            raise LedgerError("the ledger is away")
        result = await ask(*args)
        if self.fails == "after":
            raise LedgerError("the ledger went away")
        return result

    async def write(self, rows: Sequence[Row]) -> Sequence[int | None]:
        return await self._answer(self._write, rows)

    async def _write(self, rows: Sequence[Row]) -> Sequence[int | None]:
        new = [row for row in rows if (row.identity, row.at) not in self._written]
        for row, number in zip(new, await super().write(new), strict=True):
            self._written[row.identity, row.at] = number
            if row.unsettled:
                self.recorded[self.identities[row.identity], row.outcome] += 1
        return [self._written[row.identity, row.at] for row in rows]

    async def unsettled(self, *args: Any) -> Sequence[Found]:
        return await self._answer(super().unsettled, *args)

    async def settle(self, ids: Sequence[int]) -> None:
        await self._answer(super().settle, ids)

    async def ready(self) -> None:
        await self._answer(super().ready)

    async def take(self, *args: Any) -> Any:
        return await self._answer(super().take, *args)

    async def begin(self, *args: Any) -> bool:
        return await self._answer(super().begin, *args)

    async def free(self, *args: Any) -> None:
        await self._answer(super().free, *args)

    async def doubt(self, *args: Any) -> None:
        await self._answer(super().doubt, *args)
