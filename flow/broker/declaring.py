"""Declares exchanges, queues and bindings, and tells where what exists differs from what is wanted."""

import re
import shlex
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, TypeVar

from aiormq import exceptions as amqp
from aiormq.abc import AbstractChannel

from flow.broker import faults
from flow.broker.border import bounded
from flow.broker.shared import OpenChannel, SharedConnection
from flow.broker.url import BrokerUrl
from flow.errors import AccessDenied, BrokerError, ConnectionLost, NotFound, TopologyMismatch
from flow.topology import Binding, Exchange, Queue, Topology

ANSWER = 10.0  # seconds until the broker must have answered

T = TypeVar("T")

DIFFERENCE = re.compile(
    r"inequivalent arg '(?P<argument>[^']+)' for .*: received (?P<wanted>.+) but current is (?P<present>.+)"
)
VALUE = re.compile(r"'(.*?)'")
ALTERNATE = "alternate-exchange"
POLICY = (
    r"--apply-to exchanges flow-park '^system\.(fail|retry)$' " """'{"alternate-exchange":"system.park"}'"""
)


@dataclass(frozen=True, slots=True)
class Drift:
    """An exchange or a queue that exists with other properties than wanted, and was left as it is."""

    kind: Literal["exchange", "queue"]
    name: str
    sentence: str
    """What differs, and what can be done."""


@dataclass(frozen=True, slots=True)
class Look:
    """What a queue holds; messages in the hands of a consumer are not seen."""

    ready: int
    consumers: int

    @property
    def in_use(self) -> bool:
        """Whether there is anything that a deletion would take away."""
        return bool(self.ready or self.consumers)

    def __str__(self) -> str:
        waiting = counted(self.ready, "message waits", "messages wait")
        reading = counted(self.consumers, "consumer reads", "consumers read")
        return f"{waiting} in it and {reading} it"


def counted(number: int, one: str, several: str) -> str:
    """Return a *number* with the right word: no message, 1 message, 2 messages."""
    return f"{number or 'no'} {one if number < 2 else several}"


async def declare(url: BrokerUrl, topology: Topology) -> list[Drift]:
    """Declare *topology* over a connection of its own; see `Declarer.declare`."""
    async with Declarer(url) as declarer:
        return await declarer.declare(topology)


