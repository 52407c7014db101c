"""Which organisations there are, and what they have; nothing is changed."""

from dataclasses import dataclass

from flow.broker.declaring import Declarer
from flow.broker.url import BrokerUrl
from flow.checking.existing import Existing, read_existing
from flow.checking.strays import facts, organisation_of
from flow.errors import ConfigError, NotFound, NoVirtualHost
from flow.management import VARIABLE, ManagementApi
from flow.topology import ORGANISATION_PARTS, ORGANISATION_QUEUES, organisation_binding


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """One part of an organisation."""

    exists: bool | None = False
    """None: not known."""
    bound: bool | None = None
    """Whether it gets new messages; None: not known."""
    ready: int = 0
    consumers: int = 0

    def __str__(self) -> str:
        if self.exists is None:
            return "not checked"
        if not self.exists:
            return "-"
        words = {True: "on", False: "off", None: "there"}[self.bound]
        if self.ready:
            words += f", {self.ready} waiting"
        return words + (f", {self.consumers} reading" if self.consumers else "")


Parts = dict[str, State]


async def states(url: BrokerUrl, names: list[str], address: str) -> dict[str, Parts]:
    """Return what the organisations *names* have; without names, all that the management API at *address*
    shows.

    Raises:
        ConfigError: there are neither names nor an address.
    """
    if address:
        async with ManagementApi(address) as api:
            existing = await read_existing(api, url.vhost)
        return {name: managed(name, existing) for name in names or organisations(existing)}
    if not names:
        raise ConfigError(f"AMQP shows no list of queues: name the organisations, or set {VARIABLE}")
    async with Declarer(url, name="flow org list") as declarer:
        return {name: await seen(declarer, name) for name in names}


def organisations(existing: Existing) -> list[str]:
    """Return the names of all organisations that have anything."""
    found = {organisation_of(name) for name in existing.queues}
    found |= {organisation_of(one.destination, one.key) for one in existing.bindings}
    return sorted(name for name in found if name is not None)


def managed(name: str, existing: Existing) -> Parts:
    """Return what the organisation *name* has, by the management API."""
    found = {}
    for part in ORGANISATION_PARTS:
        binding = organisation_binding(name, part)
        queue, bound = existing.queues.get(binding.queue), facts(binding) in existing.bindings
        if part not in ORGANISATION_QUEUES:
            found[part] = State(exists=bound, bound=bound)
        elif queue is None:
            found[part] = State()
        else:
            found[part] = State(exists=True, bound=bound, ready=queue.messages, consumers=queue.consumers)
    return found


async def seen(declarer: Declarer, name: str) -> Parts:
    """Return what the organisation *name* has, as far as AMQP shows it: no bindings.

    Raises:
        BrokerError: the broker cannot be asked.
    """
    found = {}
    for part in ORGANISATION_PARTS:
        if part not in ORGANISATION_QUEUES:
            found[part] = State(exists=None)
            continue
        try:
            look = await declarer.look(organisation_binding(name, part).queue)
        except NoVirtualHost:
            raise
        except NotFound:
            found[part] = State()
        else:
            found[part] = State(exists=True, ready=look.ready, consumers=look.consumers)
    return found
