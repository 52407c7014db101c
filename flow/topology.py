"""Names and declarations of the plumbing: exchanges, queues, the retry loop and the park."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeVar, get_args

from flow.errors import ConfigError
from flow.options import seconds, suggestion

CONFIRM_EXCHANGE = "confirm"
DELIVER_EXCHANGE = "deliver"
FAIL_EXCHANGE = "system.fail"
RETRY_EXCHANGE = "system.retry"
PARK_EXCHANGE = "system.park"
RETRY_QUEUE = "system.retry"
"""In which rejected messages wait for their next attempt."""
DEAD_QUEUE = "system.dead"

T = TypeVar("T")
QueueType = Literal["quorum", "classic"]
QUEUE_TYPES: tuple[QueueType, ...] = get_args(QueueType)

LONGEST_NAME = 255
"""Bytes; the limit of AMQP for names and routing keys."""
# RabbitMQ 4 drops a message after 20 deliveries unless told otherwise (rabbitmq.com/docs/quorum-queues).
UNREACHABLE_DELIVERIES = 1_000_000

ORGANISATION_QUEUES = {
    "crm": (DELIVER_EXCHANGE, "{}.*.*"),
    "confirm": (CONFIRM_EXCHANGE, "{}.custom.supporter"),
    "moderate": (CONFIRM_EXCHANGE, "{}.custom.action"),
}
"""What follows the organisation's name in a queue's name; its exchange and binding key."""
SQS_QUEUE = "system.sqs"
SQS_BINDING = (DELIVER_EXCHANGE, "{}.system.*")
ORGANISATION_PARTS = (*ORGANISATION_QUEUES, "sqs")
"""What an organisation can have: queues of its own, and a binding on the queue of the SQS forwarder."""
SYSTEM_QUEUES = {
    "system.email.confirm": (CONFIRM_EXCHANGE, "*.system.supporter"),
    "system.email.thankyou": (DELIVER_EXCHANGE, "*.system.*"),
    SQS_QUEUE: None,
}
"""The queues of flow's own pipelines; their exchange and binding key, if all organisations share one."""

