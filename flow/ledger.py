"""What the ledger holds, and what keeps it: which pipeline did what with which record; pure."""

from collections.abc import Hashable, Sequence
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Protocol

from msgspec import Struct

from flow.message import Message
from flow.outcome import Decision, Outcome

KEPT = timedelta(days=30)
"""So long an unsettled row answers, and a start counts; by then a message has come to its end."""
LONGEST_TEXT = 255  # characters of an id
LONGEST_REASON = 1024  # characters


class Row(Struct, frozen=True, kw_only=True):
    """What one pipeline did with one delivery."""

    pipeline: str
    queue: str
    identity: bytes
    """What tells the message from others when it comes again: `digest` of `Message.identity`."""
    record_id: str | None
    attempt: int
    """From 1."""
    outcome: Outcome
    reason: str
    after: float | None
    """For retrying: the least seconds until the next attempt; None: the retry loop's delay."""
    target_id: str | None
    """What the target calls it."""
    at: datetime
    """UTC."""
    unsettled: bool
    """Whether the broker is still to be told; until it knows, the row answers a redelivery."""
    claim: str | None = None
    """The key of the claim that is done with this."""


class Found(Struct, frozen=True):
    """An unsettled row that was asked for."""

    id: int
    identity: bytes
    decision: Decision


class Ledger(Protocol):
    """Keeps rows beyond the end of the process; every worker of a pipeline shares it.

    Each call ends in bounded time.
    """

    async def write(self, rows: Sequence[Row]) -> Sequence[int | None]:
        """Write *rows* and end their claims, durably; return the id of each, None for one that is refused.

        Raises:
            LedgerError: nothing can be written now; all of it may have been. Writing the same rows again is
                no harm.
        """

    async def unsettled(self, pipeline: str, queue: str, identities: Sequence[bytes]) -> Sequence[Found]:
        """Return the unsettled rows of *pipeline* about *identities* from *queue*, the oldest first.

        Raises:
            LedgerError: nothing can be read now.
        """

    async def settle(self, ids: Sequence[int]) -> None:
        """Note that the broker knows of the rows *ids*: they answer no redelivery any more.

        Raises:
            LedgerError: nothing can be written now.
        """

    async def ready(self) -> None:
        """See that it can be written.

        Raises:
            LedgerError: not now.
        """


class Entry:
    """A decided delivery on its way into the ledger and to the broker."""

    __slots__ = ("decision", "first", "id", "message", "written")

    def __init__(self, message: Message[Any], decision: Decision) -> None:
        self.first = message
        """The delivery that was worked."""
        self.message = message
        """The delivery through which it is settled: the first one, or its latest redelivery."""
        self.decision = decision
        self.id: int | None = None
        """Its row; None before it is written, and when it was refused."""
        self.written = False


def digest(identity: Hashable) -> bytes:
    """Return 32 bytes that stand for the *identity* of a message."""
    return blake2b(repr(identity).encode("utf-8", "surrogateescape"), digest_size=32).digest()


def clean(text: str | None, longest: int = LONGEST_TEXT) -> str | None:
    """Return *text* as every database takes it: no NUL, no lone surrogates, at most *longest* characters."""
    if text is None:
        return None
    return text.replace("\0", "").encode("utf-8", "replace").decode()[:longest]
