"""What only the management API tells: arguments, policies, bindings and permissions."""

from collections.abc import Iterator
from typing import Any

from flow.broker.url import BrokerUrl
from flow.checking.declared import PipelineClass
from flow.checking.facts import QueueFacts, dangers, dead_lettering, patience, permitted
from flow.checking.finding import Finding, Tell, caution, ok, unchecked, wrong
from flow.deadletters import rejects
from flow.errors import FlowError, NotFound
from flow.management import VARIABLE, ManagementApi, table
from flow.sizing import longest
from flow.topology import PARK_EXCHANGE

NEEDS = f"needs the management API ({VARIABLE})"


async def check_managed(address: str, url: BrokerUrl, classes: list[PipelineClass], tell: Tell) -> None:
    """Check the queues of *classes* by the management API at *address*."""
    try:
        async with ManagementApi(address) as api:
            version = str(table(await api.get("overview")).get("rabbitmq_version", ""))
            tell(ok(f"the management API at {api.place} answers"))
            for cls in classes:
                await _check(api, url, cls, version, tell)
    except FlowError as error:
        tell(wrong(str(error)))
        for cls in classes:
            tell_unmanaged(url.user, cls, tell)


def tell_unmanaged(user: str, cls: PipelineClass, tell: Tell) -> None:
    """Say what is not known without the management API."""
    queue = cls.queue
    for what in (
        f"whether a TTL, a length limit or a delivery limit of {queue} drops messages",
        f"whether {queue} has a dead-letter exchange, and a binding back from the retry loop",
        f"the consumer_timeout of {queue}",
        may(user, cls),
    ):
        tell(unchecked(f"{what}: {NEEDS}"))


def may(user: str, cls: PipelineClass) -> str:
    """Return what must be permitted."""
    park = f" and write to {PARK_EXCHANGE}" if cls.park == "queue" else ""
    return f"whether {user} may read {cls.queue}{park}"


async def _check(api: ManagementApi, url: BrokerUrl, cls: PipelineClass, version: str, tell: Tell) -> None:
    name = cls.queue
    try:
        queue = QueueFacts.read(await api.get("queues", url.vhost, name))
    except NotFound:
        tell(unchecked(f"the arguments of {name}: there is no such queue"))
        return
    for finding in dangers(queue, version):
        tell(finding)
    for finding in await loop(api, url.vhost, queue, cls):
        tell(finding)
    seconds = longest(cls.handler_timeout, cls.batch_timeout, cls.batchings().values())
    tell(patience(queue, seconds))
    for finding in await permissions(api, url, cls):
        tell(finding)


async def loop(api: ManagementApi, vhost: str, queue: QueueFacts, cls: PipelineClass) -> list[Finding]:
    """Follow a rejected message of *queue* until it is back, or lost."""
    name, exchange = queue.name, queue.setting("dead-letter-exchange")
    if not rejects(cls, cls.queue):
        if exchange is None or cls.dead_letter == "refuse":
            return [ok(f"{name} need not have a retry loop: retries are held and made here")]
        loop = f"{name} has the dead-letter exchange {exchange}: --dead-letter assume retries through it"
        return [caution(f"{cls.__name__}: {loop}")]
    if not isinstance(exchange, str):
        return [wrong(f"{name} has no dead-letter exchange: what is rejected is lost; have it made with one")]
    if queue.setting("dead-letter-routing-key") != name:
        return [
            wrong(f"the dead-letter routing key of {name} must be its own name, or retries do not come back")
        ]
    found = [ok(f"{name} rejects to {exchange} with its own name as the key"), dead_lettering(queue)]
    waiting = [row["destination"] for row in await bindings(api, vhost, exchange) if leads(row, name)]
    if not waiting:
        return [*found, wrong(f"no queue is bound to {exchange}: what {name} rejects is lost; bind one")]
    for other in waiting:
        found += await _back(api, vhost, QueueFacts.read(await api.get("queues", vhost, other)), queue, cls)
    return found


async def _back(
    api: ManagementApi, vhost: str, waiting: QueueFacts, queue: QueueFacts, cls: PipelineClass
) -> list[Finding]:
    """Check that what waits in *waiting* comes back to *queue*, and when."""
    exchange, ttl = waiting.setting("dead-letter-exchange"), waiting.setting("message-ttl")
    if not isinstance(exchange, str) or not isinstance(ttl, int):
        return [
            wrong(f"what waits in {waiting.name} never comes back: it needs a TTL and a dead-letter exchange")
        ]
    key = waiting.setting("dead-letter-routing-key") or queue.name
    rows = await bindings(api, vhost, exchange)
    back = [row for row in rows if row["destination"] == queue.name and leads(row, str(key))]
    if not back:
        lost = "with its own name: its retries are lost; bind it"
        return [wrong(f"{queue.name} is not bound to {exchange} {lost}")]
    found = [ok(f"{queue.name} gets its retries back from {exchange}"), dead_lettering(waiting)]
    if ttl / 1000 != cls.retry_delay:
        takes = f"the retry loop takes {ttl / 1000:g} s, not {cls.retry_delay:g}"
        found.append(caution(f"{cls.__name__}: {takes}: set retry_delay, or FLOW_RETRY_DELAY"))
    return found


async def bindings(api: ManagementApi, vhost: str, exchange: str) -> list[dict[str, Any]]:
    """Return the bindings from *exchange* to queues, with the kind of the exchange; none without it."""
    try:
        kind = table(await api.get("exchanges", vhost, exchange)).get("type")
        rows = await api.get("exchanges", vhost, exchange, "bindings", "source")
    except NotFound:
        return []
    return [{**row, "kind": kind} for row in rows if row.get("destination_type") == "queue"]


def leads(binding: dict[str, Any], key: str) -> bool:
    """Tell whether a *binding* takes messages with the *key*."""
    if binding["kind"] == "fanout":
        return True
    if binding["kind"] == "topic":
        return matches(binding["routing_key"].split("."), key.split("."))
    return bool(binding["routing_key"] == key)


def matches(pattern: list[str], words: list[str]) -> bool:
    """Tell whether *words* match the *pattern* of a topic exchange: `*` is one word, `#` any number."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[count:]) for count in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


async def permissions(api: ManagementApi, url: BrokerUrl, cls: PipelineClass) -> list[Finding]:
    """Check what the account may do; only an administrator of the broker may see that."""
    try:
        told = table(await api.get("permissions", url.vhost, url.user))
    except FlowError:
        return [unchecked(f"{may(url.user, cls)}: the account of {VARIABLE} may not see that")]
    return list(_permissions(told.get("read"), told.get("write"), url.user, cls))


def _permissions(read: Any, write: Any, user: str, cls: PipelineClass) -> Iterator[Finding]:
    strange = "the permission cannot be understood here"
    match permitted(read, cls.queue):
        case None:
            yield unchecked(f"whether {user} may read {cls.queue}: {strange}")
        case False:
            yield wrong(f"{user} may not read {cls.queue}: grant the read permission")
        case True:
            yield ok(f"{user} may read {cls.queue}")
    if cls.park != "queue":
        return
    match permitted(write, PARK_EXCHANGE):
        case None:
            yield unchecked(f"whether {user} may write to {PARK_EXCHANGE}: {strange}")
        case False:
            stay = "hopeless messages stay in the retry loop: grant the write permission"
            yield caution(f"{user} may not write to {PARK_EXCHANGE}, so {stay}")
        case True:
            yield ok(f"{user} may write to {PARK_EXCHANGE}")
