"""Claims messages before the delivering callback, so that no effect happens twice."""

import inspect
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

from flow.batch import Batch
from flow.claim import MARGIN, Claim, Claims, Hold, Standing
from flow.clock import Clock
from flow.errors import FlowError, LedgerError
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.outcome import Outcome, Reject, Skip, Verdict
from flow.stages.acknowledger import Acknowledger
from flow.stages.commit import GroupCommit
from flow.stages.elsewhere import Elsewhere, Later
from flow.stages.endings import Endings
from flow.stages.guard import Guard, NotNow

DUPLICATE = "a duplicate: it was done before"
UNKNOWN = "outcome unknown: a worker ended in the middle of it"
OVER = (State.STALE, State.SETTLED)


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
        self._seconds = timeout + MARGIN
        self._holder = uuid4().hex
        self._keys: dict[Message[Any], str] = {}  # of what is claimed here
        self._mine: dict[str, Message[Any]] = {}  # exactly the other way round
        # Whose effect may have happened, with the error that ended its block of `batch.sending`, if any.
        self._begun: dict[Message[Any], Exception | None] = {}
        self._endings = Endings(metrics.pipeline, self._holder, claims, commit)
        self._sent: dict[str, None] = {}  # whose effects happened, which is not noted yet

        self._elsewhere = Elsewhere(metrics.pipeline, clock, self._seconds)

    @property
    def waiting(self) -> int:
        """How many messages wait for claims that are held elsewhere."""
        return len(self._elsewhere)

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
        for message in list(batch.messages):
            if message.state is not State.BATCHED:  # its session ended, also while another one was failed
                continue
            standing = standings[message]
            if isinstance(standing, Exception):
                message.state = State.RUNNING
                await self._acknowledger.failed([message], standing, "claim.key")
            elif standing.hold is Hold.OURS:
                admitted.append(message)
            elif standing.hold is Hold.ELSEWHERE:
                self._elsewhere.keep(message, standing.seconds, later)
            else:
                message.state = State.RUNNING
                await self._acknowledger.failed([message], self._verdict(standing), "claim")
        batch.messages[:] = [message for message in admitted if message.state is State.BATCHED]
        batch.claim = self._sending

    async def claim(self, message: Message[Any], later: Later) -> None:
        """Claim *message*, which `handle_message` delivers; it is not RUNNING any more if it has to wait.

        Then it is given to *later*, as by `admit`. Raises the verdict if there is nothing to deliver, and
        what the user's `key` raises.

        Raises:
            LedgerError: it cannot be claimed now.
        """
        standing = (await self._take([message]))[message]
        if isinstance(standing, Exception):
            raise standing
        if standing.hold is Hold.ELSEWHERE:
            living = message.living()
            if living is not None:  # else its redelivery is worked
                self._elsewhere.keep(living, standing.seconds, later)
        elif standing.hold is not Hold.OURS:
            raise self._verdict(standing)

    def handling(self, handle: Callable[[Message[Any]], Any]) -> Callable[[Message[Any]], Any]:
        """Return *handle*, a `handle_message` that delivers, as the effect that is claimed."""

        async def claimed(message: Message[Any]) -> Any:
            try:
                await self._begin(message)
            except LedgerError as error:
                raise NotNow from error
            guard = Guard()
            with guard:
                result = handle(message)
                if inspect.isawaitable(result):
                    result = await result
            if isinstance(guard.error, Verdict):
                self._let_go(message, self._endings.free)
            if guard.error is not None:
                raise guard.error
            self._begun.pop(message, None)
            return result

        return claimed

    async def ended(
        self, batch: Batch[Any], unmarked: list[Message[Any]], error: Exception | None
    ) -> list[Message[Any]]:
        """Let go of what `handle_batch` has marked; return those of *unmarked* that its end decides.

        What it left in the middle of a block is decided here.
        """
        if batch.marks:
            for message in batch.marks:
                self._begun.pop(message, None)
            await self.release(list(batch.marks))
        doubtful = [message for message in unmarked if message in self._begun]
        kept = OutcomeUnknown("batch.sending ended with an error that handle_batch kept to itself")
        errors = {message: self._begun[message] or error or kept for message in doubtful}
        for one in {id(error): error for error in errors.values()}.values():
            some = [message for message in doubtful if errors[message] is one]
            await self._acknowledger.failed(some, one, "handle_batch")
        return [message for message in unmarked if message not in doubtful]

    async def release(self, messages: Sequence[Message[Any]]) -> set[Message[Any]]:
        """Let go of the claims of *messages*, which are not delivered; return those that may be, unknown."""
        unknown = {message for message in messages if message in self._begun and message in self._keys}
        if self._claim.unknown == "again":
            unknown = set()
        for message in messages:
            self._let_go(message, self._endings.doubtful if message in unknown else self._endings.free)
        with suppress(LedgerError):  # it is tried again before anything else is claimed
            await self.flush()
        return unknown

    def returned(self, message: Message[Any]) -> None:
        """Take note that *message* goes back to its queue; its claim ends, unless its effect has begun."""
        if message in self._begun or self.key(message) is not None:
            self.forget(message)
        else:
            self._let_go(message, self._endings.free)

    def forget(self, message: Message[Any]) -> None:
        """Forget *message*: its claim is over, or ends by itself."""
        key = self._keys.pop(message, None)
        if key is not None and (message.entry is None or message.entry.id is not None):
            self._sent.pop(key, None)  # else its row was refused
        if key is not None and self._mine.get(key) is message:
            del self._mine[key]
        self._begun.pop(message, None)

    def discard_stale(self) -> None:
        """Forget what is stale: the broker delivers it again."""
        for message in [one for one in self._keys if one.state is State.STALE]:
            self._let_go(message, self._endings.free)  # perhaps to another worker
        self._elsewhere.discard_stale()

    def clear(self, queue: str | None = None) -> list[Message[Any]]:
        """Wait no more for the claims of messages of *queue*, or of all, and return them."""
        return self._elsewhere.clear(queue)

    async def flush(self) -> None:
        """Let go of the claims that are not needed any more.

        Raises:
            LedgerError: it cannot be noted now.
        """
        await self._endings.flush()

    def _let_go(self, message: Message[Any], keys: list[str]) -> None:
        """Forget *message* and put its claim among the *keys* that end at the next flush."""
        if message in self._keys:
            keys.append(self._keys[message])
        self.forget(message)

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
            elif not (holder is message or holder.state in OVER):
                standings[message] = Standing(Hold.ELSEWHERE)  # with another copy, here
            else:
                if holder is not message:  # it is over, and would be kept for ever
                    self.forget(holder)
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
            for key, message in wanted.items():
                self._unclaim(key, message)  # it may have been claimed
            raise
        for key, message in wanted.items():
            standings[message] = standing = found[key]
            if standing.hold is not Hold.OURS:
                self.forget(message)
            elif message.state is State.STALE:
                self._unclaim(key, message)
        return standings

    def _unclaim(self, key: str, message: Message[Any]) -> None:
        """Let go of *key*, claimed for *message*, which may have been let go of before that; unless it is for
        another one now."""
        self.forget(message)
        if key not in self._mine:
            self._endings.free.append(key)

    async def _begin(self, message: Message[Any]) -> None:
        """Note that the effect for *message* begins.

        Raises:
            LedgerError: it cannot be noted, or the claim was lost.
        """
        name, key = self._metrics.pipeline, self._keys.get(message)
        lost = LedgerError(f"{name} has lost a claim before its effect began")
        if key is None:
            raise lost
        sent = list(self._sent)  # told along: of those before this one nothing is unknown any more
        try:
            if not await self._commit.once(
                lambda: self._claims.begin(name, key, self._holder, self._seconds, sent)
            ):
                raise lost
        except BaseException:
            self._let_go(message, self._endings.free)  # it may have been noted
            raise
        for one in sent:
            self._sent.pop(one, None)
        self._begun[message] = None

    @asynccontextmanager
    async def _sending(self, batch: Batch[Any], message: Message[Any]) -> AsyncIterator[None]:
        if message in self._begun or message in batch.sent:
            raise ValueError(f"{message!r} has been sent in this batch already")
        await self._begin(message)
        try:
            yield
        except Verdict:
            self._let_go(message, self._endings.free)
            raise
        except Exception as error:  # others may raise as well, or handle_batch keep it to itself
            self._begun[message] = error
            raise
        self._begun.pop(message, None)
        if message not in batch.marks:
            batch.sent.add(message)
            self._sent[self._keys[message]] = None

    def _verdict(self, standing: Standing) -> Verdict:
        if standing.hold is Hold.UNKNOWN:
            return Reject(UNKNOWN)
        self._metrics.duplicates_skipped += 1
        return Skip(DUPLICATE)
