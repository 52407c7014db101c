"""Sets the plumbing up: what all queues share, and the queues that are asked for."""

from collections.abc import Sequence

from flow.broker.declaring import Drift, declare
from flow.broker.url import BrokerUrl
from flow.topology import (
    QueueType,
    Topology,
    global_topology,
    organisation_topology,
    system_topology,
    work_queue,
)


def topology_for(
    organisations: Sequence[str] = (),
    queues: Sequence[str] = (),
    *,
    system_queues: bool = False,
    queue_type: QueueType = "quorum",
    retry_delay: float = 30.0,
) -> Topology:
    """Return what all queues share, the CRM queue of each of the *organisations*, and the work *queues*.

    With *system_queues* those of flow's own pipelines are there, too. *retry_delay* is how many seconds a
    rejected message waits for its next attempt.

    Raises:
        ConfigError: a name, the type or the delay cannot be used.
    """
    topology = global_topology(queue_type, retry_delay)
    if system_queues:
        topology += system_topology(queue_type)
    for organisation in organisations:
        topology += organisation_topology(organisation, queue_type=queue_type)
    for queue in queues:
        topology += work_queue(queue, queue_type)
    return topology


async def set_up(url: BrokerUrl, topology: Topology) -> list[Drift]:
    """Declare *topology*; what exists with other arguments is left as it is and returned.

    Doing it again changes nothing.

    Raises:
        AccessDenied: the account may not declare or bind.
        ConnectionLost: the broker was not reached, or got lost.
    """
    return await declare(url, topology)
