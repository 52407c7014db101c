"""Answers redeliveries of what was finished or still runs, without working again."""

from typing import Any

from flow.memory import DeliveryMemory
from flow.message import Message
from flow.stages.acknowledger import Acknowledger


class Recall:
    """Looks redelivered messages up in the delivery memory."""

    def __init__(self, memory: DeliveryMemory, acknowledger: Acknowledger) -> None:
        self._memory = memory
        self._acknowledger = acknowledger

    def answers(self, message: Message[Any]) -> bool:
        """Settle the redelivery *message* by what is remembered of its first delivery; tell whether that was
        possible."""
        found = self._memory.recall(message) if self._memory else None
        if found is None:
            return False
        if not isinstance(found, Message):
            self._acknowledger.repeat(message, found)
        else:
            while found.successor is not None:
                found = found.successor
            found.successor = message
        return True
