"""A wake-up for tasks that wait for work."""

from collections import deque

import anyio


class Bell:
    """Wakes one waiting task for each ring; a ring that nobody waits for is forgotten."""

    def __init__(self) -> None:
        self._waiting: deque[anyio.Event] = deque()

    @property
    def waiting(self) -> int:
        """How many tasks wait."""
        return len(self._waiting)

    async def wait(self) -> None:
        """Wait for a ring."""
        rung = anyio.Event()
        self._waiting.append(rung)
        try:
            await rung.wait()
        finally:
            if not rung.is_set():
                self._waiting.remove(rung)

    def ring(self) -> None:
        """Wake the task that waits longest."""
        if self._waiting:
            self._waiting.popleft().set()

    def ring_all(self) -> None:
        """Wake every waiting task."""
        while self._waiting:
            self._waiting.popleft().set()
