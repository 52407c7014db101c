"""The options of a batcher: when a batch is closed and how many are delivered at once."""

from collections.abc import Callable
from typing import Any

from flow.errors import ConfigError
from flow.message import Message
from flow.options import option, seconds, whole


@option
class Batching:
    """When a batch is closed and how many are delivered at once."""

    size: int = 100
    """Most messages in a batch."""
    timeout: float = 1.0
    """Most seconds from a batch's first message until it is due; it goes on growing until a slot is free."""
    concurrency: int = 2
    """Batches delivered at once."""
    ordered: bool = False
    """Deliver the batches of one key one after another, in order; other keys run meanwhile."""
    weight: Callable[[Message[Any]], int] | None = None
    """What a message weighs, for `max_weight`; bytes for example."""
    max_weight: int | None = None
    """Most weight in a batch: a message that would exceed it opens the next one."""

    def __post_init__(self) -> None:
        whole("Batching.size", self.size)
        seconds("Batching.timeout", self.timeout)
        whole("Batching.concurrency", self.concurrency)
        if not isinstance(self.ordered, bool):
            raise ConfigError(f"Batching.ordered must be True or False, got {self.ordered!r}")
        if self.max_weight is not None:
            whole("Batching.max_weight", self.max_weight)
        if (self.weight is None) != (self.max_weight is None):
            raise ConfigError("Batching.weight and Batching.max_weight go together: give both or neither")
        if self.weight is not None and not callable(self.weight):
            raise ConfigError(f"Batching.weight must be a function of a message, got {self.weight!r}")

    def weigh(self, message: Message[Any]) -> int:
        """Return what *message* weighs; 0 without a `weight`. Raises what the user's function raises.

        Raises:
            ConfigError: it returned something that cannot be added up.
        """
        if self.weight is None:
            return 0
        weight: object = self.weight(message)
        if not isinstance(weight, int) or weight < 0:
            raise ConfigError(
                f"Batching.weight must return a whole number from 0, got {type(weight).__name__}"
            )
        return weight
