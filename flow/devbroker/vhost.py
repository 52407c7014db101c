"""A virtual host: its exchanges and queues, and the ways between them."""

import secrets
from collections import deque
from collections.abc import Callable, Sequence

from flow.devbroker import deadletter, properties, tables
from flow.devbroker.arguments import read_terms
from flow.devbroker.clock import Alarm, Clock
from flow.devbroker.message import Entry, Message, Settling
from flow.devbroker.queues import Queue
from flow.devbroker.routing import PREDECLARED, Exchange
from flow.devbroker.tables import Table

Watcher = Callable[[str, Message, Settling], None]
"""Takes a queue, a message of it, and how its delivery was settled."""
HOLD = 180.0  # seconds until at-least-once dead-lettering tries again; a new binding makes it try at once


class VirtualHost:
    """Exchanges and queues that know each other by name."""

    def __init__(self, name: str, clock: Clock) -> None:
        """Make one with the exchanges that are always there."""
        self.name = name
        self.clock = clock
        self.queues: dict[str, Queue] = {}
        self.exchanges: dict[str, Exchange[Queue]] = {
            exchange: Exchange(exchange, kind, durable=True) for exchange, kind in PREDECLARED.items()
        }
        self.held: list[tuple[Queue, Entry, str]] = []
        """What at-least-once dead-lettering could not place yet."""
        self.watcher: Watcher | None = None
        """Called before the effect of everything that settles a delivery; set by who wants to know."""
        self._dying: deque[tuple[Queue, Entry, str]] = deque()
        self._burying = False
        self._again: Alarm | None = None
        self._idle: dict[str, Alarm] = {}
        self._used: dict[str, float] = {}

    def place(self, kind: str, name: str) -> str:
        """Name a queue or an exchange as RabbitMQ's texts do."""
        return f"{kind} '{name}' in vhost '{self.name}'"

    def route(self, exchange: str, keys: Sequence[str]) -> list[Queue]:
        """Return the queues of a message, each once; what no binding matches goes the alternate way."""
        if not exchange:
            return list(dict.fromkeys(self.queues[key] for key in keys if key in self.queues))
        found: dict[Queue, None] = {}
        seen: set[str] = set()
        while exchange not in seen:
            seen.add(exchange)
            known = self.exchanges.get(exchange)
            if known is None:  # nor is the default exchange an alternate one
                break
            for key in keys:
                found.update((queue, None) for queue in known.route(key))
            if found or "alternate-exchange" not in known.arguments:
                break
            exchange = tables.text(known.arguments["alternate-exchange"])
        return list(found)

    def add_queue(self, name: str, arguments: Table) -> Queue:
        """Make a queue; without a *name* with one that nobody has.

        Raises:
            Refusal: the arguments cannot be met.
        """
        name = name or f"amq.gen-{secrets.token_urlsafe(16)}"
        queue = Queue(name, read_terms(arguments, self.place("queue", name)), self.clock, self.bury)
        queue.arguments = arguments
        self.queues[name] = queue
        self.used(queue)
        return queue

    def delete_queue(self, queue: Queue) -> int:
        """Remove *queue*, its bindings, and exchanges that lived for them; return how much was ready."""
        if queue.gone:
            return 0
        del self.queues[queue.name]
        self._used.pop(queue.name, None)
        alarm = self._idle.pop(queue.name, None)
        if alarm is not None:
            alarm.cancel()
        for exchange in list(self.exchanges.values()):
            if exchange.forget(queue.name):
                self.unbound(exchange)
        return queue.delete()

    def delete(self) -> None:
        """Be gone, with all queues."""
        for queue in list(self.queues.values()):
            self.delete_queue(queue)
        if self._again is not None:
            self._again.cancel()

    def unbound(self, exchange: Exchange[Queue]) -> None:
        """Remove *exchange* if it wants to go with its last binding."""
        if exchange.auto_delete and not exchange.bindings:
            self.exchanges.pop(exchange.name, None)

    def used(self, queue: Queue) -> None:
        """Let the time after which an unused queue goes begin anew."""
        expires = queue.terms.expires
        if expires is None or queue.gone:
            return
        self._used[queue.name] = self.clock.now()
        if queue.name not in self._idle:
            self._watch(queue, expires)

    def _watch(self, queue: Queue, expires: float) -> None:
        """Delete *queue* when it was not used for so many seconds; one alarm, however often it is used."""

        def ring() -> None:
            if queue.consumers:
                self._used[queue.name] = self.clock.now()
            if self.clock.now() < self._used[queue.name] + expires:
                self._watch(queue, expires)
            else:
                self.delete_queue(queue)

        self._idle[queue.name] = self.clock.at(self._used[queue.name] + expires, ring)

    def bury(self, queue: Queue, entry: Entry, reason: str) -> None:
        """Send what died in *queue* to its dead-letter exchange, if it has one; one after the other."""
        if queue.terms.dead_letter_exchange is None:
            return
        self._dying.append((queue, entry, reason))
        if self._burying:
            return  # a queue further on the way lets something go; it has its turn
        self._burying = True
        try:
            while self._dying:
                dying = self._dying.popleft()
                if not self._dead_letter(*dying) and dying[0].terms.at_least_once:
                    self._hold(dying)
        finally:
            self._burying = False

    def retry_held(self) -> None:
        """Try again to place what at-least-once dead-lettering holds."""
        if self._again is not None and self._again.when <= self.clock.now():
            self._again = None
        held, self.held = self.held, []
        for queue, entry, reason in held:
            if not queue.gone:
                self.bury(queue, entry, reason)

    def _hold(self, dying: tuple[Queue, Entry, str]) -> None:
        if self._again is None:
            self._again = self.clock.at(self.clock.now() + HOLD, self.retry_held)
        self.held.append(dying)

    def _dead_letter(self, queue: Queue, entry: Entry, reason: str) -> bool:
        """Return whether at least one queue took it, and none refused."""
        exchange, key = queue.terms.dead_letter_exchange or "", queue.terms.dead_letter_key
        if (exchange and exchange not in self.exchanges) or not tables.is_short(key or ""):
            return False  # also what no frame could name
        message = deadletter.dead(
            entry.message,
            reason=reason,
            queue=queue.name,
            exchange=exchange,
            key=key,
            now=self.clock.time(),
        )
        targets = self.route(exchange, keys_of(message))
        if reason != "rejected":
            targets = [target for target in targets if not deadletter.is_cycle(message, target.name)]
        refusing = [target for target in targets if not target.publish(message, None)]
        return bool(targets) and not refusing


def keys_of(message: Message) -> list[str]:
    """Return the routing keys of *message*: its own and its copies'."""
    if b"\x02CC" not in message.properties:
        return [message.key]
    headers = properties.headers(properties.cut(message.properties))
    return [message.key, *deadletter.copies(headers)]
