"""Everything that can be done to the plumbing of one virtual host, over one connection."""

from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from types import TracebackType

import anyio
import msgspec

from flow.broker.declaring import Declarer, Drift
from flow.broker.publication import Headers
from flow.broker.publisher import Publisher
from flow.broker.shared import SharedConnection
from flow.broker.url import BrokerUrl
from flow.errors import DecodeError
from flow.management import ManagementApi
from flow.plumbing.organisations import drop
from flow.plumbing.pool import Pool
from flow.plumbing.push import WINDOW, Outgoing, Push, Unconfirmed
from flow.plumbing.setup import binding_of
from flow.topology import (
    QueueType,
    Topology,
    exchanges_topology,
    global_topology,
    organisation_binding,
    organisation_topology,
    system_topology,
    work_queue,
)


class Plumbing:
    """Sets exchanges and queues up, takes queues down, and pushes; each method can be called alone.

    All of them share one connection, which is opened at the first use and again after a loss. Each use has a
    channel of its own, so that what the broker refuses to one does not end another. `async with` closes it.
    What is set up twice stays as it is; what exists with other properties is left alone and returned.
    """

    def __init__(
        self,
        url: BrokerUrl | str,
        *,
        queue_type: QueueType = "quorum",
        retry_delay: float = 30.0,
        management: ManagementApi | None = None,
    ) -> None:
        """Take the address of the broker, like amqps://USER:PASSWORD@HOST/VHOST; nothing is opened yet.

        Queues are made as *queue_type*; rejected messages wait *retry_delay* seconds. With *management* a
        refusal to drop a queue says who reads it, and unacknowledged messages count, too.

        Raises:
            ConfigError: the address is wrong.
        """
        self.url = BrokerUrl.parse(url) if isinstance(url, str) else url
        """The address; it shows no password."""
        self._queue_type = queue_type
        self._retry_delay = retry_delay
        self._management = management
        self._connection = SharedConnection(self.url, name="flow plumbing")
        self._pool = Pool(self._connection)

    async def __aenter__(self) -> "Plumbing":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connection; the next use would open a new one. Never raises."""
        await self._pool.close()
        await self._connection.close()

    async def set_up(self, topology: Topology) -> list[Drift]:
        """Declare a *topology*; what differs is left as it is and returned.

        Raises:
            NotFound: an exchange that it leads to does not exist.
            AccessDenied: the account may not declare or bind.
            ConnectionLost: the broker was not reached, or got lost.
        """
        async with self._declarer() as declarer:
            return await declarer.declare(topology)

    async def set_up_exchanges(self) -> list[Drift]:
        """Declare the exchanges alone."""
        return await self.set_up(exchanges_topology())

    async def set_up_global_queues(self) -> list[Drift]:
        """Declare the exchanges, the retry loop, the park, and the queues of flow's own pipelines."""
        loop = global_topology(self._queue_type, self._retry_delay)
        return await self.set_up(loop + system_topology(self._queue_type))

    async def set_up_queue(self, name: str, bindings: Iterable[str] = ()) -> list[Drift]:
        """Declare one work queue with its place in the retry loop, which must be there.

        The *bindings*, each like `deliver:acme.*.*`, bring messages into it; those it has already stay.

        Raises:
            ConfigError: the name or a binding cannot be used.
        """
        bound = Topology(bindings=tuple(binding_of(name, text) for text in bindings))
        return await self.set_up(work_queue(name, self._queue_type) + bound)

    async def set_up_queues(self, names: Iterable[str]) -> list[Drift]:
        """Declare many work queues with their place in the retry loop, which must be there."""
        topology = Topology()
        for name in names:
            topology += work_queue(name, self._queue_type)
        return await self.set_up(topology)

    async def set_up_organisation(self, name: str, parts: Collection[str] = ("crm",)) -> list[Drift]:
        """Declare and bind what one organisation wants: crm, confirm, moderate, sqs.

        Raises:
            ConfigError: the name would bind other people's messages, or there is no such part.
        """
        return await self.set_up_organisations({name: parts})

    async def set_up_organisations(self, wanted: Mapping[str, Collection[str]]) -> list[Drift]:
        """Declare and bind what all organisations want; *wanted* tells the parts by the organisation's name.

        All names are checked before anything is declared.

        Raises:
            ConfigError: a name would bind other people's messages, or there is no such part.
        """
        topology = Topology()
        for name, parts in wanted.items():
            topology += organisation_topology(name, parts, self._queue_type)
        return await self.set_up(topology)

    async def create_crm_queue(self, organisation: str) -> list[Drift]:
        """Declare and bind the CRM queue of an *organisation*."""
        return await self.set_up_organisation(organisation, ["crm"])

    async def drop_crm_queue(self, organisation: str) -> bool:
        """Delete the CRM queue of an *organisation*, as `drop_organisation_queue` says."""
        return await self.drop_organisation_queue(organisation, "crm")

    async def create_organisation_queue(self, organisation: str, part: str) -> list[Drift]:
        """Declare and bind one queue of an *organisation*; of the *part* sqs it is a binding alone."""
        return await self.set_up_organisation(organisation, [part])

    async def turn_off(self, organisation: str, part: str) -> None:
        """Give a *part* of an *organisation* no new messages; what waits in the queue is left alone, and what
        was rejected comes back to it. Nothing happens when it is off."""
        async with self._declarer() as declarer:
            await declarer.unbind(organisation_binding(organisation, part))

    async def drop_organisation_queue(self, organisation: str, part: str) -> bool:
        """Delete one queue of an *organisation* if nobody reads it and it is empty; return whether it was
        there. The *part* sqs is turned off.

        Rejected messages of it that still wait for their next attempt are parked when they come back.

        Raises:
            InUse: there are messages or consumers; nothing was changed.
        """
        if part == "sqs":
            await self.turn_off(organisation, part)
            return True
        async with self._declarer() as declarer:
            binding = organisation_binding(organisation, part)
            return await drop(declarer, binding, self._management, self.url.vhost)

    async def push(
        self,
        exchange: str,
        routing_key: str,
        data: object,
        *,
        message_id: str | None = None,
        headers: Headers | None = None,
    ) -> None:
        """Publish *data*, persistent and mandatory, and return once the broker has confirmed it.

        Bytes are published as they are, everything else as JSON. A new id is made without *message_id*.

        Raises:
            DecodeError: *data* cannot be written as JSON.
            PublishReturned: no queue takes it.
            PublishFailed: the broker refused it, or did not confirm it in 30 s.
            NotFound: the exchange does not exist.
            AccessDenied: the account may not publish there.
            Unanswered: the connection broke under it: it may have arrived or not.
            ConnectionLost: it was not sent.
        """
        await self._pool.publish(exchange, routing_key, encoded(data), message_id, headers)

    async def push_many(self, messages: Iterable[Outgoing]) -> list[Unconfirmed[Outgoing]]:
        """Publish *messages*, up to 200 of them at a time; return those that are not known to be confirmed.

        This has a connection of its own. What is returned can be pushed again: each message keeps its id.
        After a lost connection the others go on over a new one, unless none can be opened for a minute.
        """
        publisher = Publisher(self.url, name="flow plumbing push", window=WINDOW)

        async def publish(one: Outgoing) -> None:
            await publisher.publish(one.exchange, one.routing_key, one.body, message_id=one.message_id)

        failures: list[Unconfirmed[Outgoing]] = []
        push = Push(publish, lambda _: True, failures.append, patience=60.0)
        try:
            await push.run(each(messages))
        finally:
            with anyio.CancelScope(shield=True):
                await publisher.close()
        return sorted(failures + push.unconfirmed(), key=lambda one: one.number)

    @asynccontextmanager
    async def _declarer(self) -> AsyncIterator[Declarer]:
        async with Declarer(self._connection) as declarer:
            yield declarer


def encoded(data: object) -> bytes:
    """Return the body for *data*: bytes as they are, everything else as JSON.

    Raises:
        DecodeError: it cannot be written as JSON; nothing of it is quoted.
    """
    if isinstance(data, bytes):
        return data
    try:
        return msgspec.json.encode(data)
    except (TypeError, ValueError, RecursionError) as error:
        raise DecodeError(f"what is pushed cannot be written as JSON ({type(error).__name__})") from None


async def each(messages: Iterable[Outgoing]) -> AsyncIterator[Outgoing]:
    """Yield *messages*."""
    for message in messages:
        yield message
