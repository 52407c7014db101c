"""One session with the broker: everything that is consumed, and everything that can go wrong with it."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

import anyio

from flow.broker.border import background, error_of
from flow.broker.connecting import Link, caution, connect
from flow.broker.line import Consuming, Line
from flow.broker.settling import Consumer
from flow.broker.tap import Receive
from flow.broker.url import BrokerUrl
from flow.errors import BrokerError, ConfigError
from flow.message import Message

LARGEST_PREFETCH = 65_535

LineLost = Callable[[Line, BrokerError], None]

log = logging.getLogger("flow")


class Session:
    """One connection, a line for each queue, and one failure event; a session is never repaired.

    The fault of a line ends the session as well, unless somebody asked to be told of lost lines.
    """

    def __init__(self, link: Link, consuming: Consuming, line_lost: LineLost | None = None) -> None:
        """Take an open connection; called by `connect` only."""
        self.failed = anyio.Event()
        """Set at the first fault; nothing can be settled from then on."""
        self.failure: BrokerError | None = None
        """Why it failed."""
        self.lines: dict[str, Line] = {}
        """What is consumed, by queue."""
        self._retired: list[Line] = []  # consume no more; what they brought may still be settled
        self._lost: list[Line] = []  # ended by themselves, and are not closed yet
        self._link = link
        self._consuming = consuming
        self._line_lost = line_lost
        self._over = False
        self._early: list[Message[Any]] = []  # came before `begin`
        link.receive = self._early.extend
        link.ended = self._broken
        link.connection.closing.add_done_callback(self._closed)

    @classmethod
    async def connect(
        cls,
        url: BrokerUrl,
        *,
        name: str = "flow",
        max_body: int = 1 << 20,
        heartbeat: int = 10,
        consuming: Consuming | None = None,
        line_lost: LineLost | None = None,
    ) -> "Session":
        """Connect, consuming nothing yet.

        A message whose body is above *max_body* bytes has an empty one. The broker may be silent for two
        *heartbeat*s (seconds). *consuming* says how each queue is consumed. All waits are bounded; cancelling
        ends what has begun, promptly.

        Raises:
            AccessDenied: wrong login, or no permission on the virtual host.
            NotFound: the virtual host does not exist.
            CertificateRejected: the broker's certificate is not accepted, or only one end speaks TLS.
            ConnectionLost: the broker cannot be reached, or something passing is wrong with it.
        """
        if heartbeat < 1:
            raise ConfigError(f"The heartbeat must be at least 1 second, got {heartbeat}")
        link = await connect(url, name=name, heartbeat=heartbeat, max_body=max_body)
        if text := caution(link.connection.server_properties):
            log.warning("%s", text)
        return cls(link, consuming or Consuming(name=name), line_lost)

    @classmethod
    async def open(
        cls, url: BrokerUrl, queues: Mapping[str, int], receive: Receive, **options: Any
    ) -> "Session":
        """Connect and consume *queues*, each with its own prefetch; they are not declared, but must exist.

        What `begin` and `connect` say holds for *receive* and the *options*.

        Raises:
            BrokerError: as `connect` and `add` say.
            ConfigError: a prefetch is not between 1 and 65535, or there is no queue.
        """
        if not queues:
            raise ConfigError("A session needs a queue to consume")
        for queue, prefetch in queues.items():
            check(queue, prefetch)
        session = await cls.connect(url, **options)
        try:
            for queue, prefetch in queues.items():
                await session.add(queue, prefetch)
            if session.failure is not None:
                raise session.failure
        except BrokerError:
            await session._link.close()
            raise
        except BaseException:  # cancelled: what waits for an answer must not hold it up
            session.abort()
            raise
        session.begin(receive)
        return session

    @property
    def consumers(self) -> list[Consumer]:
        """The consumers, also of retired lines; each is the origin of its messages."""
        return [line.consumer for line in self._all()]

    def outstanding(self) -> list[Message[Any]]:
        """Return the unsettled deliveries, the oldest of each queue first."""
        return [message for line in self._all() for message in line.outstanding()]

    def oldest(self) -> float | None:
        """Return when the oldest unsettled delivery came, in monotonic seconds; None: there is none."""
        return min((time for line in self._all() if (time := line.oldest()) is not None), default=None)

    def unconfirmed(self) -> list[Message[Any]]:
        """Return what was settled and may not be known to the broker: it may be delivered again."""
        return [message for line in self._all() for message in line.unconfirmed()]

    def begin(self, receive: Receive) -> None:
        """Let *receive* have what has come, and from now on all messages of one read from the socket at once.

        It must not raise.
        """
        self._link.receive = receive
        early, self._early = self._early, []
        if early:
            receive(early)

    async def add(self, queue: str, prefetch: int) -> Consumer:
        """Consume *queue* as well, with at most *prefetch* unsettled messages.

        Raises:
            AccessDenied: the account may not read the queue.
            NotFound: the queue does not exist.
            TopologyMismatch: the queue cannot be consumed in this way.
            ConnectionLost: the queue is not available now, or the session has failed.
        """
        check(queue, prefetch)
        line = await Line.open(self._link, self._consuming, queue, prefetch, self._line_ended)
        self.lines[queue] = line
        if line.over:  # it ended before anybody could be told
            self._line_ended(line, line.failure or self._link.lost(None))
        elif self._over:  # it began after the end
            line.end()
            raise self.failure or self._link.lost(None)
        return line.consumer

    async def retire(self, queue: str) -> None:
        """Consume *queue* no more; what was received of it can still be settled. Never raises.

        It takes 10 seconds at most: a broker that does not answer by then loses the session.
        """
        line = self.lines.pop(queue, None)
        if line is not None:
            self._retired.append(line)
            await line.retire()

    async def close_retired(self) -> list[Consumer]:
        """Close the lines that have ended, and the retired ones of which all is settled. Never raises.

        A retired line stays until the broker has answered: what it settled may not be known there before.
        Return the consumers of those it has answered for: it knows of all that they settled.
        """
        ended, self._lost = self._lost, []
        for line in ended:
            await line.close()
        known = []
        for line in [one for one in self._retired if not one.consumer.outstanding]:
            if await line.close() and line in self._retired:
                self._retired.remove(line)
                known.append(line.consumer)
        return known

    async def cancel(self) -> None:
        """Stop the deliveries; return when all that were under way are here, or the session has failed.

        What was received can still be settled. A caller that is cancelled leaves it running. Never raises.
        """
        waits = {background(line.cancel()) for line in self.lines.values()}
        failing = background(self.failed.wait())
        try:
            while waits and not failing.done():
                done, _ = await asyncio.wait({failing, *waits}, return_when=asyncio.FIRST_COMPLETED)
                waits -= done
        finally:
            failing.cancel()

    async def close(self) -> None:
        """Write what was settled, then close channels and connection, each within 3 seconds. Never raises."""
        with anyio.CancelScope(shield=True):
            self._over = True
            async with anyio.create_task_group() as tasks:
                for line in [*self._all(), *self._lost]:
                    tasks.start_soon(line.close)
            await self._link.close()

    def abort(self) -> None:
        """Drop the connection at once: what waits for an answer must not hold up who is cancelled."""
        self._link.abort()

    async def ready(self, queue: str) -> int:
        """Return how many messages of a consumed *queue* are ready, without those that are unacknowledged.

        Raises:
            ConnectionLost: the session is over, by now at the latest.
        """
        if queue not in self.lines:
            raise ConfigError(f"The session does not consume the queue {queue}")
        if self._over:
            raise self._link.lost(self.failure)
        return await self.lines[queue].ready()

    def fail(self, failure: BrokerError) -> None:
        """End the session because of *failure*; nothing happens when it is over already."""
        if not self._over:
            self._over = True
            for line in self._all():
                line.end()
            self.failure = failure
            self.failed.set()

    def _all(self) -> list[Line]:
        return [*self.lines.values(), *self._retired]

    def _broken(self, error: Exception | None) -> None:
        self.fail(self._link.lost(error))

    def _closed(self, future: asyncio.Future[Any]) -> None:
        self.fail(self._link.lost(error_of(future)))

    def _line_ended(self, line: Line, failure: BrokerError) -> None:
        """Take note that one line ended by itself; with the connection all of them do."""
        if self._over:
            return
        if self._line_lost is None or self._link.over:
            self.fail(failure)
        elif line in self._all():
            if self.lines.get(line.queue) is line:
                del self.lines[line.queue]
            else:
                self._retired.remove(line)
            self._lost.append(line)
            for message in [one for one in self._early if one.origin is line.consumer]:
                self._early.remove(message)
                line.withdraw(message)
            self._line_lost(line, failure)


def check(queue: str, prefetch: int) -> None:
    """Check what a session is asked to consume.

    Raises:
        ConfigError: the prefetch is out of its range.
    """
    if not 1 <= prefetch <= LARGEST_PREFETCH:
        raise ConfigError(
            f"The prefetch of the queue {queue} must be 1 to {LARGEST_PREFETCH}, got {prefetch}"
        )
