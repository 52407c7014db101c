"""Takes lines in, many at a time; what cannot be stored is handed back, line by line, with its reason."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

import anyio

from flow.errors import DatabaseError, DecodeError, FlowError, RowRefused
from flow.plumbing.lines import Lines
from flow.plumbing.submission import Action, Definition, read
from flow.plumbing.submitting import Submitted, Submitting

BATCH = 100  # lines that are stored together
PAUSE = 0.2  # seconds without a new line after which what is there is stored


@dataclass(frozen=True, slots=True)
class Wrong:
    """A line that was not stored."""

    number: int
    """Its place in the input, from 1."""
    line: bytes
    error: FlowError | None
    """Why; None when it was not tried."""


class Intake:
    """Stores a stream of lines; a failing database or `stop` ends it early, and nothing is lost by that."""

    def __init__(
        self,
        submitting: Submitting,
        wrong: Callable[[Wrong], None],
        stored: Callable[[int, Action, Submitted], None],
    ) -> None:
        """Store through *submitting*; *wrong* and *stored* are called for each line."""
        self._submitting = submitting
        self._wrong = wrong
        self._stored = stored
        self._reading = anyio.CancelScope()
        self._in_vain: list[Wrong] = []  # of the batch in hand
        self._gathered: list[bytes] = []  # the next batch, not complete yet
        self.read = 0
        self.stored = 0
        """Actions that are new."""
        self.repeated = 0
        """Actions that were submitted before."""
        self.defined = 0
        """Organisations, campaigns and action pages that were made or are as they were said."""
        self.wrong = 0
        self.stopped = False
        """Whether it ended before the end of the input."""
        self.fault: FlowError | None = None
        """What made it end early, unless `stop` was called."""

    async def run(self, lines: Lines) -> None:
        """Store all *lines*; return when each that was taken from them is stored or was handed back."""
        with self._reading:
            try:
                async for batch in batches(lines, self._gathered):
                    first = self.read + 1
                    self.read += len(batch)
                    with anyio.CancelScope(shield=True):  # whether it was stored must be known
                        await self._take(list(enumerate(batch, first)))
            except DecodeError as error:  # the input ends here
                self._end(error)
        for raw in self._gathered:  # it was stopped before they were tried
            self.read += 1
            self._wrong(Wrong(self.read, raw, None))

    def stop(self) -> None:
        """Read no more; what is being stored is still waited for."""
        self.stopped = True
        self._reading.cancel()

    async def _take(self, batch: list[tuple[int, bytes]]) -> None:
        """Store a batch: actions together, unless a definition stands between them."""
        self._in_vain = []
        actions: list[tuple[int, bytes, Action]] = []
        for number, raw in batch:
            try:
                line = read(raw)
            except DecodeError as error:
                self._refuse(number, raw, error)
                continue
            if isinstance(line, Action):
                actions.append((number, raw, line))
            elif line is not None:
                await self._submit(actions)
                actions = []
                await self._define(number, raw, line)
        await self._submit(actions)
        for wrong in sorted(self._in_vain, key=lambda one: one.number):
            self._wrong(wrong)

    async def _define(self, number: int, raw: bytes, definition: Definition) -> None:
        if self.fault is not None:
            self._hand_back(number, raw)
            return
        try:
            await self._submitting.define(definition)
        except (DecodeError, RowRefused) as error:
            self._refuse(number, raw, error)
        except DatabaseError as error:
            self._end(error)
            self._hand_back(number, raw)
        else:
            self.defined += 1

    async def _submit(self, actions: list[tuple[int, bytes, Action]]) -> None:
        if not actions:
            return
        results: list[Submitted | DecodeError] = []
        if self.fault is None:
            try:
                results = await self._submitting.submit([action for *_, action in actions])
            except RowRefused as error:
                if len(actions) == 1:
                    self._refuse(actions[0][0], actions[0][1], error)
                else:  # one spoils all: look for it
                    for one in actions:
                        await self._submit([one])
                return
            except DatabaseError as error:
                self._end(error)
        if self.fault is not None:
            for number, raw, _ in actions:
                self._hand_back(number, raw)
        for (number, raw, action), result in zip(actions, results, strict=False):
            if isinstance(result, DecodeError):
                self._refuse(number, raw, result)
            else:
                self.stored += result.status is not None
                self.repeated += result.status is None
                self._stored(number, action, result)

    def _refuse(self, number: int, raw: bytes, error: FlowError) -> None:
        self.wrong += 1
        self._in_vain.append(Wrong(number, raw, error))

    def _hand_back(self, number: int, raw: bytes) -> None:
        self._in_vain.append(Wrong(number, raw, None))

    def _end(self, error: FlowError) -> None:
        self.fault = self.fault or error
        self.stop()


async def batches(lines: Lines, batch: list[bytes]) -> AsyncIterator[list[bytes]]:
    """Yield what is there, up to a batch, without waiting long for more.

    What is cancelled leaves in *batch* what it has gathered.

    Raises:
        DecodeError: a line is too long; those before it were yielded.
    """
    while True:
        ended, fault = False, None
        with anyio.move_on_after(PAUSE if batch else None):
            try:
                batch.append(await anext(lines))
            except StopAsyncIteration:
                ended = True
            except DecodeError as error:
                ended, fault = True, error
            if not ended and len(batch) < BATCH:
                continue
        if batch:
            whole = batch.copy()
            batch.clear()
            yield whole
        if fault is not None:
            raise fault
        if ended:
            return
