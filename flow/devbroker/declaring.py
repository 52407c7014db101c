"""What a channel asks about exchanges and queues."""

from collections.abc import Callable
from typing import Any

from pamqp.commands import Exchange as ExchangeMethods
from pamqp.commands import Queue as QueueMethods

from flow.devbroker import tables
from flow.devbroker.accounts import Account
from flow.devbroker.arguments import check_flags, check_same, check_same_queue
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal
from flow.devbroker.queues import Queue
from flow.devbroker.routing import KINDS, Exchange
from flow.devbroker.vhost import VirtualHost

LOCKED = (
    "cannot obtain exclusive access to locked {}. It could be originally declared on another connection "
    "or the exclusive property value does not match that of the original declaration."
)


class Declarations:
    """Declares, binds, purges and deletes for one channel."""

    def __init__(self, vhost: VirtualHost, account: Account, owner: object) -> None:
        """Work in *vhost* for *account*; exclusive queues belong to *owner*, the connection."""
        self._vhost = vhost
        self._account = account
        self._owner = owner
        self._last = ""  # the name of the queue that was declared last
        self._calls: dict[type[Any], Callable[[Any], Any]] = {
            ExchangeMethods.Declare: self._declare_exchange,
            ExchangeMethods.Delete: self._delete_exchange,
            QueueMethods.Declare: self._declare_queue,
            QueueMethods.Bind: self._bind,
            QueueMethods.Unbind: self._unbind,
            QueueMethods.Purge: self._purge,
            QueueMethods.Delete: self._delete_queue,
        }

    def call(self, method: Any) -> Any:
        """Do what *method* asks for, and return the answer.

        Raises:
            Refusal: it will not be done.
        """
        call = self._calls.get(type(method))
        if call is not None:
            return call(method)
        if method.synchronous and method.name.partition(".")[0] != "Connection":
            raise ConnectionRefusal(540, f"{method.name} is not provided by the development broker")
        raise ConnectionRefusal(503, "unimplemented method")

    def open_queue(self, name: str, what: str) -> Queue:
        """Return the queue called *name*, or the one declared last, to *what*: configure, write or read it.

        Raises:
            ChannelRefusal: there is none (404), another connection has it (405), or it is not allowed (403).
        """
        name = self._named(name)
        self._account.check(what, "queue", name, self._vhost.name)
        queue = self._vhost.queues.get(name)
        if queue is None:
            raise ChannelRefusal(404, f"no {self._where(name)}")
        self._check_owner(queue)
        return queue

    def _named(self, name: str) -> str:
        if not name and not self._last:
            raise ChannelRefusal(404, "no previously declared queue")
        return name or self._last

    def _where(self, name: str) -> str:
        return self._vhost.place("queue", name)

    def _check_owner(self, queue: Queue) -> None:
        if queue.owner is not None and queue.owner is not self._owner:
            raise ChannelRefusal(405, LOCKED.format(self._where(queue.name)))

    def _declare_queue(self, method: Any) -> QueueMethods.DeclareOk:
        name = method.queue
        if method.passive:
            queue = self._vhost.queues.get(name)
            if queue is None:
                raise ChannelRefusal(404, f"no {self._where(name)}")
            self._check_owner(queue)
        else:
            queue = self._declared(method)
        self._last = queue.name
        self._vhost.used(queue)
        return QueueMethods.DeclareOk(queue.name, len(queue), len(queue.consumers))

    def _declared(self, method: Any) -> Queue:
        """Return the queue as it was asked for, made when there is none."""
        name = method.queue
        check_reserved("queue", name)
        arguments = tables.read_table(method.arguments)[0]
        self._account.check("configure", "queue", name, self._vhost.name)
        existing = self._vhost.queues.get(name)
        if existing is not None:
            self._check_owner(existing)
            where = self._where(name)
            check_flags({"durable": (method.durable, existing.durable)}, where)
            check_flags({"auto_delete": (method.auto_delete, existing.auto_delete)}, where)
            if method.exclusive != (existing.owner is not None):
                raise ChannelRefusal(405, LOCKED.format(where))
            check_same_queue(existing.terms, existing.arguments, arguments, where)
            return existing
        self._check_dead_letter(name, arguments)
        self._check_quorum(method, arguments)
        queue = self._vhost.add_queue(name, arguments)
        queue.durable, queue.auto_delete = method.durable, method.auto_delete
        queue.owner = self._owner if method.exclusive else None
        return queue

    def _check_quorum(self, method: Any, arguments: tables.Table) -> None:
        if arguments.get("x-queue-type") != tables.longstr("quorum"):
            return
        if not method.queue:
            raise ChannelRefusal(406, "Cannot declare a server-named queue for type rabbit_quorum_queue")
        wrong = {
            "non-durable": not method.durable,
            "exclusive-owner": method.exclusive,
            "auto-delete": method.auto_delete,
        }
        for name, is_so in wrong.items():
            if is_so:
                raise ChannelRefusal(406, f"invalid property '{name}' for {self._where(method.queue)}")

    def _check_dead_letter(self, name: str, arguments: tables.Table) -> None:
        exchange = arguments.get("x-dead-letter-exchange")
        if exchange is not None and exchange[:1] == b"S":
            self._account.check("read", "queue", name, self._vhost.name)
            self._account.check("write", "exchange", tables.text(exchange), self._vhost.name)

    def _delete_queue(self, method: Any) -> QueueMethods.DeleteOk:
        name = self._named(method.queue)
        self._account.check("configure", "queue", name, self._vhost.name)
        queue = self._vhost.queues.get(name)
        if queue is None:
            return QueueMethods.DeleteOk(0)
        self._check_owner(queue)
        if method.if_unused and queue.consumers:
            raise ChannelRefusal(406, f"{self._where(name)} in use")
        if method.if_empty and len(queue):
            raise ChannelRefusal(406, f"{self._where(name)} not empty")
        return QueueMethods.DeleteOk(self._vhost.delete_queue(queue))

    def _purge(self, method: Any) -> QueueMethods.PurgeOk:
        return QueueMethods.PurgeOk(self.open_queue(method.queue, "read").purge())

    def _bind(self, method: Any) -> QueueMethods.BindOk:
        name = self._named(method.queue)
        check_not_default(method.exchange)
        self._account.check("write", "queue", name, self._vhost.name)
        self._account.check("read", "exchange", method.exchange, self._vhost.name)
        exchange = self._exchange(method.exchange)
        queue = self.open_queue(name, "write")
        key = method.routing_key or (name if not method.queue else "")
        exchange.bind(name, queue, key, method.arguments)
        self._vhost.retry_held()
        return QueueMethods.BindOk()

    def _unbind(self, method: Any) -> QueueMethods.UnbindOk:
        name = self._named(method.queue)
        check_not_default(method.exchange)
        self._account.check("write", "queue", name, self._vhost.name)
        self._account.check("read", "exchange", method.exchange, self._vhost.name)
        exchange = self._vhost.exchanges.get(method.exchange)
        binding = name, method.routing_key, method.arguments
        if exchange is not None and binding in exchange.bindings:
            self._check_owner(exchange.bindings[binding])
            exchange.unbind(*binding)
            self._vhost.unbound(exchange)
        return QueueMethods.UnbindOk()

    def _exchange(self, name: str) -> Exchange[Queue]:
        exchange = self._vhost.exchanges.get(name)
        if exchange is None:
            raise ChannelRefusal(404, f"no {self._vhost.place('exchange', name)}")
        return exchange

    def _declare_exchange(self, method: Any) -> ExchangeMethods.DeclareOk:
        check_not_default(method.exchange)
        if method.passive:
            self._exchange(method.exchange)
            return ExchangeMethods.DeclareOk()
        name, kind = method.exchange, method.exchange_type
        if kind == "headers":
            raise ConnectionRefusal(540, "headers exchanges are not provided by the development broker")
        if kind not in KINDS:
            raise ConnectionRefusal(503, f"unknown exchange type '{kind}'")
        self._account.check("configure", "exchange", name, self._vhost.name)
        arguments = tables.read_table(method.arguments)[0]
        where = self._vhost.place("exchange", name)
        self._check_alternate(name, arguments)
        existing = self._vhost.exchanges.get(name)
        if existing is None:
            check_reserved("exchange", name)
            self._vhost.exchanges[name] = Exchange(
                name, kind, method.durable, method.auto_delete, method.internal, arguments
            )
            return ExchangeMethods.DeclareOk()
        if kind != existing.kind:
            told = f"received '{kind}' but current is '{existing.kind}'"
            raise ChannelRefusal(406, f"inequivalent arg 'type' for {where}: {told}")
        check_flags({"durable": (method.durable, existing.durable)}, where)
        check_flags({"auto_delete": (method.auto_delete, existing.auto_delete)}, where)
        check_flags({"internal": (method.internal, existing.internal)}, where)
        check_same(("alternate-exchange",), existing.arguments, arguments, where)
        return ExchangeMethods.DeclareOk()

    def _check_alternate(self, name: str, arguments: tables.Table) -> None:
        alternate = arguments.get("alternate-exchange")
        if alternate is None:
            return
        if alternate[:1] != b"S":
            where = self._vhost.place("exchange", name)
            told = f"invalid type '{tables.kind(alternate)}' for arg 'alternate-exchange' in {where}"
            raise ChannelRefusal(406, told)
        self._account.check("read", "exchange", name, self._vhost.name)
        self._account.check("write", "exchange", tables.text(alternate), self._vhost.name)

    def _delete_exchange(self, method: Any) -> ExchangeMethods.DeleteOk:
        name = method.exchange
        check_not_default(name)
        if name.startswith("amq."):
            where = self._vhost.place("exchange", name)
            raise ChannelRefusal(403, f"deletion of system {where} not allowed")
        self._account.check("configure", "exchange", name, self._vhost.name)
        exchange = self._vhost.exchanges.get(name)
        if exchange is not None:
            if method.if_unused and exchange.bindings:
                raise ChannelRefusal(406, f"{self._vhost.place('exchange', name)} in use")
            del self._vhost.exchanges[name]
        return ExchangeMethods.DeleteOk()


def check_not_default(name: str) -> None:
    """Check that an exchange is not the default one.

    Raises:
        ChannelRefusal: it is.
    """
    if not name:
        raise ChannelRefusal(403, "operation not permitted on the default exchange")


def check_reserved(kind: str, name: str) -> None:
    """Check that the name of a new queue or exchange is free for users.

    Raises:
        ChannelRefusal: it begins with amq.
    """
    if name.startswith("amq."):
        raise ChannelRefusal(403, f"{kind} name '{name}' contains reserved prefix 'amq.*'")
