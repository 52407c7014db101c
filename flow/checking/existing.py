"""What the management API tells of exchanges, queues, bindings and policies of a virtual host."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flow.checking.facts import QueueFacts
from flow.errors import AccessDenied
from flow.management import ManagementApi, table


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFacts:
    """One exchange as it is."""

    name: str
    kind: str = "topic"
    durable: bool = True
    automatic: bool = False
    """Whether it is deleted with its last binding, or takes no messages from publishers."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    policy: str = ""
    """The name of the policy on it, if there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BindingFacts:
    """One binding as it is."""

    exchange: str
    key: str
    destination: str
    to_queue: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Existing:
    """A virtual host as it is."""

    exchanges: Mapping[str, ExchangeFacts] = field(default_factory=dict)
    queues: Mapping[str, QueueFacts] = field(default_factory=dict)
    bindings: tuple[BindingFacts, ...] = ()
    policies: Mapping[str, Mapping[str, Any]] | None = field(default_factory=dict)
    """What each policy says; None when the account may not see that."""


async def read_existing(api: ManagementApi, vhost: str) -> Existing:
    """Return what is in *vhost*.

    Raises:
        NotFound: there is no such virtual host.
        AccessDenied: the login is wrong, or may not see it.
        ConnectionLost: the API was not reached.
    """
    exchanges = [exchange(row) for row in await api.get("exchanges", vhost)]
    queues = [QueueFacts.read(row) for row in await api.get("queues", vhost)]
    bindings = [binding(row) for row in await api.get("bindings", vhost)]
    return Existing(
        exchanges={one.name: one for one in exchanges},
        queues={one.name: one for one in queues},
        bindings=tuple(one for one in bindings if one.exchange),  # the default exchange reaches every queue
        policies=await read_policies(api, vhost),
    )


async def read_policies(api: ManagementApi, vhost: str) -> Mapping[str, Mapping[str, Any]] | None:
    """Return what each policy says; None when the account may not see that."""
    try:
        rows = await api.get("policies", vhost)
    except AccessDenied:
        return None
    return {str(table(row).get("name")): table(table(row).get("definition")) for row in rows}


def exchange(row: Any) -> ExchangeFacts:
    """Read one exchange of the API's list."""
    told = table(row)
    return ExchangeFacts(
        name=str(told.get("name", "")),
        kind=str(told.get("type", "")),
        durable=told.get("durable") is True,
        automatic=told.get("auto_delete") is True or told.get("internal") is True,
        arguments=table(told.get("arguments")),
        policy=str(told.get("policy") or ""),
    )


def binding(row: Any) -> BindingFacts:
    """Read one binding of the API's list."""
    told = table(row)
    return BindingFacts(
        exchange=str(told.get("source", "")),
        key=str(told.get("routing_key", "")),
        destination=str(told.get("destination", "")),
        to_queue=told.get("destination_type") == "queue",
    )
