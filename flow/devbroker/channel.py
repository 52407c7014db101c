"""A channel: publishes, deliveries and what becomes of them."""

import secrets
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Protocol

from pamqp.commands import Basic, Confirm
from pamqp.commands import Channel as ChannelMethods

from flow.devbroker import properties, tables, wire
from flow.devbroker.accounts import Account
from flow.devbroker.confirming import Confirms
from flow.devbroker.declaring import Declarations
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal
from flow.devbroker.faults import Faults
from flow.devbroker.faults import Line as Doomed
from flow.devbroker.message import Entry, Message
from flow.devbroker.publishing import Incoming, expiration, routing_keys
from flow.devbroker.queues import Consumer, Queue
from flow.devbroker.vhost import VirtualHost


class Line(Doomed, Protocol):
    """The connection of a channel."""

    vhost: VirtualHost
    account: Account
    faults: Faults
    frame_max: int

    @property
    def writable(self) -> bool:
        """Whether it takes more deliveries at this time."""

    @property
    def wants_cancels(self) -> bool:
        """Whether the client understands basic.cancel from the broker."""

    def write(self, frames: bytes) -> None:
        """Send *frames* with the next burst."""

    def confirm_later(self, channel: "Channel") -> None:
        """Call `channel.confirm` at the end of the burst."""


