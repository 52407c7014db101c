"""The end of a session, or of one of its queues, under the work: what comes again, and what need not."""

from collections.abc import Sequence
from typing import Any

from flow.memory import DeliveryMemory
from flow.message import Message, Origin, State
from flow.metrics import PipelineMetrics
from flow.stages.parts import Parts


class Loss:
    """Takes what was lost out of the stages."""

    def __init__(self, parts: Parts, memory: DeliveryMemory, metrics: PipelineMetrics) -> None:
        """Take the stages, and the *memory* that answers what comes again."""
        self._parts = parts
        self._memory = memory
        self._metrics = metrics

    def take(
        self, outstanding: Sequence[Message[Any]], unconfirmed: Sequence[Message[Any]], origin: Origin | None
    ) -> None:
        """Remember what was finished or runs, and drop the rest; `Engine.lost` says of what."""
        parts = self._parts
        for message in unconfirmed:
            if message.decision is not None:
                self._memory.remember(message)
        for message in outstanding:
            self._lose(message)
        for deliverer in parts.deliverers.values():
            deliverer.batcher.discard_stale()
        parts.processor.reception.discard_stale()
        parts.suspects.discard_stale()
        if parts.books is not None:
            parts.books.lost(unconfirmed, origin)
        parts.pace.wake()

    def _lose(self, message: Message[Any]) -> None:
        self._metrics.accounts[message.queue].stale += 1
        if message.state is State.HELD:
            self._parts.holder.let_go(message)
            message.state = State.DECIDED
        if message.state in (State.RUNNING, State.DECIDED):
            self._memory.remember(message)
        else:
            message.state = State.STALE
