"""What a run on a file leaves behind: an outcome for each message, and the bodies to feed again."""

from typing import Any, BinaryIO

import msgspec

from flow.errors import LedgerError
from flow.message import Message
from flow.outcome import Decision, Outcome
from flow.trial.files import as_line

DONE = (Outcome.DELIVERED, Outcome.SKIPPED)


class Row(msgspec.Struct, frozen=True):
    """What became of one message."""

    place: str
    """Where its body stands in what was fed."""
    record: str | None
    outcome: str
    """One of the four outcomes, or `returned`: nothing was decided."""
    reason: str
    attempt: int


class Results:
    """Writes the outcomes, and the bodies that were neither delivered nor skipped."""

    def __init__(self, outcomes: BinaryIO, failed: BinaryIO) -> None:
        """Write to two open files, which stay open."""
        self._outcomes = outcomes
        self._failed = failed
        self.told = 0
        """How many outcomes were written."""
        self.failed = 0
        """How many bodies can be fed again."""
        self.places: dict[int, str] = {}
        """Where the body of each open message stands, by its number."""

    def settled(self, message: Message[Any], decision: Decision | None) -> None:
        """Write what was decided of *message*.

        Raises:
            LedgerError: it cannot be written.
        """
        place = self.places.pop(message.tag)
        if decision is None:
            self._write(Row(place, message.record_id, "returned", "not finished", message.attempt))
        else:
            outcome, reason = decision.outcome.value, decision.reason
            self._write(Row(place, message.record_id, outcome, reason, message.attempt))
        if decision is None or decision.outcome not in DONE:
            self._keep(message.raw)

    def left(self, place: str, body: bytes) -> None:
        """Write that *body* was never worked.

        Raises:
            LedgerError: it cannot be written.
        """
        self._write(Row(place, None, "returned", "not begun", 1))
        self._keep(body)

    def _write(self, row: Row) -> None:
        self._append(self._outcomes, msgspec.json.encode(row) + b"\n")
        self.told += 1

    def _keep(self, body: bytes) -> None:
        self.failed += 1
        self._append(self._failed, as_line(body))

    def _append(self, file: BinaryIO, line: bytes) -> None:
        try:
            file.write(line)
            file.flush()
        except OSError as error:
            raise LedgerError(
                f"{file.name} cannot be written ({error.strerror}): "
                "what it does not hold may be delivered already"
            ) from None
