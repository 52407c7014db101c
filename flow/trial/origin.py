"""Where the messages of a trial come from: nothing that is decided of them reaches a broker."""

import time
from collections.abc import Callable
from typing import Any

from flow.broker.properties import decode
from flow.message import Message, Properties, plain_header, routed
from flow.outcome import Decision
from flow.stages.bell import Bell

Settled = Callable[[Message[Any], Decision | None], None]
"""Is told once of each message what was decided; None: it was given back unfinished."""


class TrialOrigin:
    """An `Origin` that only notes what was decided."""

    def __init__(self, queue: str, prefetch: int, settled: Settled) -> None:
        """Stand for *queue* with a window of *prefetch* messages."""
        self.queue = queue
        self.prefetch = prefetch
        self.outstanding = 0
        self.alive = True
        self._settled = settled
        self._count = 0
        self._room = Bell()

    def message(self, body: bytes) -> Message[Any]:
        """Make a message of *body*, as if it were delivered for the first time."""
        self._count += 1
        routing, header = routed(self.queue), plain_header(len(body))
        return self.adopt(Message(self, self._count, False, routing, header, body, time.monotonic()))

    def adopt(self, message: Message[Any]) -> Message[Any]:
        """Take over *message*: what is decided of it is noted here, and nowhere else."""
        message.origin = self
        self.outstanding += 1
        return message

    async def room(self) -> None:
        """Wait until the window has room for one more."""
        while self.outstanding >= self.prefetch:
            await self._room.wait()

    def ack(self, message: Message[Any]) -> None:
        """Note that *message* would be acknowledged."""
        self._note(message, message.decision)

    def reject(self, message: Message[Any]) -> None:
        """Note that *message* would be rejected."""
        self._note(message, message.decision)

    def release(self, message: Message[Any]) -> None:
        """Note that nothing was decided of *message*."""
        self._note(message, None)

    def properties(self, header: bytes) -> Properties:
        """Decode a raw content header.

        Raises:
            DecodeError: it cannot be decoded.
        """
        return decode(header)

    def _note(self, message: Message[Any], decision: Decision | None) -> None:
        self.outstanding -= 1
        self._room.ring()
        self._settled(message, decision)
