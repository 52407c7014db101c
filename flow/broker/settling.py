"""Settles the deliveries of one channel: what is settled within a turn of the loop leaves as one write."""

from collections.abc import Callable
from struct import Struct
from typing import Any

from flow.broker.properties import decode
from flow.message import Message, Properties

VERB = Struct(">BHIHHQBB").pack  # type, channel, size, class, method, delivery tag, bits, end mark
ACK, REJECT, NACK = 80, 90, 120
REQUEUE = {REJECT: 0, NACK: 2}  # the bits of the verbs for single messages


class Settler:
    """The unsettled deliveries of one channel, and the way their settling is told to the broker.

    Frames leave in this order: rejects and releases as they came, one acknowledgement for all that was
    acknowledged before the oldest unsettled delivery, single ones for the rest.
    """

    def __init__(
        self, channel: int, write: Callable[[bytes], None], call_soon: Callable[[Callable[[], None]], object]
    ) -> None:
        """Settle on *channel*; *write* takes whole frames and never raises, *call_soon* is the loop's."""
        self.alive = True
        self.consumers: dict[bytes, Consumer] = {}
        """By consumer tag."""
        self.outstanding: dict[int, Message[Any]] = {}
        """Unsettled deliveries by tag, oldest first."""
        self.dropped = 0
        """Deliveries and settlements that came after the end."""
        self._channel = channel
        self._write = write
        self._acked: list[Message[Any]] = []
        self._refused: list[tuple[Message[Any], int]] = []  # with the verb
        self._unconfirmed: list[Message[Any]] = []  # written, in the order of the frames
        self._scheduled = False
        self._call_soon = call_soon
        self._window = 0  # how many unsettled deliveries the broker grants to all consumers together

    def consumer(self, queue: str, tag: str, prefetch: int) -> "Consumer":
        """Add a consumer; its deliveries must not come before."""
        consumer = Consumer(self, queue, tag, prefetch)
        self.consumers[tag.encode()] = consumer
        self._window += prefetch
        return consumer

    def unconfirmed(self) -> list[Message[Any]]:
        """Return what was acknowledged or rejected while the broker may not know it: it may come again.

        A released message comes again in any case and is not listed.
        """
        self._confirm()
        rejected = [message for message, verb in self._refused if verb == REJECT]
        return [*self._unconfirmed, *rejected, *self._acked]

    def acknowledge(self, message: Message[Any]) -> None:
        """Note that *message*, no longer outstanding, is to be acknowledged."""
        self._acked.append(message)
        if not self._scheduled:
            self._schedule()

    def refuse(self, message: Message[Any], verb: int) -> None:
        """Note that *message*, no longer outstanding, is to be rejected or released."""
        self._refused.append((message, verb))
        if not self._scheduled:
            self._schedule()

    def flush(self) -> None:
        """Write what was settled and not written yet, now."""
        self._scheduled = False
        acked, refused = self._acked, self._refused
        if not self.alive or not (acked or refused):
            return
        self._confirm()
        self._acked, self._refused = [], []
        frames = [
            VERB(1, self._channel, 13, 60, verb, message.tag, REQUEUE[verb], 0xCE)
            for message, verb in refused
        ]
        self._unconfirmed += [message for message, verb in refused if verb == REJECT]
        if acked:
            frames += self._acks(acked)
        self._write(b"".join(frames))

    def end(self) -> None:
        """Write nothing any more: the channel is closed, or about to be."""
        self.alive = False
        for consumer in self.consumers.values():
            consumer.alive = False

    def withdraw(self, message: Message[Any]) -> None:
        """Forget a delivery that nobody has seen."""
        del self.outstanding[message.tag]
        message.origin.outstanding -= 1
        self.dropped += 1

    def _acks(self, messages: list[Message[Any]]) -> list[bytes]:
        """Return the acknowledgements of *messages*, which are unconfirmed in the order of these frames.

        One frame covers all below the oldest unsettled delivery, since nothing else stands open there: what
        was rejected or released is written before. It ends at a tag that is open at the broker.
        """
        tags = [message.tag for message in messages]
        last, oldest = max(tags), next(iter(self.outstanding), None)
        if oldest is None or last < oldest:
            self._unconfirmed += messages
            return [VERB(1, self._channel, 13, 60, ACK, last, len(tags) > 1, 0xCE)]
        covered = [message for message in messages if message.tag < oldest]
        frames = self._acks(covered) if covered else []
        later = [message for message in messages if message.tag > oldest]
        self._unconfirmed += later
        return frames + [VERB(1, self._channel, 13, 60, ACK, one.tag, 0, 0xCE) for one in later]

    def _confirm(self) -> None:
        """Forget what the broker must have processed of what was written.

        It delivers only while fewer than `window` deliveries are open as it sees it, and it processes what
        we write in order. So at its last delivery all was processed but the last `window - open`.
        """
        not_written = len(self.outstanding) + len(self._acked) + len(self._refused)
        surplus = len(self._unconfirmed) - max(0, self._window - not_written)
        if surplus > 0:
            del self._unconfirmed[:surplus]

    def _schedule(self) -> None:
        self._scheduled = True
        self._call_soon(self.flush)


class Consumer:
    """One queue within one session: where its deliveries come from, and where they are settled.

    A message is settled once: settling it again does nothing, nor does settling after the session's end.
    """

    __slots__ = ("_settler", "alive", "consumer_tag", "outstanding", "prefetch", "queue")

    def __init__(self, settler: Settler, queue: str, consumer_tag: str, prefetch: int) -> None:
        """Consume *queue*; made by `Settler.consumer`."""
        self.queue = queue
        self.consumer_tag = consumer_tag
        self.prefetch = prefetch
        self.outstanding = 0
        self.alive = settler.alive
        self._settler = settler

    def ack(self, message: Message[Any]) -> None:
        """Acknowledge *message* before this turn of the loop ends."""
        if self._settle(message):
            self._settler.acknowledge(message)

    def reject(self, message: Message[Any]) -> None:
        """Reject *message* towards the queue's dead-letter exchange."""
        if self._settle(message):
            self._settler.refuse(message, REJECT)

    def release(self, message: Message[Any]) -> None:
        """Give *message* back to the queue."""
        if self._settle(message):
            self._settler.refuse(message, NACK)

    def properties(self, header: bytes) -> Properties:
        """Decode a raw content header.

        Raises:
            DecodeError: it cannot be decoded.
        """
        return decode(header)

    def _settle(self, message: Message[Any]) -> bool:
        settler = self._settler
        if not self.alive:
            settler.dropped += 1
            return False
        if settler.outstanding.pop(message.tag, None) is None:
            return False
        self.outstanding -= 1
        return True
