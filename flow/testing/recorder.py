"""The stages of a pipeline, taking notes of what happened to each message."""

from collections.abc import Iterator, Sequence
from typing import Any

from flow.batch import Batch
from flow.breaker import Breaker
from flow.message import Message
from flow.outcome import Decision, Outcome
from flow.stages.acknowledger import Acknowledger
from flow.stages.deliverer import Deliverer
from flow.stages.engine import Engine
from flow.stages.mark import Mark


class Recorder(Acknowledger):
    """Carries decisions out as ever, and notes the error and the batch behind each of them."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.deliverers: Sequence[Deliverer] = ()
        self.holds = True
        """Whether what asks for another attempt soon is held and worked again, or settled as retrying."""
        self.telling = 0
        """How many `handle_failed` run."""
        self.causes: dict[Message[Any], tuple[Exception | None, Batch[Any] | None]] = {}
        """The error and the batch of every message that is decided."""
        self._errors: dict[Message[Any], Exception] = {}
        self._batches: dict[Message[Any], Batch[Any]] = {}
        self._noted: set[Batch[Any]] = set()

    def delivered(self, messages: Sequence[Message[Any]]) -> None:
        """Acknowledge *messages* as delivered."""
        for message in messages:
            self.causes[message] = None, self._batch(message)
        super().delivered(messages)

    async def failed(self, messages: Sequence[Message[Any]], error: Exception, where: str) -> None:
        """Decide what becomes of *messages* that ended with *error* in the callback *where*."""
        self._errors.update(dict.fromkeys(messages, error))
        await super().failed(messages, error, where)

    async def decide(self, message: Message[Any], decision: Decision) -> None:
        """Carry the *decision* out."""
        batch, error = self._batch(message), self._errors.pop(message, None)
        if error is None and batch is not None:
            error = batch.marks.get(message)
        self.causes[message] = error, batch
        self.telling += 1
        try:
            await super().decide(message, decision)
        finally:
            self.telling -= 1

    def carry_out(self, message: Message[Any], decision: Decision) -> None:
        """Park, hold or settle *message* as decided."""
        if decision.outcome is Outcome.RETRYING and not self.holds:
            self.settle(message, decision)
        else:
            super().carry_out(message, decision)

    def _batch(self, message: Message[Any]) -> Batch[Any] | None:
        """Return the batch in hand that holds *message*, if there is one."""
        in_hand = [mark.work for one in self.deliverers for mark in one.marks if mark.work is not None]
        for batch in in_hand:
            if batch not in self._noted:
                self._noted.add(batch)
                self._batches.update(dict.fromkeys(batch.messages, batch))
        found = self._batches.get(message)
        return found if found in in_hand else None


class RecordingEngine(Engine):
    """An engine of whose insides a test may know more."""

    acknowledging = Recorder

    @property
    def recorder(self) -> Recorder:
        """The acknowledger."""
        assert isinstance(self.acknowledger, Recorder)
        return self.acknowledger

    @property
    def waiting(self) -> tuple[int, int]:
        """How many messages wait to be handled and to be delivered; it changes while anything goes on."""
        return len(self._processor.reception), sum([one.batcher.waiting for one in self.deliverers.values()])

    def breakers(self) -> Iterator[Breaker]:
        """Yield the breaker of every target that is down."""
        gates = [self._processor.gates, *(one.gates for one in self.deliverers.values())]
        return (breaker for one in gates for breaker in one.down.values())

    def workers(self) -> Iterator[tuple[Mark[Any], float]]:
        """Yield what every worker has in hand, with the most seconds that its callback may take."""
        for mark in self._processor.marks:
            yield mark, self.pipeline.handler_timeout
        for deliverer in self.deliverers.values():
            for slot in deliverer.marks:
                yield slot, self.pipeline.batch_timeout
