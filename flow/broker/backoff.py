"""How long to wait before the next try to reach the broker."""

from random import Random


class Backoff:
    """Delays that double from *least* to *most* seconds, each with jitter, until they are reset.

    The delay n lies between half of its ceiling, `least * 2 ** n` for n from 1, and the ceiling; all lie
    within [least, most]. Workers that lost the broker together do not come back together.
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

    def reset(self) -> None:
        """Begin with the shortest delay again.

        Call it when a session was healthy: it delivered something or lasted a minute. Being connected is not
        health, or a broker that accepts and drops every session would be called without pause.
        """
        self._ceiling = self.least
