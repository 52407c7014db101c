"""How often the target may be called; pure: time comes in as a number."""

from collections.abc import Callable, Hashable
from typing import Any

from flow.errors import ConfigError
from flow.message import Message
from flow.options import option, seconds

TOLERANCE = 1e-6  # seconds: what rounding may make a caller come too early; it is paid back by the next wait
SPARE = 1.0  # seconds for which something is kept for who is late to take it
CROWD = 1000  # buckets before the full ones are looked for and forgotten


@option
class RateLimit:
    """How often the delivering callback may be called, or how many messages it may be given.

    In any span of `s` seconds at most `limit × (1 + s / per)` are let through: what was not used is saved up
    for one `per`, no longer. A batch that is larger than the whole limit goes when everything is saved up,
    and what follows waits until it is paid for. Only what is delivered counts; who waits longest is next. A
    batch that waits for its limit takes no delivery slot from those with another one.
    """

    calls: float | None = None
    """Calls of the delivering callback in each `per`; give this or `messages`."""
    messages: float | None = None
    """Messages handed to the delivering callback in each `per`; give this or `calls`."""
    per: float = 1.0
    """Seconds."""
    key: Callable[[Message[Any]], Hashable] | None = None
    """A limit of its own for each value, from the first message of a call; None: one for the pipeline."""

    def __post_init__(self) -> None:
        given = {name: value for name in ("calls", "messages") if (value := getattr(self, name)) is not None}
        if len(given) != 1:
            found = " and ".join(f"{name}={value!r}" for name, value in given.items()) or "neither"
            raise ConfigError(f"RateLimit needs exactly one of calls and messages, got {found}")
        for name, value in given.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < float("inf"):
                raise ConfigError(f"RateLimit.{name} must be a number above 0, got {value!r}")
        seconds("RateLimit.per", self.per)
        if self.key is not None and not callable(self.key):
            raise ConfigError(f"RateLimit.key must be a function of a message, got {self.key!r}")

    @property
    def limit(self) -> float:
        """How many are let through in each `per`, whatever is counted."""
        return self.calls or self.messages or 0.0

    def divided(self, workers: int) -> "RateLimit":
        """Return the share of one of so many *workers*."""
        calls = None if self.calls is None else self.calls / workers
        messages = None if self.messages is None else self.messages / workers
        return RateLimit(calls=calls, messages=messages, per=self.per, key=self.key)


class TokenBucket:
    """Lets *limit* through in each *per* seconds; full at first, and never holds more than *limit*."""

    __slots__ = ("_each", "_per", "full_at", "reserved", "saved_until", "saver")

    def __init__(self, limit: float, per: float) -> None:
        self._each = per / limit  # seconds until one more is saved up
        self._per = per
        self.full_at = float("-inf")
        """When everything is saved up again."""
        self.reserved = 0.0
        """What is set aside: nobody else can take it."""
        self.saver: object = None
        """For whom is saved up, until `saved_until`."""
        self.saved_until = float("-inf")

    def delay(self, amount: float, now: float) -> float:
        """Take *amount* and return 0.0, or take nothing and return the seconds until it can be taken.

        More than the bucket ever holds is taken when it is full, and owed.
        """
        wait = self.wait(amount, now)
        if wait <= 0:
            self.full_at = max(self.full_at, now) + amount * self._each
        return wait

    def wait(self, amount: float, now: float) -> float:
        """Return the seconds until *amount* can be taken, 0.0 if it can now; nothing is taken."""
        start = max(self.full_at, now) + self.reserved * self._each
        wait = start - now + min(amount * self._each, self._per) - self._per
        return wait if wait > TOLERANCE else 0.0


class RateLimiter:
    """The buckets of one `RateLimit`, one for each key."""

    def __init__(self, options: RateLimit) -> None:
        self._options = options
        self._buckets: dict[Hashable, TokenBucket] = {}
        self._crowd = CROWD

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._buckets)

    def key(self, first: Message[Any]) -> Hashable:
        """Return which limit is for a call with *first*. Raises what the user's `key` raises."""
        return None if self._options.key is None else self._options.key(first)

    def delay(self, key: Hashable, messages: int, now: float) -> float:
        """Let a call with *messages* messages begin and return 0.0, or return the seconds to wait.

        *key* says which limit is for it. A wait takes nothing: ask again when it is over.
        """
        return self._bucket(key, now).delay(self._amount(messages), now)

    def wait(self, key: Hashable, messages: int, now: float, who: object) -> float:
        """Return the seconds until *who* may let such a call begin, 0.0 if it may now; nothing is taken.

        What is saved up until then is for *who*: others who need less do not take it away again and again.
        """
        bucket = self._bucket(key, now)
        if bucket.saver is not who and bucket.saved_until > now:
            return bucket.saved_until - now
        wait = bucket.wait(self._amount(messages), now)
        bucket.saver, bucket.saved_until = (who, now + wait + SPARE) if wait > 0 else (None, now)
        return wait

    def reserve(self, key: Hashable, messages: int, now: float) -> None:
        """Set aside what a call costs that `wait` says may begin, until `release`."""
        self._bucket(key, now).reserved += self._amount(messages)

    def release(self, key: Hashable, messages: int) -> None:
        """Set it aside no more."""
        self._buckets[key].reserved -= self._amount(messages)

    def _amount(self, messages: int) -> int:
        return 1 if self._options.messages is None else messages

    def _bucket(self, key: Hashable, now: float) -> TokenBucket:
        bucket = self._buckets.get(key)
        if bucket is None:
            if len(self._buckets) >= self._crowd:
                self._forget(now)
            bucket = self._buckets[key] = TokenBucket(self._options.limit, self._options.per)
        return bucket

    def _forget(self, now: float) -> None:
        """Forget the full buckets: a new one is full as well."""
        kept = {key: one for key, one in self._buckets.items() if one.full_at > now or one.reserved}
        self._buckets = kept
        self._crowd = max(CROWD, 2 * len(self._buckets))
