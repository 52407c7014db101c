"""What a test is told of a message."""

from collections.abc import Hashable
from dataclasses import dataclass

from flow.batch import Trigger
from flow.outcome import Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class InBatch:
    """The batch in which a message was delivered, or should have been; its messages share one object."""

    key: Hashable
    """What `batch_key` returned; None without one."""
    batcher: str
    """The name of its `Batching`; "default" when there is only one."""
    trigger: Trigger
    """Why it was closed."""
    size: int
    """How many messages `handle_batch` was given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of one message."""

    outcome: Outcome
    """Delivered, skipped, retrying or parked."""
    reason: str = ""
    """Why, as it is logged and stored with parked messages; empty when delivered."""
    error: Exception | None = None
    """What was raised: by a callback, by decoding, or `Skip`, `Retry` or `Reject` for a mark."""
    after: float | None = None
    """When retrying: the least seconds until the next attempt; None: the delay of the retry loop."""
    batch: InBatch | None = None
    """None when it was decided before it came to `handle_batch`, or there is none."""