MADE_BY_SETUP = re.compile(rf"(?!system)[^.]+\.({'|'.join(ORGANISATION_QUEUES)})")
OF_THE_SERVER = re.compile(r"(?:wrk|cus)\.(?P<organisation>[^.]+)\..+")
DECLARED_BY_THE_SERVER = re.compile(OF_THE_SERVER.pattern + r"|org\.\d+\..+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A durable exchange as it shall be."""

    name: str
    kind: Literal["topic", "fanout"] = "topic"
    arguments: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Queue:
    """A durable queue as it shall be."""

    name: str
    arguments: Mapping[str, str | int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Binding:
    """A way from an exchange to a queue for messages whose key matches."""

    exchange: str
    key: str
    queue: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Topology:
    """Exchanges, queues and bindings, in the order in which they may be declared."""

    exchanges: tuple[Exchange, ...] = ()
    queues: tuple[Queue, ...] = ()
    bindings: tuple[Binding, ...] = ()

    @property
    def surroundings(self) -> tuple[str, ...]:
        """The exchanges that queues and bindings lead to or come from, and that are not in it."""
        wanted = [str(one.arguments.get("x-dead-letter-exchange", "")) for one in self.queues]
        wanted += [one.exchange for one in self.bindings]
        own = {one.name for one in self.exchanges}
        return tuple(name for name in dict.fromkeys(wanted) if name and name not in own)

    def __add__(self, other: "Topology") -> "Topology":
        """Return both together; what is in both is there once."""
        return Topology(
            exchanges=_joined(self.exchanges, other.exchanges),
            queues=_joined(self.queues, other.queues),
            bindings=_joined(self.bindings, other.bindings),
        )


def _joined(first: tuple[T, ...], second: tuple[T, ...]) -> tuple[T, ...]:
    return first + tuple(one for one in second if one not in first)


def global_topology(queue_type: QueueType = "quorum", retry_delay: float = 30.0) -> Topology:
    """Return what all queues share: four topic exchanges, the retry loop and the park.

    *retry_delay* is how many seconds a rejected message waits for its next attempt.

    Raises:
        ConfigError: the queue type is unknown, or the delay is no number of seconds above 0.
    """
    seconds("retry_delay", retry_delay)
    waiting: dict[str, str | int] = {
        "x-message-ttl": max(1, round(retry_delay * 1000)),
        "x-dead-letter-exchange": RETRY_EXCHANGE,
    }
    return exchanges_topology() + Topology(
        queues=(
            Queue(name=DEAD_QUEUE, arguments=_typed(queue_type)),
            Queue(name=RETRY_QUEUE, arguments=_typed(queue_type) | _dead_lettering(queue_type) | waiting),
        ),
        bindings=(
            Binding(exchange=PARK_EXCHANGE, key="", queue=DEAD_QUEUE),
            Binding(exchange=FAIL_EXCHANGE, key="#", queue=RETRY_QUEUE),
        ),
    )


def exchanges_topology() -> Topology:
    """Return the exchanges alone; what the retry loop cannot route goes to the park."""
    to_park = {"alternate-exchange": PARK_EXCHANGE}
    return Topology(
        exchanges=(
            Exchange(name=PARK_EXCHANGE, kind="fanout"),
            Exchange(name=CONFIRM_EXCHANGE),
            Exchange(name=DELIVER_EXCHANGE),
            Exchange(name=FAIL_EXCHANGE, arguments=to_park),
            Exchange(name=RETRY_EXCHANGE, arguments=to_park),
        )
    )


def system_topology(queue_type: QueueType = "quorum") -> Topology:
    """Return the queues of flow's own pipelines, which serve all organisations; `organisation_binding` tells
    how one organisation gets into the queue of the SQS forwarder.

    Raises:
        ConfigError: the queue type is unknown.
    """
    topology = Topology()
    for name, bound in SYSTEM_QUEUES.items():
        bindings = () if bound is None else (Binding(exchange=bound[0], key=bound[1], queue=name),)
        topology += work_queue(name, queue_type) + Topology(bindings=bindings)
    return topology


def organisation_topology(
    name: str, parts: Collection[str] = ("crm",), queue_type: QueueType = "quorum"
) -> Topology:
    """Return what the organisation *name* has: its queues, bound to their exchange and to the retry loop.

    Of the *parts* sqs is no queue of its own but a binding on `system.sqs`.

    Raises:
        ConfigError: the name would bind other people's messages, or there is no such part.
    """
    topology = Topology()
    for part in parts:
        binding = organisation_binding(name, part)
        topology += work_queue(binding.queue, queue_type) + Topology(bindings=(binding,))
    return topology


def organisation_binding(name: str, part: str) -> Binding:
    """Return the binding that turns a *part* of the organisation *name* on.

    Raises:
        ConfigError: the name would bind other people's messages, or there is no such part.
    """
    check_organisation(name)
    if part not in ORGANISATION_PARTS:
        raise ConfigError(f"an organisation has no queue {part!r}{suggestion(part, ORGANISATION_PARTS)}")
    exchange, key = ORGANISATION_QUEUES.get(part, SQS_BINDING)
    queue = f"{name}.{part}" if part in ORGANISATION_QUEUES else SQS_QUEUE
    return Binding(exchange=exchange, key=key.format(name), queue=queue)


def work_queue(name: str, queue_type: QueueType = "quorum") -> Topology:
    """Return the queue *name* with its place in the retry loop; `global_topology` holds the rest of the loop.

    Raises:
        ConfigError: the name is not usable for a work queue, or the queue type is unknown.
    """
    check_work_queue(name)
    loop = {"x-dead-letter-exchange": FAIL_EXCHANGE, "x-dead-letter-routing-key": name}
    arguments = _typed(queue_type) | _dead_lettering(queue_type) | loop
    return Topology(
        queues=(Queue(name=name, arguments=arguments),),
        bindings=(Binding(exchange=RETRY_EXCHANGE, key=name, queue=name),),
    )


def _typed(queue_type: QueueType) -> dict[str, str | int]:
    """The type is always named: a virtual host may have another default than the one wanted."""
    if queue_type not in QUEUE_TYPES:
        raise ConfigError(f"the queue type must be quorum or classic, got {queue_type!r}")
    limit = {"x-delivery-limit": UNREACHABLE_DELIVERIES} if queue_type == "quorum" else {}
    return {"x-queue-type": queue_type, **limit}


def _dead_lettering(queue_type: QueueType) -> dict[str, str | int]:
    """At-least-once needs both arguments, on both hops of the loop; classic queues have no such thing."""
    if queue_type == "classic":
        return {}
    return {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}


def check_organisation(name: str) -> None:
    """Check that *name* can stand in queue names and routing keys without catching other people's messages.

    Raises:
        ConfigError: it cannot.
    """
    what = f"the organisation name {name!r}"
    _check_words(name, what)
    if name.startswith(("amq.", "system")):
        reserved = "amq." if name.startswith("amq.") else "system"
        raise ConfigError(f"{what} must not begin with {reserved}, which is reserved")
    if "." in name:
        raise ConfigError(f"{what} must not contain a dot, which separates the words of a routing key")
    longest = max(len(key.format("")) for _, key in ORGANISATION_QUEUES.values())
    _check_length(name, what, LONGEST_NAME - longest)


def check_work_queue(name: str) -> None:
    """Check that *name* can be a work queue's name and its own key on the retry exchange.

    Raises:
        ConfigError: it cannot.
    """
    what = f"the queue name {name!r}"
    _check_words(name, what)
    if name.startswith("amq."):
        raise ConfigError(f"{what} must not begin with amq., which is reserved")
    if name in (RETRY_QUEUE, DEAD_QUEUE):
        raise ConfigError(f"{what} is taken: it is a part of the retry loop and no work queue")
    if DECLARED_BY_THE_SERVER.fullmatch(name):
        raise ConfigError(f"{what} belongs to the campaign server, which declares it; flow only consumes it")
    _check_length(name, what, LONGEST_NAME)


def _check_words(name: str, what: str) -> None:
    if not name:
        raise ConfigError(f"{what} must not be empty")
    for wildcard in "*#":
        if wildcard in name:
            raise ConfigError(f"{what} must not contain {wildcard}, which binds other people's messages")
    if any(letter.isspace() or not letter.isprintable() for letter in name):
        raise ConfigError(f"{what} must not contain white space or unprintable characters")


def _check_length(name: str, what: str, most: int) -> None:
    length = len(name.encode())
    if length > most:
        raise ConfigError(f"{what} must not be longer than {most} bytes, got {length}")


def has_retry_loop(queue: str) -> bool:
    """Whether a rejected message of *queue* comes back, as far as its name can tell.

    AMQP does not show a queue's dead-letter exchange. Queues of the campaign server (`wrk.*`, `cus.*`) and
    those whose names `flow setup` makes have one.
    """
    if queue.startswith(("wrk.", "cus.")) or queue in SYSTEM_QUEUES:
        return True
    return MADE_BY_SETUP.fullmatch(queue) is not None


def made_with(queue: str) -> str:
    """Return the command that makes the missing *queue*, and brings into it what its name tells."""
    if queue in SYSTEM_QUEUES:
        return "flow setup"
    if MADE_BY_SETUP.fullmatch(queue):
        organisation, _, part = queue.rpartition(".")
        return f"flow org add {organisation} --{part}"
    return f"flow setup --queue {queue}"


def retry_exchange(queue: str) -> str:
    """Return the exchange that brings a message with the key *queue* back into that queue."""
    of_the_server = OF_THE_SERVER.fullmatch(queue)
    return f"org.{of_the_server['organisation']}.retry" if of_the_server else RETRY_EXCHANGE
