"""Bindings that are missing, and those that nobody wanted; pure."""

from collections.abc import Iterator

from flow.checking.existing import BindingFacts, Existing
from flow.checking.finding import Finding, ok, wrong
from flow.errors import ConfigError
from flow.topology import (
    DEAD_QUEUE,
    FAIL_EXCHANGE,
    MADE_BY_SETUP,
    PARK_EXCHANGE,
    RETRY_EXCHANGE,
    RETRY_QUEUE,
    SQS_QUEUE,
    SYSTEM_QUEUES,
    Binding,
    Topology,
    check_organisation,
    organisation_binding,
)

OF_SETUP = (DEAD_QUEUE, RETRY_QUEUE, *SYSTEM_QUEUES)
CONSEQUENCES = {
    FAIL_EXCHANGE: "the retry loop is broken: what is rejected is lost or stuck",
    RETRY_EXCHANGE: "the retry loop is broken: what it rejects does not come back",
    PARK_EXCHANGE: "nothing can be parked",
}


def bindings_of(topology: Topology, existing: Existing) -> Iterator[Finding]:
    """Yield the state of each binding that is wanted, and each that is there and not wanted."""
    there = {facts(one) for one in topology.bindings} & set(existing.bindings)
    for binding in topology.bindings:
        yield ok(f"{named(facts(binding))} is there") if facts(binding) in there else missing(binding)
    for one in existing.bindings:
        if one not in there and stray(one, topology):
            yield wrong(f"{named(one)} is not wanted: {consequence(one)}; remove it")


def facts(binding: Binding) -> BindingFacts:
    """Return how a wanted *binding* is told of when it exists."""
    return BindingFacts(exchange=binding.exchange, key=binding.key, destination=binding.queue)


def named(binding: BindingFacts) -> str:
    """Return the *binding* as it is named in sentences."""
    key = f" with the key {binding.key}" if binding.key else ""
    target = binding.destination if binding.to_queue else f"the exchange {binding.destination}"
    return f"the binding {binding.exchange} -> {target}{key}"


def missing(binding: Binding) -> Finding:
    """Say that a *binding* is missing, and what that means."""
    what = CONSEQUENCES.get(binding.exchange, f"{binding.queue} gets no messages")
    return wrong(f"{named(facts(binding))} is missing, so that {what}: run `flow setup`")


def stray(binding: BindingFacts, topology: Topology) -> bool:
    """Whether a *binding* that is not in the *topology* takes messages where they do not belong.

    Queues of other organisations with their own bindings belong there, and so does whatever feeds a work
    queue that was named by itself, unless it was said what shall feed it.
    """
    target, source = binding.destination, binding.exchange
    ours = {one.name for one in topology.exchanges}
    named = {one.name for one in topology.queues}
    fed = {one.queue for one in topology.bindings if one.exchange != RETRY_EXCHANGE}
    of_setup = target in OF_SETUP or MADE_BY_SETUP.fullmatch(target) is not None
    known = of_setup or target in fed
    if source == RETRY_EXCHANGE:
        return not binding.to_queue or binding.key != target
    if source in (FAIL_EXCHANGE, PARK_EXCHANGE):
        return True
    if binding.to_queue and of_setup and own(binding):
        return False
    if source in ours:
        return known or target not in named or not binding.to_queue
    return binding.to_queue and target in named and known


def own(binding: BindingFacts) -> bool:
    """Whether `flow org add` makes this *binding*, for some organisation."""
    organisation = organisation_of(binding.destination, binding.key)
    if organisation is None:
        return False
    part = "sqs" if binding.destination == SQS_QUEUE else binding.destination.rpartition(".")[2]
    return facts(organisation_binding(organisation, part)) == binding


def organisation_of(queue: str, key: str = "") -> str | None:
    """Return the organisation that a *queue* belongs to, or a binding on `system.sqs` with this *key*."""
    if queue == SQS_QUEUE and key.endswith(".system.*"):
        name = key.removesuffix(".system.*")
    elif MADE_BY_SETUP.fullmatch(queue):
        name = queue.rpartition(".")[0]
    else:
        return None
    try:
        check_organisation(name)
    except ConfigError:
        return None
    return name


def consequence(binding: BindingFacts) -> str:
    """Return what a stray *binding* does."""
    if binding.exchange in (FAIL_EXCHANGE, RETRY_EXCHANGE):
        return "retries go there, too"
    if binding.exchange == PARK_EXCHANGE:
        return "parked messages go there, too"
    return "messages of others go there, or some twice"
