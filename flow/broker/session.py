"""One session with the broker: everything that is consumed, and everything that can go wrong with it."""

import asyncio
import logging
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from flow.broker import faults
from flow.broker.border import Fault, background, bounded, error_of, result
from flow.broker.connecting import CLOSE, Link, caution, connect
from flow.broker.settling import Consumer
from flow.broker.tap import Receive, SilentBroker
from flow.broker.url import BrokerUrl
from flow.errors import BrokerError, ConfigError, ConnectionLost, ConsumerCancelled
from flow.message import Message

T = TypeVar("T")

REPLY = 10.0  # seconds within which the broker must answer; a session that got none is over
LARGEST_PREFETCH = 65_535

log = logging.getLogger("flow")


class Session:
    """One connection, one channel, its consumers and one failure event; any fault ends the whole session.

    A session is never repaired: after a failure it is closed, and a new one opened.
    """

    def __init__(self, url: BrokerUrl, link: Link, channel: AbstractChannel) -> None:
        """Take an open connection and channel; called by `open` only."""
        self.failed = anyio.Event()
        """Set at the first fault; nothing can be settled from then on."""
        self.failure: BrokerError | None = None
        """Why it failed."""
        self._url = url
        self._link = link
        self._channel = channel
        self._settler = link.protocol.tap(channel.number)
        self._over = False
        # The four ways in which a session ends: the bytes end, the connection closes, the channel closes, or
        # the broker cancels a consumer (its queue was deleted, its node went away), which closes nothing.
        link.ended = self._broken
        link.connection.closing.add_done_callback(self._closed)
        channel.closing.add_done_callback(self._closed)
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

    @classmethod
    async def open(
        cls,
        url: BrokerUrl,
        queues: Mapping[str, int],
        receive: Receive,
        *,
        name: str = "flow",
        max_body: int = 1 << 20,
        heartbeat: int = 10,
    ) -> "Session":
        """Connect and consume *queues*, each with its own prefetch; they are not declared, but must exist.

        *receive* gets all messages of one read from the socket at once; it must not raise. A message whose
        body is above *max_body* bytes has an empty one. The broker may be silent for two *heartbeat*s
        (seconds). All waits are bounded; cancelling ends what has begun, promptly.

        Raises:
            AccessDenied: wrong login, or no permission on the virtual host or a queue.
            NotFound: the virtual host or a queue does not exist.
            CertificateRejected: the broker's certificate is not accepted, or only one end speaks TLS.
            TopologyMismatch: a queue cannot be consumed in this way.
            ConnectionLost: the broker cannot be reached, or something passing is wrong with it.
            ConfigError: a prefetch is not between 1 and 65535, or there is no queue.
        """
        check(queues, heartbeat)
        link = await connect(url, name=name, heartbeat=heartbeat, max_body=max_body)
        early: list[Message[Any]] = []  # what comes while other queues are still asked for
        link.receive = early.extend
        try:
            if text := caution(link.connection.server_properties):
                log.warning("%s", text)
            opening = link.connection.channel(publisher_confirms=False)
            session = cls(url, link, await asked(opening, link, lambda error: faults.lost(error, link.reply)))
            await session._consume(queues)
            if session.failure is not None:
                raise session.failure
        except BrokerError:
            await link.close()
            raise
        except BaseException:  # cancelled: what waits for an answer must not hold it up
            link.abort()
            raise
        link.receive = receive
        if early:
            receive(early)
        return session

    @property
    def consumers(self) -> list[Consumer]:
        """The consumers in the order of the queues; each is the origin of its messages."""
        return list(self._settler.consumers.values())

    def outstanding(self) -> list[Message[Any]]:
        """Return the unsettled deliveries, oldest first."""
        return list(self._settler.outstanding.values())

    def unconfirmed(self) -> list[Message[Any]]:
        """Return what was settled and may not be known to the broker: it may be delivered again."""
        return self._settler.unconfirmed()

    async def cancel(self) -> None:
        """Stop the deliveries; return when all that were under way are here, or the session has failed.

        What was received can still be settled. A caller that is cancelled leaves it running. Never raises.
        """
        cancelling = background(self._cancel_all())
        failing = background(self.failed.wait())
        try:
            await asyncio.wait({cancelling, failing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            failing.cancel()

    async def close(self) -> None:
        """Write what was settled, then close channel and connection, each within 3 seconds. Never raises."""
        with anyio.CancelScope(shield=True):
            self._settler.flush()
            self._end()
            # The channel first: its answer tells that the broker has processed all that was written before.
            with suppress(BrokerError):
                closing = self._channel.close()
                await bounded(closing, seconds=CLOSE, give_up=self._link.abort, fault=self._lost)
            await self._link.close()

    async def ready(self, queue: str) -> int:
        """Return how many messages of a consumed *queue* are ready, without those that are unacknowledged.

        Raises:
            ConnectionLost: the session is over, by now at the latest.
        """
        if queue not in {consumer.queue for consumer in self.consumers}:
            raise ConfigError(f"The session does not consume the queue {queue}")
        if self._over:
            raise faults.lost(self.failure)
        asking = background(self._channel.queue_declare(queue, passive=True))
        await asyncio.wait({asking}, timeout=REPLY)
        if not asking.done():
            silent = SilentBroker(f"The broker did not answer within {REPLY:g} s")
            self._link.protocol.fail(silent)
            raise self._lost(silent)
        return result(asking, self._lost).message_count or 0

    async def _consume(self, queues: Mapping[str, int]) -> None:
        """Look at all queues, then consume them."""
        channel = self._channel
        for queue in queues:
            await asked(channel.queue_declare(queue, passive=True), self._link, self._refused(queue))
        for number, (queue, prefetch) in enumerate(queues.items()):
            consumer = self._settler.consumer(queue, f"flow-{number}", prefetch)
            await asked(channel.basic_qos(prefetch_count=prefetch), self._link, self._lost)
            consuming = channel.basic_consume(queue, self._untapped, consumer_tag=consumer.consumer_tag)
            await asked(consuming, self._link, self._refused(queue))

    async def _cancel_all(self) -> None:
        for consumer in self.consumers:
            await self._channel.basic_cancel(consumer.consumer_tag)

    async def _untapped(self, _: object) -> None:
        """Take a delivery that the library made, past the tap: there is none."""
        self._fail(ConnectionLost("A delivery went past the tap: the AMQP library works in an unknown way"))

    def _broken(self, error: Exception | None) -> None:
        self._fail(self._lost(error))

    def _closed(self, future: asyncio.Future[Any]) -> None:
        self._fail(self._lost(error_of(future)))

    def _cancelled(self, frame: Basic.Cancel) -> None:
        queues = [
            consumer.queue for consumer in self.consumers if consumer.consumer_tag == frame.consumer_tag
        ]
        self._fail(
            ConsumerCancelled(f"The broker cancelled the consumer of {queues[0]}: was the queue deleted?")
        )

    def _refused(self, queue: str) -> Fault:
        return lambda error: faults.consuming(error, self._url, queue)

    def _lost(self, error: BaseException | None) -> BrokerError:
        return faults.lost(error, self._link.reply)

    def _fail(self, failure: BrokerError) -> None:
        if not self._over:
            self._end()
            self.failure = failure
            self.failed.set()

    def _end(self) -> None:
        """Let nothing be settled any more."""
        self._over = True
        self._settler.end()


async def asked(operation: Coroutine[Any, Any, T], link: Link, fault: Fault) -> T:
    """Return the broker's answer to what a session needs in order to begin; without it there is none."""
    return await bounded(operation, seconds=REPLY, give_up=link.abort, fault=fault)


def check(queues: Mapping[str, int], heartbeat: int) -> None:
    """Check what a session is asked to consume.

    Raises:
        ConfigError: a number is out of its range.
    """
    if not queues:
        raise ConfigError("A session needs a queue to consume")
    for queue, prefetch in queues.items():
        if not 1 <= prefetch <= LARGEST_PREFETCH:
            raise ConfigError(
                f"The prefetch of the queue {queue} must be 1 to {LARGEST_PREFETCH}, got {prefetch}"
            )
    if heartbeat < 1:
        raise ConfigError(f"The heartbeat must be at least 1 second, got {heartbeat}")
