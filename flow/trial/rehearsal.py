"""A dry run: a pipeline whose delivering callback keeps what it gets instead of delivering it."""

from dataclasses import dataclass, field
from typing import Any

from flow.batch import Batch
from flow.declaration import derived
from flow.message import Message
from flow.outcome import Decision, Outcome
from flow.pipeline import Pipeline

PipelineClass = type[Pipeline[Any, Any]]


@dataclass(slots=True)
class Rehearsal:
    """What the delivering callback would have got, and what would have become of everything else."""

    batches: list[Batch[Any]] = field(default_factory=list)
    messages: list[Message[Any]] = field(default_factory=list)
    """Of a pipeline without batches."""
    others: list[tuple[Message[Any], Decision | None]] = field(default_factory=list)
    """What is not delivered, with the decision; None: nothing was decided."""

    def settled(self, message: Message[Any], decision: Decision | None) -> None:
        """Note what was decided of *message*."""
        if decision is None or decision.outcome is not Outcome.DELIVERED:
            self.others.append((message, decision))

    def of(self, cls: PipelineClass) -> PipelineClass:
        """Return *cls* with a delivering callback that only notes here what it gets.

        Nothing paces it, and `handle_failed` is not told of what does not happen.
        """

        def handle_batch(_: Any, batch: Batch[Any]) -> None:
            self.batches.append(batch)

        def handle_message(_: Any, message: Message[Any]) -> None:
            self.messages.append(message)

        delivering = {"handle_batch": handle_batch} if cls.batchings() else {"handle_message": handle_message}
        return derived(cls, rate_limit=None, claim=None, handle_failed=Pipeline.handle_failed, **delivering)