class Declarer:
    """Changes the topology of one virtual host, each change answered by the broker.

    The broker closes a channel with each refusal; the next change then opens a new one.
    """

    def __init__(self, broker: BrokerUrl | SharedConnection, *, name: str = "flow setup") -> None:
        """Open a channel at the first change: on a connection under *name*, or on one that others use."""
        self._shared = isinstance(broker, SharedConnection)
        self._connection = SharedConnection(broker, name=name) if isinstance(broker, BrokerUrl) else broker
        self._channel: OpenChannel | None = None

    async def __aenter__(self) -> "Declarer":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def declare(self, topology: Topology) -> list[Drift]:
        """Declare *topology*; what exists with other properties is left as it is and returned.

        Bindings of a queue that differs are not made; everything else is.

        Raises:
            NotFound: an exchange that the topology leads to is neither in it nor there.
            AccessDenied: the account may not declare or bind something.
            ConnectionLost: the broker was not reached, or got lost.
        """
        drifts: list[Drift] = []
        for name in topology.surroundings:
            await self.look_for_exchange(name)
        for exchange in topology.exchanges:
            try:
                await self.declare_exchange(exchange)
            except TopologyMismatch as error:
                drifts.append(Drift("exchange", exchange.name, str(error)))
        for queue in topology.queues:
            try:
                await self.declare_queue(queue)
            except TopologyMismatch as error:
                drifts.append(Drift("queue", queue.name, str(error)))
        differing = {drift.name for drift in drifts if drift.kind == "queue"}
        for binding in topology.bindings:
            if binding.queue not in differing:
                await self.bind(binding)
        return drifts

    async def declare_exchange(self, exchange: Exchange) -> None:
        """Declare a durable exchange; nothing happens when it exists like this.

        Raises:
            TopologyMismatch: it exists with other properties.
        """
        await self._change(
            lambda channel: channel.exchange_declare(
                exchange.name,
                exchange_type=exchange.kind,
                durable=True,
                arguments=dict(exchange.arguments),
            ),
            f"The exchange {exchange.name}",
        )

    async def declare_queue(self, queue: Queue) -> None:
        """Declare a durable queue; nothing happens when it exists like this.

        Raises:
            TopologyMismatch: it exists with other properties.
        """
        await self._change(
            lambda channel: channel.queue_declare(queue.name, durable=True, arguments=dict(queue.arguments)),
            f"The queue {queue.name}",
        )

    async def bind(self, binding: Binding) -> None:
        """Bind a queue; nothing happens when it is bound like this.

        Raises:
            NotFound: the exchange or the queue does not exist.
        """
        await self._change(
            lambda channel: channel.queue_bind(binding.queue, binding.exchange, binding.key),
            f"The binding of {binding.queue} to {binding.exchange}",
        )

    async def unbind(self, binding: Binding) -> None:
        """Remove a binding; what waits in the queue is left alone. Nothing happens when there is none."""
        await self._change(
            lambda channel: channel.queue_unbind(binding.queue, binding.exchange, binding.key),
            f"The binding of {binding.queue} to {binding.exchange}",
        )

    async def delete_queue(self, name: str) -> None:
        """Delete the queue *name* if nobody consumes it and it is empty; nothing happens without it.

        Quorum queues cannot be asked to do both at once: what arrives between look and deletion would be
        lost. Unbind it before.

        Raises:
            TopologyMismatch: it is used, or holds messages.
        """
        try:
            found = await self.look(name)
        except NotFound:
            return
        if found.in_use:
            raise TopologyMismatch(f"The queue {name} is not deleted: {found}")
        await self._change(lambda channel: channel.queue_delete(name), f"The queue {name}")

    async def look(self, name: str) -> Look:
        """Return what the queue *name* holds; needs no permission.

        Raises:
            NotFound: there is none.
        """
        found = await self._change(
            lambda channel: channel.queue_declare(name, passive=True), f"The queue {name}"
        )
        return Look(ready=found.message_count or 0, consumers=found.consumer_count or 0)

    async def look_for_exchange(self, name: str) -> None:
        """Look whether there is an exchange *name*; needs no permission.

        Raises:
            NotFound: there is none.
        """
        await self._change(
            lambda channel: channel.exchange_declare(name, passive=True), f"The exchange {name}"
        )

    async def _change(self, change: Callable[[AbstractChannel], Coroutine[Any, Any, T]], what: str) -> T:
        channel = self._channel = self._channel or await self._connection.open()
        try:
            return await bounded(
                change(channel.amqp),
                seconds=ANSWER,
                give_up=channel.abort,
                fault=lambda error: refused(error, what, self._connection.url, channel.reply),
            )
        except BrokerError:
            await self._close_channel()
            raise

    async def close(self) -> None:
        """Close the channel, and the connection unless others use it, too; a change opens a new one."""
        await self._close_channel()
        if not self._shared:
            await self._connection.close()

    async def _close_channel(self) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()


def refused(error: BaseException, what: str, url: BrokerUrl, reply: tuple[int, str] | None) -> BrokerError:
    """Translate what the broker answered to a change of *what* (a kind and a name)."""
    words = faults.quoted(str(error))
    if isinstance(error, amqp.ChannelPreconditionFailed):
        return TopologyMismatch(difference(what, str(error), url.vhost))
    if isinstance(error, amqp.ChannelAccessRefused):
        who = f"user {url.user} in the virtual host {url.vhost}"
        return AccessDenied(f"{what} is refused to {who}: grant permissions ({words})")
    if isinstance(error, amqp.ChannelNotFoundEntity):
        return NotFound(f"{what} was not found: run `flow setup`, or correct the name ({words})")
    if isinstance(error, amqp.ChannelLockedResource):
        return ConnectionLost(f"{what} is in the hands of another connection: {words}")
    return faults.lost(error, reply)


def difference(what: str, words: str, vhost: str) -> str:
    """Return one sentence on how *what* differs, from the broker's *words*; RabbitMQ names one argument."""
    found = DIFFERENCE.search(words)
    if found is None:
        return f"{what} is refused as it is wanted: {faults.quoted(words)}"
    argument, present, wanted = found["argument"], value(found["present"]), value(found["wanted"])
    return (
        f"{what} exists with {argument} = {present} where {wanted} is wanted: {advice(what, argument, vhost)}"
    )


def value(words: str) -> str:
    """Return the value within the broker's *words*, such as `the value '5' of type 'short'`."""
    found = VALUE.search(words)
    return found[1] if found else words


def advice(what: str, argument: str, vhost: str) -> str:
    """Return what can be done about it; flow changes nothing that exists."""
    if argument == ALTERNATE:
        place = shlex.quote(vhost)
        return f"set it with rabbitmqctl set_policy -p {place} {POLICY} (policies are not seen here)"
    if what.startswith("The queue"):
        return "ask for what is there, or empty and delete it and run `flow setup` again"
    return "delete it and run `flow setup` again"
