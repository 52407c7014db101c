"""One queue within a session: its channel, its consumer, and the ways in which both end."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from flow.broker import faults
from flow.broker.border import background, bounded, error_of, result
from flow.broker.connecting import CLOSE, Link
from flow.broker.settling import Consumer
from flow.broker.tap import SilentBroker
from flow.errors import BrokerError, ConnectionLost, ConsumerCancelled
from flow.message import Message

REPLY = 10.0  # seconds within which the broker must answer; what got no answer is over

T = TypeVar("T")

Ended = Callable[["Line", BrokerError], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Consuming:
    """How queues are consumed."""

    name: str = "flow"
    """What the consumer tags begin with."""
    exclusive: bool = False
    """Whether nobody else may consume the queue meanwhile."""
    priority: int | None = None
    """Consumers of a higher priority get messages first (rabbitmq.com/docs/consumer-priority)."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments for the broker."""
        return {} if self.priority is None else {"x-priority": self.priority}


class Line:
    """The consumer of one queue on a channel of its own, so that what is wrong with it ends no other."""

    def __init__(
        self,
        link: Link,
        consuming: Consuming,
        channel: AbstractChannel,
        queue: str,
        prefetch: int,
        ended: Ended,
    ) -> None:
        """Take an open *channel* and tell *ended* once how it ended; made by `open` only."""
        self.queue = queue
        self.over = False
        """Whether nothing can be settled any more."""
        self.failure: BrokerError | None = None
        """Why it ended by itself."""
        self._consuming = consuming
        self._link = link
        self._channel = channel
        self._ended = ended
        self._open = False  # until then whoever opens it is told why not
        self._settler = link.protocol.tap(channel.number)
        self.consumer: Consumer = self._settler.consumer(
            queue, f"{consuming.name.replace(' ', '-')}-{channel.number}", prefetch
        )
        """The origin of its messages."""
        # The channel closes, or the broker cancels the consumer (its queue was deleted, its node went away),
        # which closes nothing.
        channel.closing.add_done_callback(self._closed)
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

    @classmethod
    async def open(cls, link: Link, consuming: Consuming, queue: str, prefetch: int, ended: Ended) -> "Line":
        """Consume *queue*, which must exist; its messages may come before this returns.

        Raises:
            AccessDenied: the account may not read the queue.
            NotFound: the queue does not exist.
            TopologyMismatch: the queue cannot be consumed in this way.
            ConnectionLost: the queue is not available now, or the connection is lost.
        """
        opening = link.connection.channel(publisher_confirms=False)
        channel = await bounded(opening, seconds=REPLY, give_up=link.abort, fault=link.lost)
        line = cls(link, consuming, channel, queue, prefetch, ended)
        try:
            await line._consume()
        except BaseException:
            line.end()
            raise
        line._open = True
        return line

    def outstanding(self) -> list[Message[Any]]:
        """Return the unsettled deliveries, oldest first."""
        return list(self._settler.outstanding.values())

    def oldest(self) -> float | None:
        """Return when the oldest unsettled delivery came, in monotonic seconds; None: there is none."""
        message = None if self.over else next(iter(self._settler.outstanding.values()), None)
        return None if message is None else message.received_at

    def unconfirmed(self) -> list[Message[Any]]:
        """Return what was settled and may not be known to the broker: it may be delivered again."""
        return self._settler.unconfirmed()

    async def cancel(self) -> None:
        """Stop the deliveries; return when all that were under way are here. Never raises.

        What was received can still be settled. A caller that is cancelled leaves it running.
        """
        await asyncio.wait({background(self._cancel())})

    async def retire(self) -> None:
        """As `cancel`, but a broker that does not answer within 10 seconds loses the connection."""
        with suppress(BrokerError):
            await self._answer(self._cancel())

    async def close(self) -> bool:
        """Write what was settled, then close the channel, within 3 seconds. Never raises.

        Return whether the broker answered: then it has processed all that was written before.
        """
        self._settler.flush()
        self.end()
        with suppress(BrokerError):
            await bounded(
                self._channel.close(), seconds=CLOSE, give_up=self._link.abort, fault=self._link.lost
            )
        self._link.protocol.untap(self._channel.number)
        return self._channel.is_closed and faults.closed_in_order(error_of(self._channel.closing))

    def withdraw(self, message: Message[Any]) -> None:
        """Forget a delivery that nobody has seen."""
        self._settler.withdraw(message)

    def end(self) -> None:
        """Let nothing be settled any more."""
        self.over = True
        self._settler.end()

    async def ready(self) -> int:
        """Return how many messages of the queue are ready, without those that are unacknowledged.

        Raises:
            ConnectionLost: the session is over, by now at the latest.
        """
        declared = await self._answer(self._channel.queue_declare(self.queue, passive=True))
        return declared.message_count or 0

    async def _consume(self) -> None:
        channel, consumer = self._channel, self.consumer
        await self._asked(channel.queue_declare(self.queue, passive=True))
        await self._asked(channel.basic_qos(prefetch_count=consumer.prefetch))
        await self._asked(
            channel.basic_consume(
                self.queue,
                self._untapped,
                consumer_tag=consumer.consumer_tag,
                exclusive=self._consuming.exclusive,
                arguments=self._consuming.arguments,
            )
        )

    async def _asked(self, operation: Coroutine[Any, Any, object]) -> None:
        """Wait for the answer to what is needed to consume; without it there is no line."""
        await bounded(operation, seconds=REPLY, give_up=self._link.abort, fault=self._refused)

    async def _answer(self, operation: Coroutine[Any, Any, T]) -> T:
        """Return the broker's answer; a caller that is cancelled leaves the question open.

        Raises:
            ConnectionLost: there is none, and the session is over.
        """
        asking = background(operation)
        await asyncio.wait({asking}, timeout=REPLY)
        if not asking.done():
            silent = SilentBroker(f"The broker did not answer within {REPLY:g} s")
            self._link.protocol.fail(silent)
            raise self._link.lost(silent)
        return result(asking, self._link.lost)

    async def _cancel(self) -> None:
        await self._channel.basic_cancel(self.consumer.consumer_tag)

    async def _untapped(self, _: object) -> None:
        """Take a delivery that the library made, past the tap: there is none."""
        self._fail(ConnectionLost("A delivery went past the tap: the AMQP library works in an unknown way"))

    def _closed(self, future: asyncio.Future[Any]) -> None:
        self._fail(self._link.lost(error_of(future)))

    def _cancelled(self, _: Basic.Cancel) -> None:
        self._fail(
            ConsumerCancelled(f"The broker cancelled the consumer of {self.queue}: was the queue deleted?")
        )

    def _refused(self, error: BaseException) -> BrokerError:
        if self._link.over:
            return self._link.lost(error)
        return faults.consuming(error, self._link.url, self.queue)

    def _fail(self, failure: BrokerError) -> None:
        if not self.over:
            self.failure = failure
            self.end()
            if self._open:
                self._ended(self, failure)
