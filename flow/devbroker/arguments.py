"""What the arguments of a queue ask for; checked, and compared, as RabbitMQ 3.10 does."""

from collections.abc import Mapping
from dataclasses import dataclass

from flow.devbroker import tables
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal
from flow.devbroker.tables import Table

LONGEST_TIME = 315_360_000_000  # milliseconds; ten years
OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
MODES = ("default", "lazy")
STRATEGIES = ("at-most-once", "at-least-once")
DEAD_LETTER = ("x-dead-letter-exchange", "x-dead-letter-routing-key")
LENGTH = ("x-max-length", "x-max-length-bytes", "x-overflow")
COMPARED_CLASSIC = ("x-expires", "x-message-ttl", *DEAD_LETTER, *LENGTH, "x-queue-mode", "x-queue-type")
COMPARED_QUORUM = (
    *DEAD_LETTER,
    "x-dead-letter-strategy",
    "x-expires",
    *LENGTH,
    "x-queue-type",
    "x-delivery-limit",
    "x-message-ttl",
)
"""Arguments that must be the same when a queue is declared again, in RabbitMQ's order; others are ignored."""
ONLY_QUORUM = (
    "x-delivery-limit",
    "x-dead-letter-strategy",
    "x-quorum-initial-group-size",
    "x-max-in-memory-length",
    "x-max-in-memory-bytes",
)
ONLY_CLASSIC = ("x-max-priority", "x-queue-mode", "x-queue-version")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a queue keeps its messages; times in seconds, None: no limit."""

    quorum: bool = False
    ttl: float | None = None
    expires: float | None = None
    dead_letter_exchange: str | None = None
    dead_letter_key: str | None = None
    at_least_once: bool = False
    max_length: int | None = None
    max_bytes: int | None = None
    overflow: str = "drop-head"
    delivery_limit: int | None = None


def read_terms(arguments: Table, where: str) -> Terms:
    """Read the arguments of the queue *where*, as it is named in texts.

    Raises:
        ChannelRefusal: an argument is wrong (406).
        ConnectionRefusal: it asks for what this broker does not have (540).
    """
    reader = _Reader(arguments, where)
    quorum = reader.queue_type() == "quorum"
    for name in ONLY_CLASSIC if quorum else ONLY_QUORUM:
        if name in arguments:
            of_type = "rabbit_quorum_queue" if quorum else "rabbit_classic_queue"
            raise ChannelRefusal(406, f"invalid arg '{name}' for {where} of queue type {of_type}")
    asked = {
        "x-max-priority": reader.number("x-max-priority"),
        "x-single-active-consumer": reader.flag("x-single-active-consumer"),
    }
    for name in filter(asked.get, asked):
        raise ConnectionRefusal(540, f"{name} of {where} is not provided by the development broker")
    expires = reader.number("x-expires", least=1, most=LONGEST_TIME)
    ttl = reader.number("x-message-ttl", most=LONGEST_TIME)
    exchange = reader.name("x-dead-letter-exchange")
    key = reader.name("x-dead-letter-routing-key")
    if key is not None and exchange is None:
        reader.refuse("x-dead-letter-routing-key", "routing_key_but_no_dlx_defined")
    strategy = reader.choice("x-dead-letter-strategy", STRATEGIES, "invalid_dlx_strategy")
    overflow = reader.choice("x-overflow", OVERFLOWS, "invalid_overflow") or "drop-head"
    terms = Terms(
        quorum=quorum,
        ttl=None if ttl is None else ttl / 1000,
        expires=None if expires is None else expires / 1000,
        dead_letter_exchange=exchange,
        dead_letter_key=key,
        at_least_once=strategy == "at-least-once" and overflow == "reject-publish",
        max_length=reader.number("x-max-length"),
        max_bytes=reader.number("x-max-length-bytes"),
        overflow=overflow,
        delivery_limit=reader.number("x-delivery-limit"),
    )
    mode = reader.name("x-queue-mode")
    if mode is not None and mode not in MODES:
        reader.refuse("x-queue-mode", f"\"unsupported queue mode '{mode}'\"")
    return terms


class _Reader:
    """Reads one argument after the other; *where* names the queue."""

    def __init__(self, arguments: Table, where: str) -> None:
        self.arguments = arguments
        self.where = where

    def refuse(self, name: str, why: str) -> None:
        raise ChannelRefusal(406, f"invalid arg '{name}' for {self.where}: {why}")

    def number(self, name: str, *, least: int = 0, most: int | None = None) -> int | None:
        value = self.arguments.get(name)
        if value is None:
            return None
        if chr(value[0]) not in tables.INTEGERS:
            self.refuse(name, f'"expected integer, got {tables.kind(value)}"')
        number = int(tables.plain(value))
        if number < 0:
            self.refuse(name, f"{{value_negative,{number}}}")
        if number < least:
            self.refuse(name, f"{{value_zero,{number}}}")
        if most is not None and number > most:
            self.refuse(name, f"{{value_too_large,{number}}}")
        return number

    def flag(self, name: str) -> bool:
        value = self.arguments.get(name, b"t\x00")
        if value[:1] != b"t":
            self.refuse(name, f"{{unacceptable_type,{tables.kind(value)}}}")
        return value != b"t\x00"

    def name(self, name: str) -> str | None:
        value = self.arguments.get(name)
        if value is None:
            return None
        if value[:1] != b"S":
            what = self.where.replace("queue", "in queue", 1)
            raise ChannelRefusal(406, f"invalid type '{tables.kind(value)}' for arg '{name}' {what}")
        return tables.text(value)

    def choice(self, name: str, choices: tuple[str, ...], why: str) -> str | None:
        text = self.name(name)
        if text is not None and text not in choices:
            self.refuse(name, why)
        return text

    def queue_type(self) -> str:
        value = self.arguments.get("x-queue-type")
        if value is None:
            return "classic"
        if value[:1] != b"S":
            self.refuse("x-queue-type", f"{{unacceptable_type,{tables.kind(value)}}}")
        text = tables.text(value)
        if text == "stream":
            raise ConnectionRefusal(540, f"stream {self.where} is not provided by the development broker")
        if text not in ("classic", "quorum"):
            self.refuse("x-queue-type", f"\"unsupported queue type '{text}'\"")
        return text


def check_same_queue(terms: Terms, current: Table, received: Table, where: str) -> None:
    """Compare the arguments of a declaration with those of the queue that exists, with its *terms*.

    Raises:
        ChannelRefusal: they differ (406).
    """
    check_same(COMPARED_QUORUM if terms.quorum else COMPARED_CLASSIC, current, received, where)


def check_same(names: tuple[str, ...], current: Table, received: Table, where: str) -> None:
    """Compare the arguments called *names* of a declaration with those of what exists.

    Raises:
        ChannelRefusal: they differ (406).
    """
    for name in names:
        old, new = current.get(name), received.get(name)
        if name == "x-queue-type":  # a queue without a type is a classic one
            classic = tables.longstr("classic")
            if (old or classic) == (new or classic):
                continue
        if (None if old is None else tables.plain(old)) == (None if new is None else tables.plain(new)):
            continue
        if old is not None and new is not None:
            told = f"received '{tables.plain(new)}' but current is '{tables.plain(old)}'"
        else:
            told = f"received {_described(new)} but current is {_described(old)}"
        raise ChannelRefusal(406, f"inequivalent arg '{name}' for {where}: {told}")


def _described(value: bytes | None) -> str:
    if value is None:
        return "none"
    return f"the value '{tables.plain(value)}' of type '{tables.kind(value)}'"


def check_flags(pairs: Mapping[str, tuple[bool, bool]], where: str) -> None:
    """Compare flags, each as received and as it is.

    Raises:
        ChannelRefusal: they differ (406).
    """
    for name, (new, old) in pairs.items():
        if new != old:
            told = f"received '{str(new).lower()}' but current is '{str(old).lower()}'"
            raise ChannelRefusal(406, f"inequivalent arg '{name}' for {where}: {told}")
