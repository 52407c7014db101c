"""Exchanges: which queues a message goes to."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from flow.devbroker.tables import Table

Q = TypeVar("Q")
KINDS = ("direct", "topic", "fanout")
PREDECLARED = {"amq.direct": "direct", "amq.fanout": "fanout", "amq.topic": "topic"}
REMEMBERED = 10_000  # routes by key; forgotten whenever a binding changes


@dataclass(eq=False)
class Exchange(Generic[Q]):
    """Queues bound by keys; the default exchange is none of these, it knows all queues by name."""

    name: str
    kind: str
    durable: bool = False
    auto_delete: bool = False
    internal: bool = False
    arguments: Table = field(default_factory=dict)
    bindings: dict[tuple[str, str, bytes], Q] = field(default_factory=dict)
    """By the queue's name, the key, and the arguments as on the wire."""
    _routes: dict[str, tuple[Q, ...]] = field(default_factory=dict)

    def bind(self, name: str, queue: Q, key: str, arguments: bytes) -> None:
        """Lead messages with *key* to *queue*; doing it again changes nothing."""
        self.bindings[name, key, arguments] = queue
        self._routes.clear()

    def unbind(self, name: str, key: str, arguments: bytes) -> None:
        """Take a binding away."""
        self._routes.clear()
        del self.bindings[name, key, arguments]

    def forget(self, name: str) -> bool:
        """Take all bindings of a queue away; return whether there were any."""
        lost = [binding for binding in self.bindings if binding[0] == name]
        for binding in lost:
            self.unbind(*binding)
        return bool(lost)

    def route(self, key: str) -> tuple[Q, ...]:
        """Return the queues of *key*, each once, in the order of their names."""
        found = self._routes.get(key)
        if found is None:
            if len(self._routes) >= REMEMBERED:
                self._routes.clear()
            found = self._routes[key] = tuple(self._find(key))
        return found

    def _find(self, key: str) -> Iterable[Q]:
        words = split(key)
        queues: dict[str, Q] = {}
        for (name, pattern, _), queue in self.bindings.items():
            if (
                self.kind == "fanout"
                or (self.kind == "direct" and pattern == key)
                or (self.kind == "topic" and matches(split(pattern), words))
            ):
                queues[name] = queue
        return (queues[name] for name in sorted(queues))


def split(key: str) -> list[str]:
    """Return the words of a routing key; an empty key has none."""
    return key.split(".") if key else []


def matches(pattern: Sequence[str], words: Sequence[str]) -> bool:
    """Whether *words* fit *pattern*: * stands for one word, # for any number of words."""
    at = position = 0
    retry_at, retry_position = -1, 0  # behind the last #, and how many words it has taken
    while position < len(words):
        if at < len(pattern) and pattern[at] == "#":
            at += 1
            retry_at, retry_position = at, position
        elif at < len(pattern) and pattern[at] in ("*", words[position]):
            at += 1
            position += 1
        elif retry_at >= 0:
            retry_position += 1
            at, position = retry_at, retry_position
        else:
            return False
    return all(word == "#" for word in pattern[at:])
