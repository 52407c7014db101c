"""A channel: what is delivered on it, and what becomes of that."""

import secrets
from collections.abc import Callable
from itertools import takewhile
from typing import Any

from pamqp.commands import Basic, Confirm

from flow.devbroker import tables, wire
from flow.devbroker.confirming import Confirms
from flow.devbroker.deadletter import returned
from flow.devbroker.declaring import Declarations
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal
from flow.devbroker.faults import DUPLICATE, LOST
from flow.devbroker.line import Line
from flow.devbroker.message import Entry, Settling
from flow.devbroker.publishing import Incoming, expiration, routing_keys
from flow.devbroker.queues import Consumer, Queue

Unacked = tuple[Queue, Entry, Consumer | None]
"""A delivery that is not settled; without a consumer it was the answer to a get."""


class Channel:
    """One channel of a connection."""

    def __init__(self, line: Line, number: int) -> None:
        """Open it."""
        self.closing = False  # closed by the broker, and the client has not agreed yet
        self.consumers: dict[str, Consumer] = {}
        self.incoming = Incoming()
        self._line = line
        self._number = number
        self._vhost = line.agreed.vhost
        self._account = line.agreed.account
        self._frame_max = line.agreed.frame_max
        self._faults = line.faults
        self._declarations = Declarations(self._vhost, self._account, line)
        self._unacked: dict[int, Unacked] = {}
        self._confirms: Confirms | None = None
        self._delivered = 0
        self._prefetch = 0
        self._calls: dict[type[Any], Callable[[Any], Any]] = {
            wire.Ack: lambda method: self._settle(method, method.multiple, "ack"),
            Basic.Nack: lambda method: self._settle(
                method, method.multiple, "requeue" if method.requeue else "reject"
            ),
            Basic.Reject: lambda method: self._settle(
                method, False, "requeue" if method.requeue else "reject"
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
        return self._line.writable

    def frame(self, kind: int, content: bytes) -> None:
        """Take a method, or the header or a piece of the body of a message.

        Raises:
            Refusal: what it asks for will not be done.
        """
        if kind == wire.METHOD:
            self._method(content)
        elif self.incoming.header(content) if kind == wire.HEADER else self.incoming.body(content):
            self._publish()

    def deliver(self, consumer: Consumer, entry: Entry) -> None:
        """Send *entry* to the client."""
        consumer.unacked += 1
        self._hand_over(consumer.head, b"", consumer.queue, entry, consumer, consumer.no_ack)
        if self._faults.armed:
            self._faults.strike("delivery", self._line)
            if not consumer.no_ack and self._faults.strike(DUPLICATE, self._line):
                again = Entry(entry.message, entry.place, entry.deadline)
                again.returns = entry.returns + 1
                consumer.unacked += 1
                if self._vhost.watcher is not None:
                    self._vhost.watcher(consumer.queue.name, entry.message, "duplicate")
                self._hand_over(consumer.head, b"", consumer.queue, again, consumer, no_ack=False)

    def dismiss(self, consumer: Consumer) -> None:
        """Tell the client that *consumer* is no more, and forget it."""
        del self.consumers[consumer.tag]
        if self._line.wants_cancels:
            self._answer(Basic.Cancel(consumer.tag, True))

    def release(self) -> None:
        """Give everything back, as the channel ends; doing it again changes nothing.

        What was published in this burst is never answered: it is done, and the client cannot know.
        """
        if self._confirms is not None:
            self._confirms.drop()
        for consumer in list(self.consumers.values()):
            self._leave(consumer)
        held, self._unacked = list(self._unacked.values()), {}
        self._dispose(held, "return")

    def wake(self) -> None:
        """Let consumers go on that waited for the connection."""
        for consumer in list(self.consumers.values()):
            consumer.queue.wake(consumer)

    def confirm(self) -> None:
        """Answer what was published in this burst, unless a fault has it wait."""
        if self._confirms is None:
            return
        if self._faults.confirms_withheld or self._faults.confirm_delay:
            self._faults.delay(self._confirms.postpone())
        else:
            self._confirms.flush()

    def _method(self, content: bytes) -> None:
        number = wire.number_of.unpack_from(content)[0] if len(content) >= 4 else 0
        self.incoming.check_none()
        if number == wire.PUBLISH:
            self.incoming.begin(content)
            return
        method = wire.read_ack(content) if number == wire.ACK else wire.read_method(content)
        call = self._calls.get(type(method), self._declarations.call)
        answer = call(method)
        if answer is not None and not getattr(method, "nowait", False):
            self._answer(answer)

    def _answer(self, method: Any) -> None:
        self._line.write(wire.method_frame(method, self._number))

    def _hand_over(
        self, head: bytes, tail: bytes, queue: Queue, entry: Entry, consumer: Consumer | None, no_ack: bool
    ) -> None:
        """Send a delivery or the answer to a get, and remember it when it must be settled."""
        self._delivered = tag = self._delivered + 1
        message = entry.message
        if not no_ack:
            self._unacked[tag] = (queue, entry, consumer)
        if queue.terms.quorum and (entry.returns or consumer is None):
            message = returned(message, entry.returns)
        method = head + wire.delivery_of.pack(tag, entry.returns > 0) + message.address + tail
        self._line.write(wire.content_frames(method, self._number, message, self._frame_max))

    def _settle(self, method: Any, multiple: bool, outcome: Settling) -> None:
        """Do with deliveries what the client decided: ack, reject or requeue.

        Raises:
            ChannelRefusal: there is no such delivery.
        """
        tag = method.delivery_tag
        if tag not in self._unacked and not (tag == 0 and multiple):
            raise ChannelRefusal(406, f"unknown delivery tag {tag}")
        if self._faults.armed:
            self._faults.strike("before ack", self._line)
            if outcome == "ack" and self._faults.strike(LOST, self._line):
                outcome = "requeue"
        tags = [tag]
        if multiple:
            tags = list(takewhile(lambda number: not tag or number <= tag, self._unacked))
        settled = {number: self._unacked.pop(number) for number in tags}
        try:
            self._dispose(list(settled.values()), outcome)
        except Exception:
            self._unacked |= settled  # a defect ends the connection; what it held must come back
            raise
        if self._faults.armed:
            self._faults.strike("after ack", self._line)

    def _dispose(self, settled: list[Unacked], outcome: Settling) -> None:
        """Let go of, bury or put back what is *settled*, then let its consumers have more.

        *outcome* is ack, reject, requeue, or return: nobody asked, but the channel has ended.
        """
        back: dict[Queue, list[Entry]] = {}
        watcher = self._vhost.watcher
        for queue, entry, consumer in settled:
            if watcher is not None:
                watcher(queue.name, entry.message, outcome)
            if consumer is not None:
                consumer.unacked -= 1
            if queue.gone:
                continue
            if outcome == "reject":
                queue.reject(entry)
            elif outcome != "ack":
                back.setdefault(queue, []).append(entry)
        for queue, entries in back.items():
            queue.requeue(entries, asked=outcome == "requeue")
        for _, _, consumer in settled:
            if consumer is not None and consumer.blocked:
                consumer.queue.wake(consumer)

    def _publish(self) -> None:
        """Route the message that has come whole.

        Raises:
            Refusal: it may not be published.
        """
        message, mandatory, found = self.incoming.finish()
        exchange = message.exchange
        self._check_exchange(exchange)
        self._line.published = True
        ttl = expiration(found, self._account.name) if found else None
        message, keys = routing_keys(message)
        queues = self._vhost.route(exchange, keys)
        if not queues and mandatory:
            head = wire.NO_ROUTE + message.address
            self._line.write(wire.content_frames(head, self._number, message, self._frame_max))
        refusing = [queue for queue in queues if not queue.publish(message, ttl)]
        if self._faults.armed:
            self._faults.strike("publish", self._line)
        if self._confirms is not None and self._confirms.published(refused=bool(refusing)):
            self._line.confirm_later(self)
        self.incoming.end()

    def _check_exchange(self, name: str) -> None:
        self._account.check("write", "exchange", name, self._vhost.name)
        if not name:
            return
        exchange = self._vhost.exchanges.get(name)
        if exchange is None:
            raise ChannelRefusal(404, f"no {self._vhost.place('exchange', name)}")
        if exchange.internal:
            raise ChannelRefusal(403, f"cannot publish to internal {self._vhost.place('exchange', name)}")

    def _qos(self, method: Any) -> Basic.QosOk:
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
            raise ChannelRefusal(403, f"{self._vhost.place('queue', queue.name)} in exclusive use")
        consumer = Consumer(
            self, queue, tag, no_ack=method.no_ack, exclusive=method.exclusive, prefetch=self._prefetch
        )
        self.consumers[tag] = consumer
        if not method.nowait:
            self._answer(Basic.ConsumeOk(tag))
        queue.add(consumer)
        queue.run()

    def _cancel(self, method: Any) -> Basic.CancelOk:
        consumer = self.consumers.get(method.consumer_tag)
        if consumer is not None:
            self._leave(consumer)
        return Basic.CancelOk(method.consumer_tag)

    def _leave(self, consumer: Consumer) -> None:
        """Take a consumer from its queue, which goes with the last one when it was declared so."""
        del self.consumers[consumer.tag]
        queue = consumer.queue
        queue.remove(consumer)
        self._vhost.used(queue)
        if queue.auto_delete and not queue.consumers:
            self._vhost.delete_queue(queue)

    def _get(self, method: Any) -> Basic.GetEmpty | None:
        queue = self._declarations.open_queue(method.queue, "read")
        self._vhost.used(queue)
        entry = queue.take()
        if entry is None:
            return Basic.GetEmpty()
        left = wire.number_of.pack(len(queue))
        self._hand_over(wire.GET_OK, left, queue, entry, None, method.no_ack)
        return None

    def _confirm_select(self, method: Confirm.Select) -> Confirm.SelectOk:
        if self._confirms is None:
            self._confirms = Confirms(self._number, self._line.write)
        return Confirm.SelectOk()
