"""When a callback may be called: the breaker of its target, one for each queue."""

import logging
from collections.abc import Callable, Iterator

from flow.breaker import Breaker
from flow.clock import Clock, Timer
from flow.outcome import Unavailable, Verdict
from flow.retries import describe

log = logging.getLogger("flow")

QUIET = 60.0  # seconds between two words about a target that stays down


class Gate:
    """Holds back calls while the target of one queue does not work."""

    def __init__(self, target: str, slots: int, clock: Clock, wake: Callable[[], None]) -> None:
        """Take the name of the *target*, how many *slots* call it, and *wake*, which lets them look again."""
        self.breaker = Breaker(slots)
        self._target = target
        self._clock = clock
        self._wake = wake
        self._timer: Timer | None = None
        self._told_at = 0.0  # when it was said last that the target is down

    def shut(self) -> bool:
        """Tell whether no call may start now; once one may, the slots are woken."""
        breaker = self.breaker
        if breaker.closed or breaker.may_start(self._clock.now()):
            return False
        if breaker.single and self._timer is None:
            self._timer = self._clock.call_at(breaker.retry_at, self._probe)
        return True

    def ended(self, epoch: int, error: Exception | None) -> bool:
        """Take note of how a call ended; True: the target is down and the messages are kept.

        A verdict other than `Unavailable` is an answer of a target that works.
        """
        breaker, working = self.breaker, self.breaker.closed
        if isinstance(error, Unavailable):
            breaker.open(error.reason, error.after, self._clock.now())
            down = True
        elif error is None or isinstance(error, Verdict):
            breaker.succeeded(epoch)
            down = False
        else:
            down = breaker.failed(epoch, describe(error), self._clock.now())
        if down:
            self._tell(working)
        elif breaker.closed and not working:
            log.warning("%s: the target works again", self._target)
        if not working:
            self._wake()
        return down

    def stop(self) -> None:
        """Wake nobody any more."""
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self, first: bool) -> None:
        """Say that the target is down: at once, then now and then when a call has shown it again."""
        breaker, now = self.breaker, self._clock.now()
        wait, since = max(0.0, breaker.retry_at - now), breaker.opened_at
        if first:
            log.warning(
                "%s: the target is down, trying again in %.1f s: %s", self._target, wait, breaker.reason
            )
        elif since is not None and now - self._told_at >= QUIET:
            log.warning(
                "%s: the target is down for %.0f s, trying again in %.1f s: %s",
                *(self._target, now - since, wait, breaker.reason),
            )
        else:
            return
        self._told_at = now

    def _probe(self) -> None:
        self._timer = None
        self._wake()


class Gates:
    """The gates of one callback, by queue; what one queue's target does holds up no other queue."""

    def __init__(self, target: str, slots: int, clock: Clock, wake: Callable[[], None]) -> None:
        """Take what each `Gate` takes."""
        self._target = target
        self._slots = slots
        self._clock = clock
        self._wake = wake
        self._gates: dict[str, Gate] = {}
        self.down: dict[str, Breaker] = {}
        """The breakers that are not closed, by queue."""

    def shut(self, queue: str) -> bool:
        """Tell whether no call for *queue* may start now."""
        return queue in self.down and self._gates[queue].shut()

    def single(self, queue: str) -> bool:
        """Tell whether the next call for *queue* is the probe, which takes one message only."""
        return queue in self.down and self.down[queue].single

    def start(self, queue: str) -> int:
        """Take note that a call for *queue* starts; return the epoch to report its end with."""
        return self._gate(queue).breaker.start()

    def ended(self, queue: str, epoch: int, error: Exception | None) -> bool:
        """Take note of how a call ended; True: the target is down and the messages are kept."""
        gate = self._gate(queue)
        down = gate.ended(epoch, error)
        if gate.breaker.closed:
            self.down.pop(queue, None)
        else:
            self.down[queue] = gate.breaker
        return down

    def forget(self, queue: str) -> None:
        """Forget the gate of *queue*, which is consumed no more."""
        self.down.pop(queue, None)
        gate = self._gates.pop(queue, None)
        if gate is not None:
            gate.stop()

    def abandoned(self, queue: str, epoch: int) -> None:
        """Take note that a call ended, or was none, that tells nothing about the target."""
        self._gate(queue).breaker.abandoned(epoch)
        if queue in self.down:
            self._wake()  # another call may be the probe

    def stop(self) -> None:
        """Wake nobody any more."""
        for gate in self._gates.values():
            gate.stop()

    def since(self) -> Iterator[tuple[str, float]]:
        """Yield each queue whose target is down, and since when in monotonic seconds."""
        for queue, breaker in self.down.items():
            if breaker.opened_at is not None:
                yield queue, breaker.opened_at

    def _gate(self, queue: str) -> Gate:
        if queue not in self._gates:
            self._gates[queue] = Gate(f"{self._target} ({queue})", self._slots, self._clock, self._wake)
        return self._gates[queue]
