"""Answers redeliveries of what was finished or still runs, without working again."""

from typing import Any

from flow.memory import DeliveryMemory
from flow.message import Message
from flow.outcome import Decision
from flow.stages.acknowledger import Acknowledger


class Recall:
    """Looks redelivered messages up in the delivery memory."""

    def __init__(self, memory: DeliveryMemory, acknowledger: Acknowledger) -> None:
        self._memory = memory
        self._acknowledger = acknowledger

    def answers(self, message: Message[Any]) -> bool:
        """Settle the redelivery *message* by what is remembered of its first delivery; tell whether that was
        possible."""
        entry = self._memory.recall(message) if self._memory else None
        if entry is None:
            return False
        if isinstance(entry, Decision):
            self._acknowledger.repeat(message, entry)
        else:
            while entry.successor is not None:
                entry = entry.successor
            entry.successor = message
        return True
