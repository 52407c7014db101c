"""Messages and an origin in memory, for tests of the parts behind the broker wing."""

from flow.testing import origin
from flow.testing.clock import VirtualClock as ManualClock

__all__ = ["ManualClock", "MemoryOrigin"]


class MemoryOrigin(origin.MemoryOrigin):
    """The queue that most tests of the stages use."""

    def __init__(self, queue: str = "numbers", prefetch: int = 1000) -> None:
        super().__init__(queue, prefetch)