class Channel:
    """One channel of a connection."""

    def __init__(self, line: Line, number: int) -> None:
        """Open it."""
        self.line = line
        self.number = number
        self.closing = False  # closed by the broker, and the client has not agreed yet
        self.consumers: dict[str, Consumer] = {}
        self.unacked: dict[int, tuple[Queue, Entry, Consumer | None]] = {}
        self.incoming = Incoming()
        self.confirms: Confirms | None = None
        self._declarations = Declarations(line.vhost, line.account, line)
        self._delivered = 0
        self._prefetch = 0
        self._calls: dict[type[Any], Callable[[Any], Any]] = {
            Basic.Ack: lambda method: self.settle(method.delivery_tag, method.multiple, "ack"),
            Basic.Nack: lambda method: self.settle(
                method.delivery_tag, method.multiple, "requeue" if method.requeue else "reject"
            ),
            Basic.Reject: lambda method: self.settle(
                method.delivery_tag, False, "requeue" if method.requeue else "reject"
            ),
            Basic.Qos: self._qos,
            Basic.Consume: self._consume,
            Basic.Cancel: self._cancel,
            Basic.Get: self._get,
            Confirm.Select: self._confirm_select,
        }

    @property
    def writable(self) -> bool:
        """Whether the connection takes more deliveries at this time."""
        return self.line.writable

    def method(self, content: bytes) -> None:
        """Do what a method asks for.

        Raises:
            Refusal: it will not be done.
        """
        number = wire.number_of.unpack_from(content)[0] if len(content) >= 4 else 0
        self.incoming.check_none()
        if number == wire.PUBLISH:
            self.incoming.begin(content)
            return
        if number == wire.ACK and len(content) == 13:
            tag, multiple = wire.delivery_of.unpack_from(content, 4)
            self.settle(tag, multiple, "ack")
            return
        method = wire.read_method(content)
        call = self._calls.get(type(method))
        answer = call(method) if call is not None else self._declarations.call(method)
        if answer is not None and not getattr(method, "nowait", False):
            self._answer(answer)

    def header(self, content: bytes) -> None:
        """Take the header of a message."""
        if self.incoming.header(content):
            self._publish()

    def body(self, content: bytes) -> None:
        """Take a piece of a message's body."""
        if self.incoming.body(content):
            self._publish()

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send *entry* to the client."""
        self._delivered = tag = self._delivered + 1
        if not consumer.no_ack:
            consumer.unacked += 1
        head = consumer.head + wire.delivery_of.pack(tag, entry.returns > 0)
        self._send(head, tag, entry, consumer.queue, consumer)

    def dismiss(self, consumer: Consumer) -> None:
        """Tell the client that *consumer* is no more, and forget it."""
        del self.consumers[consumer.tag]
        if self.line.wants_cancels:
            self._answer(Basic.Cancel(consumer.tag, True))

    def settle(self, tag: int, multiple: bool, outcome: str) -> None:
        """Do with deliveries what the client decided: ack, reject or requeue.

        Raises:
            ChannelRefusal: there is no such delivery.
        """
        if tag not in self.unacked and not (tag == 0 and multiple):
            raise ChannelRefusal(406, f"unknown delivery tag {tag}")
        faults = self.line.faults
        if faults.armed:
            faults.strike("before ack", self.line)
            if outcome == "ack" and faults.strike("lost ack", self.line):
                outcome = "requeue"
        tags = [tag]
        if multiple:
            tags = list(takewhile(lambda number: not tag or number <= tag, self.unacked))
        self._settle_all([self.unacked.pop(number) for number in tags], outcome)
        if faults.armed:
            faults.strike("after ack", self.line)

    def _settle_all(self, settled: list[tuple[Queue, Entry, Consumer | None]], outcome: str) -> None:
        returned: dict[Queue, list[Entry]] = {}
        for queue, entry, consumer in settled:
            if consumer is not None:
                consumer.unacked -= 1
            if outcome == "reject":
                queue.reject(entry)
            elif outcome == "requeue":
                returned.setdefault(queue, []).append(entry)
        for queue, entries in returned.items():
            if not queue.gone:
                queue.requeue(entries)
        for _, _, consumer in settled:
            if consumer is not None and consumer.blocked:
                consumer.queue.wake(consumer)

    def release(self) -> None:
        """Give everything back, as the channel ends."""
        for consumer in list(self.consumers.values()):
            self._leave(consumer)
        held, self.unacked = list(self.unacked.values()), {}
        self._settle_all(held, "requeue")

    def wake(self) -> None:
        """Let consumers go on that waited for the connection."""
        for consumer in list(self.consumers.values()):
            if consumer.blocked:
                consumer.queue.wake(consumer)

    def confirm(self) -> None:
        """Answer what was published in this burst."""
        if self.confirms is not None:
            self.confirms.flush()

    def withhold(self) -> None:
        """Never answer what was published in this burst."""
        if self.confirms is not None:
            self.confirms.withhold()

    def _answer(self, method: Any) -> None:
        self.line.write(wire.method_frame(method, self.number))

    def _send(self, head: bytes, tag: int, entry: Entry, queue: Queue, consumer: Consumer | None) -> None:
        """Send a delivery or the answer to a get, and remember it when it must be acknowledged."""
        message = entry.message
        if consumer is None or not consumer.no_ack:
            self.unacked[tag] = (queue, entry, consumer)
        self.line.write(
            wire.content_frames(head + message.address, self.number, told(queue, entry), self.line.frame_max)
        )
        if self.line.faults.armed:
            self.line.faults.strike("delivery", self.line)

    def _publish(self) -> None:
        """Route the message that has come whole.

        Raises:
            Refusal: it may not be published.
        """
        message, mandatory, found = self.incoming.finish()
        vhost = self.line.vhost
        exchange = message.exchange
        self.line.account.check("write", "exchange", exchange, vhost.name)
        known = vhost.exchanges.get(exchange)
        if exchange and known is None:
            raise ChannelRefusal(404, f"no {vhost.place('exchange', exchange)}")
        if known is not None and known.internal:
            raise ChannelRefusal(403, f"cannot publish to internal {vhost.place('exchange', exchange)}")
        ttl = expiration(found, self.line.account.name) if found else None
        message, keys = routing_keys(message)
        queues = vhost.route(exchange, keys)
        if not queues and mandatory:
            self._return(message)
        refusing = [queue for queue in queues if not queue.publish(message, ttl)]
        if self.confirms is None:
            return
        if refusing:
            self.confirms.refused()
        elif self.confirms.accepted():
            self.line.confirm_later(self)
        if self.line.faults.armed:
            self.line.faults.strike("publish", self.line)

    def _return(self, message: Message) -> None:
        head = b"\x00\x3c\x00\x32\x01\x38" + tables.short("NO_ROUTE") + message.address
        self.line.write(wire.content_frames(head, self.number, message, self.line.frame_max))

    def _qos(self, method: Basic.Qos) -> Basic.QosOk:
        if method.prefetch_size:
            raise ConnectionRefusal(540, f"prefetch_size!=0 ({method.prefetch_size})")
        if method.global_:
            raise ConnectionRefusal(540, "a prefetch per channel is not provided by the development broker")
        self._prefetch = method.prefetch_count
        return Basic.QosOk()

    def _consume(self, method: Any) -> None:
        queue = self._declarations.open_queue(method.queue, "read")
        tag = method.consumer_tag or f"amq.ctag-{secrets.token_urlsafe(16)}"
        if tag in self.consumers:
            raise ConnectionRefusal(530, f"attempt to reuse consumer tag '{tag}'")
        if "x-priority" in tables.read_table(method.arguments)[0]:
            raise ConnectionRefusal(540, "consumer priorities are not provided by the development broker")
        others = queue.consumers.values()
        if any(other.exclusive for other in others) or (method.exclusive and others):
            raise ChannelRefusal(403, f"{self.line.vhost.place('queue', queue.name)} in exclusive use")
        consumer = Consumer(
            self, queue, tag, no_ack=method.no_ack, exclusive=method.exclusive, prefetch=self._prefetch
        )
        self.consumers[tag] = consumer
        if not method.nowait:
            self._answer(Basic.ConsumeOk(tag))
        queue.add(consumer)
        queue.run()

    def _cancel(self, method: Basic.Cancel) -> Basic.CancelOk:
        consumer = self.consumers.get(str(method.consumer_tag))
        if consumer is not None:
            self._leave(consumer)
        return Basic.CancelOk(method.consumer_tag)

    def _leave(self, consumer: Consumer) -> None:
        """Take a consumer from its queue, which goes with the last one when it was declared so."""
        del self.consumers[consumer.tag]
        queue = consumer.queue
        queue.remove(consumer)
        self.line.vhost.used(queue)
        if queue.auto_delete and not queue.consumers:
            self.line.vhost.delete_queue(queue)

    def _get(self, method: Basic.Get) -> None:
        queue = self._declarations.open_queue(method.queue, "read")
        if any(consumer.exclusive for consumer in queue.consumers.values()):
            raise ChannelRefusal(403, f"{self.line.vhost.place('queue', queue.name)} in exclusive use")
        self.line.vhost.used(queue)
        entry = queue.take()
        if entry is None:
            self._answer(Basic.GetEmpty())
            return
        self._delivered = tag = self._delivered + 1
        head = b"\x00\x3c\x00\x47" + wire.delivery_of.pack(tag, entry.returns > 0)
        frames = wire.content_frames(
            head + entry.message.address + wire.number_of.pack(len(queue)),
            self.number,
            told(queue, entry),
            self.line.frame_max,
        )
        if not method.no_ack:
            self.unacked[tag] = (queue, entry, None)
        self.line.write(frames)

    def _confirm_select(self, method: Confirm.Select) -> Confirm.SelectOk:
        if self.confirms is None:
            self.confirms = Confirms(self.number, self.line.write)
        return Confirm.SelectOk()

    def flow(self, method: Any) -> ChannelMethods.FlowOk:
        """Answer channel.flow.

        Raises:
            ConnectionRefusal: the client wants deliveries to stop, which RabbitMQ does not do either.
        """
        if not method.active:
            raise ConnectionRefusal(540, "active=false")
        return ChannelMethods.FlowOk(True)


def told(queue: Queue, entry: Entry) -> Message:
    """Return the message as it is delivered: quorum queues tell how often it came back."""
    message = entry.message
    if not entry.returns or not queue.terms.quorum:
        return message
    count = {"x-delivery-count": tables.long(entry.returns)}
    return Message(message.address, properties.with_headers(message.properties, count), message.body)
