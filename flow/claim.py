"""Claims: effects that must never happen twice; what a pipeline declares, and what keeps them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from enum import Enum
from typing import Any, Literal, Protocol

from msgspec import Struct

from flow.errors import ConfigError
from flow.ledger import clean
from flow.message import Message
from flow.options import option

MARGIN = 60.0  # seconds that a claim outlives the longest callback under it
LONGEST_KEY = 255  # characters

Unknown = Literal["park", "again"]


@option
class Claim:
    """One effect for each key, ever: it is claimed before the delivering callback and done after it.

    Every copy of a message is looked up, whatever the broker says of it. What another worker holds is kept
    until its claim ends; what is done is skipped as a duplicate.
    """

    key: Callable[[Message[Any]], str]
    """Returns what must happen once, like the id of the action; at most 255 characters. It is asked before
    the delivering callback, when `body` is what that gets."""
    unknown: Unknown
    """What becomes of a message when it is not known whether its effect happened, because a worker died in
    the middle of it: "park" it, or do it "again"."""

    def __post_init__(self) -> None:
        if not callable(self.key):
            raise ConfigError(f"Claim.key must be a function of a message, got {type(self.key).__name__}")
        if self.unknown not in ("park", "again"):
            raise ConfigError(f"Claim.unknown must be 'park' or 'again', got {self.unknown!r}")

    def key_of(self, message: Message[Any]) -> str:
        """Return the key of *message*. Raises what the user's function raises.

        Raises:
            ConfigError: it is no key.
        """
        key: object = self.key(message)
        if not isinstance(key, str):
            raise ConfigError(f"Claim.key must return a str, got {type(key).__name__}")
        if not 1 <= len(key) <= LONGEST_KEY or key != clean(key):
            raise ConfigError(
                f"Claim.key must return 1 to {LONGEST_KEY} characters without NUL and lone surrogates, "
                f"got {len(key)}"
            )
        return key


class Hold(Enum):
    """Who has a claim."""

    OURS = "ours"
    ELSEWHERE = "elsewhere"
    """Somebody else, until it ends."""
    DONE = "done"
    """Nobody: the effect has happened."""
    UNKNOWN = "unknown"
    """Nobody: somebody had it, and whether the effect happened is not known."""


class Standing(Struct, frozen=True):
    """How a claim stands."""

    hold: Hold
    seconds: float = 0.0
    """Until it ends, when it is held elsewhere."""


class Claims(Protocol):
    """Keeps the claims of all workers; each call ends in bounded time, and raises `LedgerError` if it fails.

    Done claims are noted with the rows of the ledger (`Row.claim`).
    """

    async def take(
        self, pipeline: str, keys: Collection[str], holder: str, seconds: float, unknown: Unknown
    ) -> Mapping[str, Standing]:
        """Claim *keys* for *holder* and the next *seconds*, as far as nobody else has them; return how each
        stands now.

        A claim that has ended is free again, but one that ended while the effect was under way is only with
        *unknown* "again". While the effect is under way nobody may take it, not even *holder*.
        """

    async def begin(
        self, pipeline: str, key: str, holder: str, seconds: float, done: Sequence[str] = ()
    ) -> bool:
        """Note that the effect is under way, for *seconds* at most, and that those of *done* have happened.

        False: *holder* has lost the claim.
        """

    async def free(self, pipeline: str, keys: Sequence[str], holder: str) -> None:
        """Let go of *keys*: their effects have not happened."""

    async def doubt(self, pipeline: str, keys: Sequence[str], holder: str) -> None:
        """Let go of *keys*: whether their effects happened is not known."""

    async def ready(self) -> None:
        """See that claims can be written."""
