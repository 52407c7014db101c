"""Claims messages before the delivering callback, so that no effect happens twice."""

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from flow.batch import Batch
from flow.claim import MARGIN, Claim, Claims, Hold, Standing
from flow.clock import Clock, Timer
from flow.errors import FlowError, LedgerError
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.outcome import Outcome, Reject, Skip, Verdict
from flow.stages.acknowledger import Acknowledger
from flow.stages.commit import GroupCommit
from flow.stages.guard import Guard

LOOK = 5.0  # seconds after which a claim that is held elsewhere is looked at again, at the latest
SOON = 0.5  # seconds
DUPLICATE = "a duplicate: it was done before"
UNKNOWN = "outcome unknown: a worker ended in the middle of it"
OVER = (State.STALE, State.SETTLED)

Later = Callable[[Message[Any]], None]


class OutcomeUnknown(FlowError):
    """A block of `batch.sending` ended with an error that the callback kept to itself."""


class Claimant:
    """The claims of one pipeline in this process."""

    def __init__(
        self,
        claim: Claim,
        claims: Claims,
        commit: GroupCommit,
        acknowledger: Acknowledger,
        metrics: PipelineMetrics,
        clock: Clock,
        timeout: float,
    ) -> None:
        """Claim for as long as the delivering callback may take, *timeout* seconds, and a margin."""
        self._claim = claim
        self._claims = claims
        self._commit = commit
        self._acknowledger = acknowledger
        self._metrics = metrics
        self._clock = clock
        self._seconds = timeout + MARGIN
        self._holder = uuid4().hex
        self._keys: dict[Message[Any], str] = {}  # of what is claimed here
        self._mine: dict[str, Message[Any]] = {}  # the other way round
        self._begun: set[Message[Any]] = set()  # whose effect may have happened
        self._later: dict[Message[Any], Timer] = {}  # whose claims are held elsewhere
        self._free: list[str] = []  # to be let go of
        self._sent: dict[str, None] = {}  # whose effects happened, which is not noted yet

    @property
    def waiting(self) -> int:
        """How many messages wait for claims that are held elsewhere."""
        return len(self._later)

    def key(self, message: Message[Any]) -> str | None:
        """Return the key that is claimed for *message*, if it is delivered."""
        delivered = message.decision is not None and message.decision.outcome is Outcome.DELIVERED
        return self._keys.get(message) if delivered else None

    async def admit(self, batch: Batch[Any], later: Later) -> None:
        """Claim the messages of *batch* and take out of it what cannot be delivered now.

        What is held elsewhere is given to *later*, when its claim is to be looked at again.

        Raises:
            LedgerError: nothing can be claimed now.
        """
        standings = await self._take(batch.messages)
        admitted = []
        for message in [one for one in batch.messages if one.state is State.BATCHED]:
            standing = standings[message]
            if isinstance(standing, Exception):
                message.state = State.RUNNING
                await self._acknowledger.failed([message], standing, "claim.key")
            elif standing.hold is Hold.OURS:
                admitted.append(message)
            elif standing.hold is Hold.ELSEWHERE:
                self._wait(message, standing, later)
            else:
                message.state = State.RUNNING
                await self._acknowledger.failed([message], self._verdict(standing), "claim")
        batch.messages[:] = [message for message in admitted if message.state is State.BATCHED]
        batch.claim = self._sending

    def handling(self, handle: Callable[[Message[Any]], Any], later: Later) -> Callable[[Message[Any]], Any]:
        """Return *handle*, a `handle_message` that delivers, with a claim around each call."""

        def again(message: Message[Any]) -> None:
            message.state = State.WAITING
            later(message)

        async def claimed(message: Message[Any]) -> Any:
            try:
                standing = (await self._take([message]))[message]
                if isinstance(standing, Standing) and standing.hold is Hold.OURS:
                    await self._begin(message)
            except LedgerError:
                standing = Standing(Hold.ELSEWHERE)
            if isinstance(standing, Exception):
                raise standing
            if standing.hold is Hold.ELSEWHERE:
                self.forget(message)
                return self._wait(message, standing, again)
            if standing.hold is not Hold.OURS:
                raise self._verdict(standing)
            guard = Guard()
            with guard:
                result = handle(message)
                if inspect.isawaitable(result):
                    result = await result
            if guard.error is None or isinstance(guard.error, Verdict):
                self._begun.discard(message)
            if guard.error is not None:
                raise guard.error
            return result

        return claimed

    async def ended(
        self, batch: Batch[Any], unmarked: list[Message[Any]], error: Exception | None
    ) -> list[Message[Any]]:
        """Let go of what `handle_batch` has marked; return those of *unmarked* that its end decides.

        What it left in the middle of a block is decided here.
        """
        if batch.marks:
            self._begun -= batch.marks.keys()
            await self.release(list(batch.marks))
        doubtful = [message for message in unmarked if message in self._begun]
        if not doubtful:
            return unmarked
        kept = OutcomeUnknown("batch.sending ended with an error that handle_batch kept to itself")
        await self._acknowledger.failed(doubtful, error or kept, "handle_batch")
        return [message for message in unmarked if message not in doubtful]

    async def release(self, messages: Sequence[Message[Any]]) -> set[Message[Any]]:
        """Let go of the claims of *messages*, which are not delivered; return those that may be, unknown."""
        unknown = {message for message in messages if message in self._begun and message in self._keys}
        if self._claim.unknown == "again":
            unknown = set()
        doubtful = [self._keys[message] for message in unknown]
        self._free += [self._keys[one] for one in messages if one in self._keys and one not in unknown]
        for message in messages:
            self.forget(message)
        with suppress(LedgerError):  # they end by themselves
            if doubtful:
                name, holder = self._metrics.pipeline, self._holder
                await self._commit.once(lambda: self._claims.doubt(name, doubtful, holder))
            await self.flush()
        return unknown

    def returned(self, message: Message[Any]) -> None:
        """Take note that *message* goes back to its queue; its claim ends, unless its effect has begun."""
        key = self._keys.get(message)
        if key is not None and message not in self._begun and self.key(message) is None:
            self._free.append(key)
        self.forget(message)

    def forget(self, message: Message[Any]) -> None:
        """Forget *message*: its claim is over, or ends by itself."""
        key = self._keys.pop(message, None)
        if key is not None:
            self._sent.pop(key, None)
        if key is not None and self._mine.get(key) is message:
            del self._mine[key]
        self._begun.discard(message)

    def discard_stale(self) -> None:
        """Forget what is stale: the broker delivers it again."""
        for message in [one for one in self._keys if one.state is State.STALE]:
            self.forget(message)
        for message in [one for one in self._later if one.state is State.STALE]:
            self._later.pop(message).cancel()

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Wait no more for the claims of messages of *queue*, or of all, and return them."""
        found = [message for message in self._later if queue is None or message.queue == queue]
        for message in found:
            self._later.pop(message).cancel()
        return found

    async def flush(self) -> None:
        """Let go of the claims that are not needed any more.

        Raises:
            LedgerError: it cannot be noted now.
        """
        if self._free:
            keys, self._free = self._free, []
            name, holder = self._metrics.pipeline, self._holder
            await self._commit.once(lambda: self._claims.free(name, keys, holder))

    async def _take(self, messages: Sequence[Message[Any]]) -> dict[Message[Any], Standing | Exception]:
        """Claim *messages*; return how their claims stand, or why one cannot be claimed."""
        await self.flush()
        standings: dict[Message[Any], Standing | Exception] = {}
        guard, wanted = Guard(), dict[str, Message[Any]]()
        for message in messages:
            key = ""
            with guard:
                key = self._claim.key_of(message)
            holder = self._mine.get(key, message)
            if guard.error is not None:
                standings[message] = guard.error
            elif key in wanted or not (holder is message or holder.state in OVER):
                standings[message] = Standing(Hold.ELSEWHERE)  # with another copy, here
            else:
                wanted[key] = self._mine[key] = message
                self._keys[message] = key
        if not wanted:
            return standings
        name, keys, unknown = self._metrics.pipeline, list(wanted), self._claim.unknown
        try:
            found = await self._commit.once(
                lambda: self._claims.take(name, keys, self._holder, self._seconds, unknown)
            )
        except BaseException:
            for message in wanted.values():
                self.forget(message)
            raise
        for key, message in wanted.items():
            standings[message] = standing = found[key]
            if standing.hold is not Hold.OURS or message.state is State.STALE:
                self.forget(message)
        return standings

    async def _begin(self, message: Message[Any]) -> None:
        """Note that the effect for *message* begins.

        Raises:
            LedgerError: it cannot be noted, or the claim was lost.
        """
        key = self._keys[message]
        name = self._metrics.pipeline
        sent = dict(self._sent)  # told along: of those before this one nothing is unknown any more
        begun = await self._commit.once(
            lambda: self._claims.begin(name, key, self._holder, self._seconds, list(sent))
        )
        for one in sent:
            self._sent.pop(one, None)
        if not begun:
            raise LedgerError(f"{name} has lost a claim before its effect began")
        self._begun.add(message)

    @asynccontextmanager
    async def _sending(self, batch: Batch[Any], message: Message[Any]) -> AsyncIterator[None]:
        if message in self._begun or message in batch.sent:
            raise ValueError(f"{message!r} has been sent in this batch already")
        await self._begin(message)
        try:
            yield
        except Verdict:
            self._begun.discard(message)
            raise
        self._begun.discard(message)
        if message not in batch.marks:
            batch.sent.add(message)
            self._sent[self._keys[message]] = None

    def _wait(self, message: Message[Any], standing: Standing, later: Later) -> None:
        """Keep *message* until its claim is to be looked at again."""
        living = message.living() if message.state is State.RUNNING else message
        if living is None:
            return  # its redelivery is worked
        living.state = State.BATCHED
        delay = SOON if standing.seconds <= 0 else min(standing.seconds + SOON, LOOK)
        self._later[living] = self._clock.call_at(
            self._clock.now() + delay, lambda: self._look(living, later)
        )

    def _look(self, message: Message[Any], later: Later) -> None:
        del self._later[message]
        if message.state is State.BATCHED:
            later(message)

    def _verdict(self, standing: Standing) -> Verdict:
        if standing.hold is Hold.UNKNOWN:
            return Reject(UNKNOWN)
        self._metrics.duplicates_skipped += 1
        return Skip(DUPLICATE)
