"""Checks exchanges, queues and bindings against what `flow setup` would declare; nothing is changed."""

from collections.abc import Iterator

from flow.broker.declaring import Declarer
from flow.broker.url import BrokerUrl
from flow.checking.drift import MISSING, compare
from flow.checking.existing import read_existing
from flow.checking.finding import Tell, ok, unchecked, wrong
from flow.checking.managed import NEEDS
from flow.checking.strays import facts, named
from flow.errors import BrokerError, FlowError, NotFound
from flow.management import ManagementApi
from flow.topology import Topology


async def check_set_up(url: BrokerUrl, topology: Topology, address: str, tell: Tell) -> None:
    """Tell each drift from the *topology*: by the management API at *address*, or as far as AMQP shows it."""
    if address:
        try:
            async with ManagementApi(address) as api:
                existing = await read_existing(api, url.vhost)
        except FlowError as error:
            tell(wrong(str(error)))
        else:
            for finding in compare(topology, existing, url.vhost):
                tell(finding)
            return
    await look(url, topology, tell)


async def look(url: BrokerUrl, topology: Topology, tell: Tell) -> None:
    """Look what is there; AMQP tells nothing more without changing something."""
    missing: set[tuple[str, str]] = set()
    things = [("exchange", one.name) for one in topology.exchanges]
    things += [("queue", one.name) for one in topology.queues]
    try:
        async with Declarer(url, name="flow setup --check") as declarer:
            for kind, name in things:
                if not await there(declarer, kind, name):
                    missing.add((kind, name))
                    tell(wrong(f"the {kind} {name} {MISSING}"))
                else:
                    tell(ok(f"the {kind} {name} is there"))
    except BrokerError as error:
        tell(wrong(str(error)))
    for what, (kind, name) in [*unseen(topology), *unseen_bindings(topology)]:
        if (kind, name) not in missing:
            tell(unchecked(f"{what}: {NEEDS}"))
    tell(unchecked(f"whether other bindings take messages where they do not belong: {NEEDS}"))


async def there(declarer: Declarer, kind: str, name: str) -> bool:
    """Return whether an exchange or a queue exists."""
    try:
        await (declarer.look_for_exchange(name) if kind == "exchange" else declarer.look(name))
    except NotFound:
        return False
    return True


def unseen(topology: Topology) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield what AMQP does not show of exchanges and queues, and of which."""
    for exchange in topology.exchanges:
        also = ", alternate exchange" if exchange.arguments else ""
        yield f"type{also} and arguments of the exchange {exchange.name}", ("exchange", exchange.name)
    for queue in topology.queues:
        yield f"type, arguments and policies of the queue {queue.name}", ("queue", queue.name)


def unseen_bindings(topology: Topology) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield the bindings, none of which AMQP shows, and their queues."""
    for binding in topology.bindings:
        yield f"whether there is {named(facts(binding))}", ("queue", binding.queue)
