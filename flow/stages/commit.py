"""Writes what was decided into the ledger, in bulk, before the broker is told."""

import logging
import random
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

import anyio

from flow.clock import Clock
from flow.errors import LedgerError
from flow.ledger import Entry, Found, Ledger, Row
from flow.message import Message, Origin, State
from flow.metrics import PipelineMetrics
from flow.outcome import Decision
from flow.stages.bell import Bell
from flow.stages.rows import row

LARGEST = 1000  # rows in one write
PATIENCE = 15.0  # seconds for one call of the ledger
SHORTEST, LONGEST = 0.5, 30.0  # seconds between two tries while the ledger is down

T = TypeVar("T")

log = logging.getLogger("flow")


class GroupCommit:
    """The way into the ledger: whatever is decided while a write is under way is the next write.

    While the ledger is down, what was decided waits, and nothing new is started.
    """

    def __init__(
        self,
        ledger: Ledger,
        metrics: PipelineMetrics,
        clock: Clock,
        *,
        written: Callable[[Entry], None],
        changed: Callable[[], None],
        progress: Callable[[], None],
        claimed: Callable[[Message[Any]], str | None],
        ready: Callable[[], Awaitable[None]],
    ) -> None:
        """Take *written*, which tells the broker of what is safe, and *changed*, called when the ledger fails
        or works again. *progress* is called after each write, *claimed* for the key of a delivered message's
        claim, *ready* to see whether all works again."""
        self.fault: str | None = None
        """Why the ledger cannot be written now."""
        self.ledger = ledger
        self.rows: set[int] = set()
        """The ids of the unsettled rows that this process is settling: they answer nothing else."""
        self._metrics = metrics
        self._clock = clock
        self._written = written
        self._changed = changed
        self._progress = progress
        self._claimed = claimed
        self._ready = ready
        self._bell = Bell()
        self._waiting: list[tuple[Entry, Row]] = []
        self._writing: list[tuple[Entry, Row]] = []
        self._notes: list[Row] = []
        self._told: dict[Origin, list[Entry]] = {}  # the broker was told; it is not known to know
        self._opening: set[anyio.CancelScope] = set()
        self._closed = False
        self._wrote = anyio.Event()  # something, after this moment
        self._known: set[int] = set()  # rows that the broker knows of, which is not written yet

    @property
    def open(self) -> int:
        """How many decided messages are not written yet."""
        return len(self._waiting) + len(self._writing)

    def put(self, message: Message[Any], decision: Decision) -> None:
        """Take over *message*, of which *decision* was made: it is written, then told."""
        entry = message.entry = Entry(message, decision)
        message.state = State.DECIDED
        self._waiting.append((entry, self._row(message, decision, unsettled=True)))
        self._bell.ring()

    def note(self, message: Message[Any], decision: Decision) -> None:
        """Write the *decision* down for people only: *message* is worked again here."""
        if self.fault is None and len(self._notes) < LARGEST:  # else it is not worth keeping
            self._notes.append(self._row(message, decision, unsettled=False))
            self._bell.ring()

    def told(self, entry: Entry) -> None:
        """Take note that the broker was told of *entry*."""
        if entry.id is not None:
            self.rows.add(entry.id)
            self._told.setdefault(entry.message.origin, []).append(entry)

    def answered(self, found: Found, message: Message[Any]) -> Entry:
        """Return the entry of a row that was *found* and is to answer *message*."""
        entry = Entry(message, found.decision)
        entry.id, entry.written = found.id, True
        self.rows.add(found.id)
        return entry

    def release(self, entry: Entry) -> None:
        """Settle *entry* no more: its session has ended, and the row may answer the redelivery."""
        if entry.id is not None:
            self.rows.discard(entry.id)

    def unconfirmed(self) -> dict[Origin, int]:
        """Return the origins that were told something which is not known to have arrived, and how much."""
        return {origin: len(entries) for origin, entries in self._told.items()}

    def arrived(self, origin: Origin, count: int | None = None) -> None:
        """Take note that the first *count* things which *origin* was told have arrived, or all.

        Nothing happens when its session has ended meanwhile: then `lost` has judged them.
        """
        entries = self._told.pop(origin, [])
        self.confirm(entries[:count])
        if count is not None and entries[count:]:
            self._told[origin] = entries[count:]

    def confirm(self, entries: Sequence[Entry]) -> None:
        """Take note that the broker knows of *entries*."""
        for entry in entries:
            if entry.id is not None and entry.id in self.rows:
                self._known.add(entry.id)
        self._bell.ring()

    def lost(self, unconfirmed: Sequence[Message[Any]], origin: Origin | None = None) -> None:
        """Take note that *origin*, or all that is not alive, ended, and the broker may not know what is
        *unconfirmed* of that."""
        doubtful = set(unconfirmed)
        for ended in [one for one in self._told if not one.alive and origin in (None, one)]:
            entries = self._told.pop(ended)
            for entry in entries:
                if entry.message in doubtful:
                    self.release(entry)
            self.confirm([entry for entry in entries if entry.message not in doubtful])

    def clear(self) -> list[Message[Any]]:
        """Give up what is not written yet and return it; a write under way may still succeed."""
        given_up = [entry.message for entry, _ in [*self._writing, *self._waiting]]
        self._waiting.clear()
        self._writing.clear()
        return given_up

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            if self.fault is not None:
                await self._try(self._ready)
            if not (self._waiting or self._notes or self._known):
                await self._bell.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write all that waits now, however long it takes."""
        if self._waiting or self._notes:
            self._writing, self._waiting = self._waiting[:LARGEST], self._waiting[LARGEST:]
            notes, self._notes = self._notes, []
            await self._write(self._writing, notes)
        if self._known:
            known = sorted(self._known)
            await self._try(lambda: self.ledger.settle(known))
            self._known.difference_update(known)  # only now: a drain that ends this writes them once more
            self.rows.difference_update(known)

    async def ask(self, question: Callable[[Ledger], Awaitable[T]]) -> T:
        """Ask the ledger until it answers."""
        return await self._try(lambda: question(self.ledger))

    async def before(self, call: Callable[[], Awaitable[T]]) -> T:
        """Note with *call* what is about to be started; wait until that can be noted.

        What was decided before is written by then: what is started may end the process.

        Raises:
            LedgerError: nothing is started any more.
        """
        with anyio.CancelScope() as scope:
            self._opening.add(scope)
            if self._closed:
                scope.cancel()
            try:
                noted = await self._try(call)
                await self._kept({entry for entry, _ in (*self._writing, *self._waiting)})
                return noted
            finally:
                self._opening.discard(scope)
        raise LedgerError("nothing is started any more")

    async def _kept(self, decided: set[Entry]) -> None:
        """Wait until what was *decided* is written."""
        while not decided.isdisjoint(entry for entry, _ in (*self._writing, *self._waiting)):
            await self._wrote.wait()

    def close(self) -> None:
        """Let nobody wait in `before` any more."""
        self._closed = True
        for scope in self._opening:
            scope.cancel()

    async def _write(self, writing: list[tuple[Entry, Row]], notes: list[Row]) -> None:
        rows = [*(one for _, one in writing), *notes]
        began = self._clock.now()
        ids = await self._try(lambda: self.ledger.write(rows))
        self._metrics.ledger_write_seconds.observe(self._clock.now() - began)
        self._writing = []
        for (entry, written), number in zip(writing, ids, strict=False):
            entry.id, entry.written = number, True
            if number is None:
                self._metrics.ledger_refused += 1
                log.error("the ledger refused the row of %r (attempt %d)", entry.message, written.attempt)
            else:
                self.rows.add(number)
        for entry, _ in writing:
            self._written(entry)
        self._wrote.set()
        self._wrote = anyio.Event()
        self._progress()

    async def once(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the ledger once; if that fails, nothing is started until it works again.

        Raises:
            LedgerError: it failed.
        """
        try:
            with anyio.fail_after(PATIENCE):
                result = await call()
        except LedgerError as error:
            self._failed(str(error))
            raise
        except TimeoutError:
            late = LedgerError(f"no answer in {PATIENCE:g} s")
            self._failed(str(late))
            raise late from None
        self._worked()
        return result

    async def _try(self, call: Callable[[], Awaitable[T]]) -> T:
        """Call the ledger until it works."""
        delay = SHORTEST
        while True:
            with suppress(LedgerError):
                return await self.once(call)
            await self._sleep(random.uniform(delay / 2, delay))
            delay = min(LONGEST, delay * 2)

    def _failed(self, reason: str) -> None:
        """Take note that the ledger does not work."""
        if self.fault is None:
            log.error("%s: the ledger is down, nothing is started: %s", self._metrics.pipeline, reason)
        first, self.fault = self.fault is None, reason
        self._metrics.ledger_up = False
        if first:
            self._bell.ring()
            self._changed()

    def _worked(self) -> None:
        """Take note that the ledger works."""
        if self.fault is not None:
            log.warning("%s: the ledger works again", self._metrics.pipeline)
            self.fault = None
            self._metrics.ledger_up = True
            self._changed()

    async def _sleep(self, seconds: float) -> None:
        over = anyio.Event()
        timer = self._clock.call_at(self._clock.now() + seconds, over.set)
        try:
            await over.wait()
        finally:
            timer.cancel()

    def _row(self, message: Message[Any], decision: Decision, *, unsettled: bool) -> Row:
        claim = self._claimed(message)
        return row(self._metrics.pipeline, message, decision, claim=claim, unsettled=unsettled)
