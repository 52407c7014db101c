"""What a development broker needs so that pipelines find their queues, also those of the campaign server."""

from collections.abc import Sequence

from flow.topology import (
    CONFIRM_EXCHANGE,
    DELIVER_EXCHANGE,
    MADE_BY_SETUP,
    OF_THE_SERVER,
    Binding,
    Exchange,
    Queue,
    QueueType,
    Topology,
    global_topology,
    organisation_topology,
    work_queue,
)

BOUND = {
    "system.email.confirm": Binding(
        exchange=CONFIRM_EXCHANGE, key="*.system.supporter", queue="system.email.confirm"
    ),
    "system.email.thankyou": Binding(
        exchange=DELIVER_EXCHANGE, key="*.system.*", queue="system.email.thankyou"
    ),
    "system.sqs": Binding(exchange=DELIVER_EXCHANGE, key="*.system.*", queue="system.sqs"),
}


def development_topology(
    queues: Sequence[str], *, queue_type: QueueType = "quorum", retry_delay: float = 30.0
) -> Topology:
    """Return what all queues share, and each of *queues* with its bindings and its place in a retry loop.

    A queue of an organisation (`acme.crm`) and a system queue (`system.sqs`) are bound as `flow setup` does,
    `wrk.N.…` and `cus.N.…` as the campaign server does; any other is reached through the default exchange.
    *retry_delay* is how many seconds a rejected message waits for its next attempt.

    Raises:
        ConfigError: a name, the type or the delay cannot be used.
    """
    topology = global_topology(queue_type, retry_delay)
    for queue in queues:
        topology += of_one(queue, queue_type, retry_delay)
    return topology


def of_one(queue: str, queue_type: QueueType, retry_delay: float) -> Topology:
    """Return *queue* with its bindings."""
    if MADE_BY_SETUP.fullmatch(queue):
        organisation, _, suffix = queue.partition(".")
        return organisation_topology(organisation, [suffix], queue_type)
    of_the_server = OF_THE_SERVER.fullmatch(queue)
    if of_the_server:
        return server_queue(queue, of_the_server["organisation"], retry_delay)
    bound = (BOUND[queue],) if queue in BOUND else ()
    return work_queue(queue, queue_type) + Topology(bindings=bound)


def server_queue(queue: str, organisation: str, retry_delay: float) -> Topology:
    """Return *queue* as the campaign server declares it, with the retry loop of its *organisation*."""
    kind, _, what = queue.split(".", 2)
    fail, retry = f"org.{organisation}.fail", f"org.{organisation}.retry"
    source = f"org.{organisation}.{what}"
    waiting: dict[str, str | int] = {
        "x-message-ttl": max(1, round(retry_delay * 1000)),
        "x-dead-letter-exchange": retry,
    }
    loop = {"x-dead-letter-exchange": fail, "x-dead-letter-routing-key": queue}
    topology = Topology(
        exchanges=(Exchange(name=fail, kind="fanout"), Exchange(name=retry)),
        queues=(Queue(name=fail, arguments=waiting), Queue(name=queue, arguments=loop)),
        bindings=(
            Binding(exchange=fail, key="", queue=fail),
            Binding(exchange=retry, key=queue, queue=queue),
        ),
    )
    if kind == "wrk":
        return topology
    return topology + Topology(
        exchanges=(Exchange(name=source),), bindings=(Binding(exchange=source, key="#", queue=queue),)
    )
