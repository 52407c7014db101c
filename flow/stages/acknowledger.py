"""Carries out what was decided of a message: ledger, broker verb, numbers; each delivery once."""

import logging
import math
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

import anyio

from flow.clock import Clock
from flow.codec import TooLarge
from flow.errors import DecodeError
from flow.ledger import Entry
from flow.memory import Answer
from flow.message import Message, State
from flow.metrics import PipelineMetrics
from flow.outcome import DELIVERED, Decision, Outcome, Verdict
from flow.pipeline import Pipeline
from flow.retries import describe, judge
from flow.stages.commit import GroupCommit
from flow.stages.complaint import QUIET, Complaint
from flow.stages.guard import Guard

log = logging.getLogger("flow")


class Claiming(Protocol):
    """The claims on messages."""

    async def release(self, messages: Sequence[Message[Any]]) -> Collection[Message[Any]]:
        """Let go of the claims of *messages*, which are not delivered; return those that may be, unknown."""

    def returned(self, message: Message[Any]) -> None:
        """Take note that *message* goes back to its queue."""

    def forget(self, message: Message[Any]) -> None:
        """Forget *message*: what becomes of its claim is written."""


class Acknowledger:
    """Settles each delivery once, or notes what was decided when its session has ended."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        metrics: PipelineMetrics,
        clock: Clock,
        *,
        park: Callable[[Message[Any], Decision], None],
        hold: Callable[[Message[Any], float], bool],
        keep: Callable[[Message[Any]], None],
        rejectable: Callable[[str], bool],
        ended: Callable[[Message[Any]], None],
    ) -> None:
        """Take *park*, *hold* and *keep*, which carry out what is more than a verb at the broker.

        *hold* keeps a message for another attempt and returns False when it must be rejected now. *keep*
        does so in place of every rejection from a queue that is not *rejectable*. *ended* is told the end of
        each message that was worked alone.
        """
        self._pipeline = pipeline
        self._metrics = metrics
        self._now = clock.now
        self._park = park
        self._hold = hold
        self._keep = keep
        self._rejectable = rejectable
        self._ended = ended
        self.commit: GroupCommit | None = None
        """With a ledger: what writes a decision there before the broker is told."""
        self.claims: Claiming | None = None
        """What claims messages, if the pipeline has a claim."""
        self._complaint = Complaint(pipeline.name, clock)
        self._told_at = -math.inf  # when a body that is too large was told last
        self._observed = type(pipeline).handle_failed is not Pipeline.handle_failed

    def delivered(self, messages: Sequence[Message[Any]]) -> None:
        """Acknowledge *messages* as delivered."""
        if self.commit is not None:
            for message in messages:
                self.settle(message, DELIVERED)
            return
        now, wall = self._now(), time.time()
        metrics = self._metrics
        accounts = metrics.accounts
        first_attempts, received_at, burst = 0, 0.0, 0
        for message in messages:
            if message.state is not State.RUNNING:
                continue
            message.decision = DELIVERED
            if message.alone:
                self._ended(message)
            origin = message.origin
            if not origin.alive:
                self._stale(message)
                continue
            message.state = State.SETTLED
            origin.ack(message)
            accounts[origin.queue].delivered += 1
            if message.held or b"x-death" in message.header:
                metrics.attempts.observe(message.attempt)
            else:
                first_attempts += 1
            if message.received_at == received_at:
                burst += 1
            else:
                metrics.settle_seconds.observe_many(now - received_at, burst)
                received_at, burst = message.received_at, 1
            if message.occurred_at is not None:
                metrics.record_seconds.observe(wall - message.occurred_at.timestamp())
        if burst:
            metrics.settle_seconds.observe_many(now - received_at, burst)
            metrics.attempts.observe_many(1, first_attempts)
            metrics.last_success_at = wall

    async def failed(self, messages: Sequence[Message[Any]], error: Exception, where: str) -> None:
        """Decide what becomes of *messages* that ended with *error* in the callback *where*."""
        if not isinstance(error, Verdict | DecodeError):
            self._say(where, messages, error)
        elif isinstance(error, TooLarge) and self._now() - self._told_at >= QUIET:
            self._told_at = self._now()
            log.warning(
                "%s: %r stays in the retry loop until max_body is raised: %s",
                self._pipeline.name,
                messages[0],
                error,
            )
        unknown = () if self.claims is None else await self.claims.release(messages)
        decisions = []
        for message in messages:
            decision = judge(error, message.attempt, self._pipeline.retries)
            if message in unknown:
                decision = Decision(Outcome.PARKED, f"outcome unknown: {decision.reason}")
            await self.decide(message, decision)
            decisions.append(decision)
        if isinstance(error, Verdict):
            self._complaint.hear(decisions)

    async def marked(self, verdicts: Mapping[Message[Any], Verdict]) -> None:
        """Decide what becomes of messages that a callback has marked."""
        decisions = []
        for message, verdict in verdicts.items():
            decision = judge(verdict, message.attempt, self._pipeline.retries)
            await self.decide(message, decision)
            decisions.append(decision)
        self._complaint.hear(decisions)

    async def decide(self, message: Message[Any], decision: Decision) -> None:
        """Tell `handle_failed` of a failure, then carry the *decision* out; once for each delivery."""
        if message.state is not State.RUNNING:
            return
        if self._observed and decision.outcome in (Outcome.RETRYING, Outcome.PARKED):
            guard = Guard()
            with guard, anyio.fail_after(self._pipeline.handler_timeout):
                await self._pipeline.handle_failed(message, decision.outcome, decision.reason)
            if guard.error is not None:
                self._say("handle_failed", [message], guard.error)
        self.carry_out(message, decision)

    def _say(self, where: str, messages: Sequence[Message[Any]], error: Exception) -> None:
        """Log that the callback *where* failed, and for which message, or for how many; with ids only."""
        whom = f"{len(messages)} messages" if messages else "messages that it had marked"
        if len(messages) == 1:
            whom = repr(messages[0])
        name = type(self._pipeline).__name__
        log.error("%s.%s failed for %s: %s", name, where, whom, describe(error), extra=traced(error))

    def carry_out(self, message: Message[Any], decision: Decision) -> None:
        """Park, hold or settle *message* as decided."""
        if message.state is not State.RUNNING:  # a drain gave it back while `handle_failed` was told
            return
        if decision.outcome is Outcome.PARKED:
            self._park(message, decision)
        elif decision.outcome is Outcome.RETRYING and decision.after is not None:
            message.decision = decision
            if not self._hold(message, decision.after):
                self.settle(message, decision)
                return
            if message.alone:
                self._ended(message)  # its next attempt is another start
            if self.commit is not None:
                self.commit.note(message, decision)
        else:
            self.settle(message, decision)

    def settle(self, message: Message[Any], decision: Decision) -> None:
        """Write down what was decided, if there is a ledger, then tell the broker, as the last step; once."""
        if message.state not in (State.RUNNING, State.HELD):
            return
        message.decision = decision
        if message.alone:
            self._ended(message)
        if self.commit is not None:
            self.commit.put(message, decision)
        else:
            self._tell(message, decision)

    def written(self, entry: Entry) -> None:
        """Tell the broker what is safe in the ledger now."""
        message, commit = entry.message, self.commit
        if self.claims is not None:
            self.claims.forget(entry.first)
        if message.state is not State.DECIDED or commit is None:  # a drain gave it back
            return
        state = self._tell(message, entry.decision)
        if entry.message is not message:
            return  # its redelivery took its place
        if state is State.DECIDED:
            commit.release(entry)
            return
        commit.told(entry)
        if state is State.HELD:
            commit.confirm([entry])

    def _tell(self, message: Message[Any], decision: Decision) -> State:
        """Tell the broker what was decided; return the state that *message* is in now."""
        origin = message.origin
        if not origin.alive:
            self._stale(message)
            return State.DECIDED
        if decision.outcome is Outcome.RETRYING and not self._rejectable(message.queue):
            self._keep(message)
            return State.HELD
        message.state = State.SETTLED
        metrics, account = self._metrics, self._metrics.accounts[origin.queue]
        if decision.outcome is Outcome.RETRYING:
            origin.reject(message)
            account.retrying += 1
        else:
            origin.ack(message)
            if decision.outcome is Outcome.PARKED:
                account.parked += 1
            elif decision.outcome is Outcome.SKIPPED:
                account.skipped += 1
            else:
                account.delivered += 1
                if self.commit is not None:
                    self._succeeded(message)
        metrics.settle_seconds.observe(self._now() - message.received_at)
        metrics.attempts.observe(message.attempt)
        return State.SETTLED

    def _succeeded(self, message: Message[Any]) -> None:
        wall = self._metrics.last_success_at = time.time()
        if message.occurred_at is not None:
            self._metrics.record_seconds.observe(wall - message.occurred_at.timestamp())

    def give_back(self, message: Message[Any]) -> None:
        """Return *message* to its queue unfinished."""
        if message.state in (State.SETTLED, State.STALE, State.DECIDED):
            return
        if message.alone:
            self._ended(message)
        if self.claims is not None:
            self.claims.returned(message)
        origin = message.origin
        if origin.alive:
            message.state = State.SETTLED
            origin.release(message)
            self._metrics.accounts[origin.queue].returned += 1
        else:
            message.state = State.STALE
        if message.successor is not None:
            self.give_back(message.successor)

    def abandon(self, message: Message[Any]) -> None:
        """Return *message* to its queue although it was decided: that could not be written down."""
        if message.state is State.DECIDED:
            message.state = State.RUNNING
            self.give_back(message)

    def repeat(self, message: Message[Any], answer: Answer) -> None:
        """Settle a redelivery as its first delivery was decided, without working again."""
        self._metrics.duplicates_skipped += 1
        if not isinstance(answer, Entry):
            message.state = State.RUNNING
            self.settle(message, answer)
            return
        message.decision, message.entry, message.state = answer.decision, answer, State.DECIDED
        answer.message = message
        if answer.written:  # else it is told when it is
            self.written(answer)

    def _stale(self, message: Message[Any]) -> None:
        """Note the decision on a delivery whose session has ended; its redelivery is settled with it."""
        message.state = State.DECIDED
        self._metrics.stale_settles += 1
        if message.successor is not None and message.decision is not None:
            self.repeat(message.successor, message.entry or message.decision)


def traced(error: BaseException) -> dict[str, Any]:
    """Hand the error to the log handler, which prints its traceback only when a person asked for it."""
    return {"error": error}
