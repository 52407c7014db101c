"""The four outcomes of a message, and the signals by which a pipeline chooses one."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What became of a message; the same four words in code, logs, metrics and ledger."""

    DELIVERED = "delivered"
    SKIPPED = "skipped"
    RETRYING = "retrying"
    PARKED = "parked"


class Verdict(Exception):
    """A signal that a callback raises to decide what becomes of the messages in hand."""

    def __init__(self, reason: str) -> None:
        """Name the *reason* in words without personal data: it is logged and stored with parked messages."""
        super().__init__(reason)
        self.reason = reason


class Skip(Verdict):
    """Acknowledge without delivering; counted as skipped."""


class Retry(Verdict):
    """Try again later; counts as an attempt."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        """Ask for another attempt no sooner than *after* seconds; None: the retry loop's own delay."""
        super().__init__(reason)
        self.after = after


class Reject(Verdict):
    """Park now: this message will never be valid."""


class Unavailable(Verdict):
    """The target as a whole does not work; everything waits and no attempt is spent."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        """Ask to try the target again after *after* seconds; None: from 1 second, doubling up to 60."""
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one message with its reason."""

    outcome: Outcome
    reason: str = ""
    after: float | None = None
    """For retrying: the least seconds until the next attempt; None: the retry loop's delay."""


DELIVERED = Decision(Outcome.DELIVERED)
