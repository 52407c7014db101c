"""Where exchanges and queues that exist differ from what is wanted; pure."""

import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from flow.broker.declaring import ALTERNATE, advice
from flow.checking.existing import ExchangeFacts, Existing
from flow.checking.facts import QueueFacts
from flow.checking.finding import Finding, ok, unchecked, wrong
from flow.checking.strays import bindings_of
from flow.topology import Exchange, Queue, Topology

MISSING = "is missing: run `flow setup`"
AGAIN = "empty and delete it and run `flow setup` again"
OF_BOTH_KINDS = ("x-dead-letter-exchange", "x-dead-letter-routing-key", "x-message-ttl")
SMALLER_WINS = ("message-ttl", "max-length", "max-length-bytes", "expires", "delivery-limit")
"""Settings of which RabbitMQ takes the smaller one of a queue's argument and its policy."""
DROPPING = {
    "message-ttl": "what expires is dropped by the retry loop",
    "expires": "it is deleted with its messages when unused for a while",
    "max-length": "it drops its oldest messages when full",
    "max-length-bytes": "it drops its oldest messages when full",
}


def compare(topology: Topology, existing: Existing, vhost: str) -> Iterator[Finding]:
    """Yield what is as wanted and each drift, in the order of the *topology*; last the bindings."""
    for exchange in topology.exchanges:
        there = existing.exchanges.get(exchange.name)
        if there is None:
            yield wrong(f"the exchange {exchange.name} {MISSING}")
        else:
            yield from told(
                f"the exchange {exchange.name}", exchange_drifts(exchange, there, existing, vhost)
            )
    for queue in topology.queues:
        found = existing.queues.get(queue.name)
        if found is None:
            yield wrong(f"the queue {queue.name} {MISSING}")
        else:
            drifts = (wrong(sentence) for sentence in queue_drifts(queue, found, vhost))
            yield from told(f"the queue {queue.name}", drifts)
    yield from bindings_of(topology, existing)


def told(what: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """Yield the *findings*, or that *what* they are about is as wanted."""
    found = list(findings)
    yield from found or [ok(f"{what} is as wanted")]


def exchange_drifts(
    wanted: Exchange, there: ExchangeFacts, existing: Existing, vhost: str
) -> Iterator[Finding]:
    """Yield where an exchange that exists differs."""
    what = f"the exchange {wanted.name}"
    if there.kind != wanted.kind:
        yield wrong(f"{what} is a {there.kind} exchange where {wanted.kind} is wanted: {AGAIN}")
    if not there.durable or there.automatic:
        yield wrong(f"{what} does not last: {AGAIN} (durable, not auto-delete, not internal)")
    for name, value in there.arguments.items():
        if name != ALTERNATE and wanted.arguments.get(name) != value:
            yield wrong(f"{what} has {name} = {value}, which is not wanted: {AGAIN}")
    yield from alternate(wanted, there, existing, vhost)


def alternate(wanted: Exchange, there: ExchangeFacts, existing: Existing, vhost: str) -> Iterator[Finding]:
    """Check where messages go that an exchange cannot route: an argument wins over a policy."""
    what, aim = f"the exchange {wanted.name}", wanted.arguments.get(ALTERNATE)
    present = there.arguments.get(ALTERNATE)
    if present is None and there.policy:
        if existing.policies is None:
            yield unchecked(
                f"the alternate exchange of {wanted.name}: the account of the management API may not see "
                f"its policy {there.policy}"
            )
            return
        present = existing.policies.get(there.policy, {}).get(ALTERNATE)
    if present == aim:
        return
    if aim is None:
        yield wrong(
            f"{what} has the alternate exchange {present}, so that nobody is told of what no queue takes: "
            "remove it"
        )
    elif present is None:
        beside = f"; only one policy applies, so add it to {there.policy}" if there.policy else ""
        how = advice(what, ALTERNATE, vhost).removesuffix(" (policies are not seen here)")
        yield wrong(f"{what} has no alternate exchange, so that what it cannot route is lost: {how}{beside}")
    else:
        change = AGAIN if ALTERNATE in there.arguments else f"correct the policy {there.policy}"
        yield wrong(f"{what} has the alternate exchange {present} where {aim} is wanted: {change}")


def queue_drifts(wanted: Queue, there: QueueFacts, vhost: str) -> Iterator[str]:
    """Yield where a queue that exists differs: its arguments, or else what its policies say."""
    what = f"the queue {wanted.name}"
    kind = wanted.arguments["x-queue-type"]
    if there.kind != kind:
        yield f"{what} is a {there.kind} queue where {kind} is wanted: {AGAIN}"
    if not there.durable or there.automatic:
        yield f"{what} does not last: {AGAIN} (durable, not auto-delete, not exclusive)"
    missing: dict[str, str | int] = {}
    for name, value in wanted.arguments.items():
        if name == "x-queue-type" or (there.kind != kind and name not in OF_BOTH_KINDS):
            continue
        present = effective(there, name.removeprefix("x-"))
        if present is None:
            missing[name.removeprefix("x-")] = value
        elif present != value:
            by = AGAIN if there.arguments.get(name) == present else f"correct the policy {there.policy_name}"
            yield f"{what} has {name} = {present} where {value} is wanted: {by}"
    if missing:
        yield lacking(what, missing, there, vhost)
    yield from unwanted(what, wanted, there)


def effective(there: QueueFacts, name: str) -> Any:
    """Return what applies of a setting: its argument, or that of its policy, or the smaller of both."""
    argument, policy = there.arguments.get(f"x-{name}"), there.policy.get(name)
    if name in SMALLER_WINS and isinstance(argument, int) and isinstance(policy, int):
        return min(argument, policy)
    return policy if argument is None else argument


def lacking(what: str, missing: Mapping[str, str | int], there: QueueFacts, vhost: str) -> str:
    """Return that settings are *missing*; only a policy can add them to a queue that exists."""
    names = " and ".join(f"x-{name} ({value})" for name, value in missing.items())
    policy = f"flow-{re.sub(r'[^A-Za-z0-9]+', '-', there.name)}"
    pattern = shlex.quote(f"^{re.escape(there.name)}$")
    definition = shlex.quote(json.dumps(missing, separators=(",", ":")))
    command = (
        f"rabbitmqctl set_policy -p {shlex.quote(vhost)} --apply-to queues {policy} {pattern} {definition}"
    )
    beside = f"; only one policy applies, so add it to {there.policy_name}" if there.policy_name else ""
    return f"{what} has no {names}: {command}{beside}"


def unwanted(what: str, wanted: Queue, there: QueueFacts) -> Iterator[str]:
    """Yield the arguments that are not wanted, and what policies may drop."""
    for name, value in sorted(there.arguments.items()):
        if name not in wanted.arguments and name != "x-queue-type":
            yield f"{what} has {name} = {value}, which is not wanted: {AGAIN}"
    for name, consequence in DROPPING.items():
        if name not in there.policy or f"x-{name}" in {*wanted.arguments, *there.arguments}:
            continue
        if name.startswith("max-length") and there.setting("overflow") == "reject-publish":
            continue
        yield f"{what} has {name} = {there.policy[name]} by the policy {there.policy_name}: {consequence}"
    if "dead-letter-exchange" in there.policy and not {*wanted.arguments} & {"x-dead-letter-exchange"}:
        yield f"{what} has a dead-letter exchange by the policy {there.policy_name}, which is not wanted"
