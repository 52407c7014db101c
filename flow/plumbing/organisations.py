"""Takes the queues of organisations down, and only what nobody would miss."""

from collections.abc import Iterator, Mapping
from typing import Any

from flow.broker.declaring import Declarer, Look
from flow.errors import InUse, NotFound, NoVirtualHost
from flow.management import ManagementApi, table
from flow.topology import RETRY_EXCHANGE, Binding


async def drop(declarer: Declarer, on: Binding, management: ManagementApi | None, vhost: str) -> bool:
    """Delete the queue of the binding *on* if it is empty and unused; return whether it was there.

    It is unbound before the last look, so that nothing arrives between look and deletion. What then still
    waits for another attempt finds no way back and is parked.

    Raises:
        InUse: it holds messages or somebody reads it; it is as it was.
    """
    try:
        found = await declarer.look(on.queue)
    except NoVirtualHost:
        raise
    except NotFound:
        return False
    told = await read(management, vhost, on.queue)
    refuse(on.queue, found, told)
    back = Binding(exchange=RETRY_EXCHANGE, key=on.queue, queue=on.queue)
    for binding in (on, back):
        await declarer.unbind(binding)
    try:
        refuse(on.queue, await declarer.look(on.queue), {})
    except InUse:
        for binding in (back, on):
            await declarer.bind(binding)
        raise
    await declarer.delete_queue(on.queue)
    return True


async def read(management: ManagementApi | None, vhost: str, queue: str) -> Mapping[str, Any]:
    """Return what the management API tells of the *queue*; nothing without it, or before it knows of it."""
    if management is None:
        return {}
    try:
        return table(await management.get("queues", vhost, queue))
    except NotFound:
        return {}


def refuse(queue: str, found: Look, told: Mapping[str, Any]) -> None:
    """Check that nobody would miss the *queue*, by what AMQP *found* and what the management API *told*.

    Raises:
        InUse: somebody would.
    """
    held = told.get("messages") or 0
    if not found.in_use and not held:
        return
    sentence = f"The queue {queue} is not dropped: {found}"
    who = ", ".join(readers(told))
    if who:
        sentence += f" ({who})"
    if held > found.ready:
        sentence += (
            f"; {held - found.ready} more, in somebody's hands or on the way to another queue, as the "
            "management API told some seconds ago"
        )
    raise InUse(f"{sentence}; have it emptied and stop who reads it, or turn it off: `flow org off`")


def readers(told: Mapping[str, Any]) -> Iterator[str]:
    """Yield who reads a queue, as the management API tells it."""
    for consumer in told.get("consumer_details") or ():
        channel = table(table(consumer).get("channel_details"))
        yield f"{channel.get('user', 'somebody')} from {channel.get('peer_host', 'somewhere')}"
