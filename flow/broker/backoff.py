"""How long to wait before the next try to reach the broker."""

from random import Random

HEALTHY = 60.0  # seconds a session must have lasted without a delivery to count as healthy


class Backoff:
    """Delays that double from *least* to *most* seconds, each with jitter, until a session was healthy.

    Step n lies between half of its ceiling, `least * 2 ** (n + 1)`, and the ceiling; all delays lie within
    [least, most]. Workers that lost the broker together do not come back together.
    """

    def __init__(self, random: Random, *, least: float = 0.5, most: float = 30.0) -> None:
        self.least = least
        self.most = most
        self._random = random
        self._ceiling = least

    def next(self) -> float:
        """Return the seconds to wait now."""
        self._ceiling = min(self.most, 2 * self._ceiling)
        return self._random.uniform(max(self.least, self._ceiling / 2), self._ceiling)

    def ended(self, *, lasted: float, delivered: bool) -> None:
        """Note that a session ended after *lasted* seconds; a healthy one makes the delays start over.

        Being connected is not health: a broker that accepts and drops every session would be called without
        pause. A delivery is, or a minute without a fault.
        """
        if delivered or lasted >= HEALTHY:
            self._ceiling = self.least
