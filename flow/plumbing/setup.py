"""Sets the plumbing up: what all queues share, and the queues that are asked for."""

from collections.abc import Sequence

from flow.broker.declaring import Drift, declare
from flow.broker.url import BrokerUrl
from flow.errors import ConfigError
from flow.topology import (
    FAIL_EXCHANGE,
    LONGEST_NAME,
    PARK_EXCHANGE,
    RETRY_EXCHANGE,
    Binding,
    QueueType,
    Topology,
    global_topology,
    organisation_topology,
    system_topology,
    work_queue,
)

OF_THE_LOOP = (FAIL_EXCHANGE, RETRY_EXCHANGE, PARK_EXCHANGE)


def topology_for(
    organisations: Sequence[str] = (),
    queues: Sequence[str] = (),
    bindings: Sequence[str] = (),
    *,
    system_queues: bool = False,
    queue_type: QueueType = "quorum",
    retry_delay: float = 30.0,
) -> Topology:
    """Return what all queues share, the CRM queue of each of the *organisations*, and the work *queues*.

    The *bindings*, each like `deliver:acme.*.*`, bring messages into the one queue of *queues*. With
    *system_queues* those of flow's own pipelines are there, too. *retry_delay* is how many seconds a rejected
    message waits for its next attempt.

    Raises:
        ConfigError: a name, the type, the delay or a binding cannot be used.
    """
    topology = global_topology(queue_type, retry_delay)
    if system_queues:
        topology += system_topology(queue_type)
    for organisation in organisations:
        topology += organisation_topology(organisation, queue_type=queue_type)
    for queue in queues:
        topology += work_queue(queue, queue_type)
    if bindings and len(queues) != 1:
        raise ConfigError(f"bindings are of one queue, but there are {len(queues)}: set up one at a time")
    return topology + Topology(bindings=tuple(binding_of(queues[0], text) for text in bindings))


def binding_of(queue: str, text: str) -> Binding:
    """Return the binding of *queue* that *text* names, as an exchange, a colon and a key: `deliver:acme.*.*`.

    The key of a topic exchange may hold `*` for one word and `#` for any number of them.

    Raises:
        ConfigError: it is written otherwise, or would take messages out of the retry loop or the park.
    """
    exchange, colon, key = text.partition(":")
    what = f"the binding {text!r}"
    if not colon or not exchange or not key or any(letter.isspace() for letter in text):
        raise ConfigError(f"{what} must be an exchange, a colon and a key, like deliver:acme.*.*")
    if exchange in OF_THE_LOOP:
        raise ConfigError(f"{what} would take messages of others: {exchange} is a part of the retry loop")
    if len(key.encode()) > LONGEST_NAME:
        raise ConfigError(f"{what} has a key of more than {LONGEST_NAME} bytes")
    return Binding(exchange=exchange, key=key, queue=queue)


async def set_up(url: BrokerUrl, topology: Topology) -> list[Drift]:
    """Declare *topology*; what exists with other arguments is left as it is and returned.

    Doing it again changes nothing.

    Raises:
        AccessDenied: the account may not declare or bind.
        ConnectionLost: the broker was not reached, or got lost.
    """
    return await declare(url, topology)
