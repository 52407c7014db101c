"""The confirms of a channel: many publishes answered by one frame."""

from collections.abc import Callable

from pamqp.commands import Basic

from flow.devbroker import wire
from flow.devbroker.clock import Clock


class Confirms:
    """Counts what was published and answers it in order, once per burst of frames; or later, or never."""

    def __init__(self, channel: int, write: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._write = write
        self._published = 0
        self._before = 0  # what was published before this burst
        self._refused: list[int] = []  # the tags of this burst that a queue refused
        self._unanswered: list[int] = []  # the first tags of former bursts that wait, some for ever

    def published(self, *, refused: bool) -> bool:
        """Count a publish, *refused* by a queue or taken by all; return whether it begins a burst."""
        self._published += 1
        if refused:
            self._refused.append(self._published)
        return self._published == self._before + 1

    def flush(self) -> None:
        """Answer this burst."""
        self._answer(*self._end())

    def postpone(self) -> Callable[[], None]:
        """End this burst; return what answers it, once and as long as the channel is open."""
        first, last, refused = self._end()
        self._unanswered.append(first)

        def answer() -> None:
            if first in self._unanswered:
                self._unanswered.remove(first)
                self._answer(first, last, refused)

        return answer

    def drop(self) -> None:
        """Answer nothing more of what was published until now."""
        self._end()
        self._unanswered.clear()

    def _end(self) -> tuple[int, int, list[int]]:
        """End this burst; return its first tag, its last one, and those that a queue refused."""
        burst = self._before + 1, self._published, self._refused
        self._before, self._refused = self._published, []
        return burst

    def _answer(self, first: int, last: int, refused: list[int]) -> None:
        for tag in (*refused, last + 1):
            self._accept(first, tag)
            if tag <= last:
                # As RabbitMQ writes it when everything before is answered; requeue means nothing here.
                nack = Basic.Nack(tag, multiple=self._may_be_many(tag), requeue=True)
                self._write(wire.method_frame(nack, self._channel))
            first = tag + 1

    def _accept(self, first: int, end: int) -> None:
        """Answer the tags from *first* to before *end*."""
        if end - first > 1 and self._may_be_many(first):
            self._write(wire.ack_frame(self._channel, end - 1, True))
        else:
            for tag in range(first, end):
                self._write(wire.ack_frame(self._channel, tag, False))

    def _may_be_many(self, tag: int) -> bool:
        """Whether all before *tag* is answered; "multiple" would answer for it."""
        return not self._unanswered or self._unanswered[0] > tag


class Late:
    """Confirms that come later, each at its own time."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._waiting: dict[Callable[[], None], None] = {}

    def add(self, delay: float, confirm: Callable[[], None]) -> None:
        """Call *confirm*, which does nothing the second time, in *delay* seconds."""

        def come() -> None:
            self._waiting.pop(come, None)
            confirm()

        self._waiting[come] = None
        self._clock.at(self._clock.now() + delay, come)

    def come(self) -> None:
        """Call them now."""
        for come in list(self._waiting):
            come()
