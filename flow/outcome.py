"""The four outcomes of a message, and the signals by which a pipeline chooses one."""

import math
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
        if not isinstance(reason, str):
            raise TypeError(f"{type(self).__name__} needs a reason in words, got {type(reason).__name__}")
        super().__init__(reason)
        self.reason = reason


class Skip(Verdict):
    """Acknowledge without delivering; counted as skipped."""


class Retry(Verdict):
    """Try again later; counts as an attempt."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        """Ask for another attempt no sooner than *after* seconds; None: the retry loop's own delay."""
        super().__init__(reason)
        self.after = seconds_or_none(after)


class Reject(Verdict):
    """Park now: this message will never be valid."""


class Unavailable(Verdict):
    """The target as a whole does not work; everything waits and no attempt is spent."""

    def __init__(self, reason: str, after: float | None = None) -> None:
        """Ask to try the target again after *after* seconds; None: from 1 second, doubling up to 60."""
        super().__init__(reason)
        self.after = seconds_or_none(after)


def seconds_or_none(after: float | None) -> float | None:
    """Return *after* if it can be waited for; else the callback fails that named it, and nothing behind it.

    Raises:
        TypeError: it is no number.
        ValueError: it is below 0, or no number that can be compared.
    """
    if after is None:
        return None
    if isinstance(after, bool) or not isinstance(after, int | float):
        raise TypeError(f"after must be seconds or None, got {type(after).__name__}")
    if math.isnan(after) or after < 0:
        raise ValueError(f"after must be 0 seconds or more, got {after}")
    return after


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of one message with its reason."""

    outcome: Outcome
    reason: str = ""
    after: float | None = None
    """For retrying: the least seconds until the next attempt; None: the retry loop's delay."""


DELIVERED = Decision(Outcome.DELIVERED)
