"""What waits in the stages of a pipeline, where, and for how long."""

from collections.abc import Callable

from flow.stages.parts import Parts


class Waiting:
    """Looks at the stages; it changes nothing but gates that are needed no more."""

    def __init__(self, parts: Parts, now: Callable[[], float], circuit_open: dict[str, bool]) -> None:
        """Take the stages, the monotonic seconds, and the metric of which targets are down."""
        self._parts = parts
        self._now = now
        self._circuit_open = circuit_open

    def buffered(self) -> dict[str, int]:
        """Return how many messages wait before each stage."""
        waiting = {
            "processor": len(self._parts.processor.reception),
            "held": self._parts.holder.held,
            "parker": self._parts.parker.open,
        }
        for name, deliverer in self._parts.deliverers.items():
            waiting[f"batcher {name}"] = deliverer.batcher.waiting
        return waiting if self._parts.books is None else {**waiting, **self._parts.books.buffered()}

    def down(self) -> dict[str, float]:
        """Return the queues whose work waits for a target that is down, and for how many seconds."""
        since: dict[str, float] = {}
        for queue, start in (found for one in self._parts.gates().values() for found in one.since()):
            since[queue] = max(since.get(queue, 0.0), self._now() - start)
        return since

    def longest(self, queue: str) -> float:
        """Return for how many seconds the oldest message of *queue* waits; 0.0 when none does."""
        times = [one.batcher.oldest(queue) for one in self._parts.deliverers.values()]
        times.append(self._parts.processor.reception.oldest(queue))
        return self._now() - min((time for time in times if time is not None), default=self._now())

    def forget(self, queue: str) -> None:
        """Forget the gates of *queue*, which is consumed no more."""
        for label, gates in self._parts.gates().items():
            gates.forget(queue)
            if label in self._circuit_open:
                self._circuit_open[label] = bool(gates.down)
