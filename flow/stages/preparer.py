"""Calls `prepare_messages` for a chunk of messages before they are handled."""

from collections.abc import Awaitable, Callable
from typing import Any

from flow.message import Message, State
from flow.pipeline import Pipeline
from flow.stages.guard import Guard
from flow.stages.intake import Intake
from flow.stages.recall import Recall
from flow.stages.suspects import Suspects


class Preparer:
    """Takes chunks of what was received, and prepares each in one call."""

    def __init__(
        self,
        pipeline: Pipeline[Any, Any],
        decode: Callable[[Message[Any]], None],
        recall: Recall,
        suspects: Suspects,
        unfit: dict[Message[Any], Exception],
    ) -> None:
        """Take *unfit*, where the error of a message goes that cannot be decoded."""
        self._pipeline = pipeline
        self._decode = decode
        self._recall = recall
        self._suspects = suspects
        self._unfit = unfit

    def chunk(self, intake: Intake, *, alone: bool) -> list[Message[Any]]:
        """Take the next chunk from *intake*, or *alone* the next message; decoded.

        What cannot be decoded is left to its worker to tell.
        """
        chunk: list[Message[Any]] = []
        guard = Guard()
        for message in intake.chunk(1 if alone else self._pipeline.prepare_size):
            if message.state is not State.WAITING:
                continue
            message.state = State.RUNNING
            if message.redelivered and self._recall.answers(message):
                self._unfit.pop(message, None)
                continue
            with guard:
                if message not in self._unfit:
                    self._decode(message)
            if guard.error is not None:
                self._unfit[message] = guard.error
            if message in self._unfit:
                message.state = State.WAITING
                intake.prepared.put([message])
            elif message.redelivered and self._suspects.suspect(message):
                if not chunk:
                    return [message]
                message.state = State.WAITING
                intake.received.put_first(message)
                return chunk
            else:
                chunk.append(message)
        return chunk

    async def prepare(
        self, chunk: list[Message[Any]], admit: Callable[[Message[Any]], Awaitable[None]]
    ) -> Exception | None:
        """Prepare *chunk*, a suspect once *admit* lets it start; return what went wrong."""
        guard = Guard()
        with guard:
            if chunk[0].redelivered and self._suspects.suspect(chunk[0]):
                await admit(chunk[0])
            prepared = await self._pipeline.prepare_messages(chunk)
            for message in chunk:
                message.prepared = prepared
        return guard.error
