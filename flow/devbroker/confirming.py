"""The confirms of a channel: many publishes answered by one frame."""

from collections.abc import Callable

from pamqp.commands import Basic

from flow.devbroker import wire


class Confirms:
    """Counts what was published and answers it in order, once per burst of frames."""

    def __init__(self, channel: int, write: Callable[[bytes], None]) -> None:
        self._channel = channel
        self._write = write
        self._published = 0
        self._accepted = 0  # published and taken by the queues, but not answered
        self._withheld = False

    def accepted(self) -> bool:
        """Count a publish that all queues took; return whether it is the first of a burst."""
        self._published += 1
        self._accepted += 1
        return self._accepted == 1

    def refused(self) -> None:
        """Answer a publish that a queue refused."""
        self.flush()
        self._published += 1
        # As RabbitMQ writes it when everything before is answered; requeue means nothing here.
        nack = Basic.Nack(self._published, multiple=not self._withheld, requeue=True)
        self._write(wire.method_frame(nack, self._channel))

    def withhold(self) -> None:
        """Never answer what was not answered yet."""
        self._withheld = self._withheld or self._accepted > 0
        self._accepted = 0

    def flush(self) -> None:
        """Answer what was accepted."""
        count, self._accepted = self._accepted, 0
        if not count:
            return
        if self._withheld:  # "multiple" would answer for them as well
            for tag in range(self._published - count + 1, self._published + 1):
                self._write(wire.ack_frame(self._channel, tag, False))
        else:
            self._write(wire.ack_frame(self._channel, self._published, count > 1))
