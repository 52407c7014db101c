"""How many messages the broker grants, and whether windows and timeouts fit each other; pure."""

from collections.abc import Collection

from flow.batching import Batching
from flow.ratelimit import RateLimit

LEAST_PREFETCH, MOST_PREFETCH = 100, 2000
LEAST_SHARE, MOST_SHARED = 10, 4000  # messages: of one queue among several, and of all of them together
CONSUMER_TIMEOUT = 1800  # seconds after which a broker with default settings takes a message back


def default_prefetch(concurrency: int, batchings: Collection[Batching]) -> int:
    """Return the prefetch that keeps handlers and batches busy, from 100 to 2000 messages."""
    batches = sum(one.size * (one.concurrency + 4) for one in batchings)
    return min(max(concurrency + batches, LEAST_PREFETCH), MOST_PREFETCH)


def shared_prefetch(granted: int, queues: int) -> int:
    """Return the prefetch of each of several *queues* in a pipeline that would get *granted* of one."""
    return max(LEAST_SHARE, min(granted, MOST_SHARED // max(1, queues)))


def window_warnings(
    granted: int, prefetch: int | None, concurrency: int, batchings: Collection[Batching]
) -> list[str]:
    """Return a sentence when *granted*, or the *prefetch* that was given, is too small to work well."""
    size = max((one.size for one in batchings), default=0)
    busy = concurrency + sum(one.size * one.concurrency for one in batchings)
    if granted < size:
        return [f"prefetch {granted} can never fill a batch of {size}"]
    if prefetch is not None and prefetch < busy:
        needed = f"the {busy} messages that handlers and batches hold when all are busy"
        return [f"prefetch {prefetch} is below {needed}"]
    return []


def longest(handler_timeout: float, batch_timeout: float, batchings: Collection[Batching]) -> float:
    """Return the most seconds that a message takes by the timeouts of its pipeline."""
    return handler_timeout + max((one.timeout + batch_timeout for one in batchings), default=0.0)


def time_warnings(handler_timeout: float, batch_timeout: float, batchings: Collection[Batching]) -> list[str]:
    """Return a sentence when a message may take longer than brokers let it stay unacknowledged."""
    seconds = longest(handler_timeout, batch_timeout, batchings)
    if seconds <= CONSUMER_TIMEOUT:
        return []
    return [
        f"a message may take {seconds:g} s by its timeouts, but after {CONSUMER_TIMEOUT} s "
        "a broker with default settings (consumer_timeout) ends the channel"
    ]


def pace_warning(limit: RateLimit | None, granted: int, batchings: Collection[Batching]) -> str | None:
    """Return a sentence when a window of *granted* messages waits longer for its *limit* than brokers allow.

    Full batches are assumed, and with a `RateLimit.key` that all messages have one value.
    """
    if limit is None:
        return None
    each = max((one.size for one in batchings), default=1) if limit.calls else 1
    seconds = granted / each * limit.per / limit.limit
    if seconds <= CONSUMER_TIMEOUT:
        return None
    return (
        f"the rate limit needs {seconds:.0f} s for the {granted} messages of a full prefetch, but after "
        f"{CONSUMER_TIMEOUT} s a broker with default settings (consumer_timeout) ends the channel: "
        f"set prefetch to {max(1, int(granted * CONSUMER_TIMEOUT / 2 / seconds))} or less"
    )
