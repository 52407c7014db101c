"""What is found of the plumbing that a campaign server declares; looked at, never declared."""

from flow.broker.declaring import Declarer
from flow.broker.url import BrokerUrl
from flow.campaign_server import PURPOSES, ServerQueue, server_queue
from flow.checking.finding import Tell, caution, ok, wrong
from flow.checking.setup import there
from flow.errors import BrokerError


async def check_server(url: BrokerUrl, queue: str, tell: Tell) -> None:
    """Tell what *queue* is if it is one of a campaign server, and whether its retry loop is there."""
    found = server_queue(queue)
    if found is None:
        return
    who = f"organisation {found.organisation} of a campaign server, which declares it"
    if found.purpose is None:
        known = ", ".join(name.format("N") for name in PURPOSES)
        tell(caution(f"{queue} is named like a queue of {who}, but none of this name is known: {known} are"))
    else:
        tell(ok(f"{queue} is of {who}: {found.purpose}"))
    try:
        async with Declarer(url, name="flow check") as declarer:
            await look_at_loop(declarer, found, tell)
            if found.source is not None and not await there(declarer, "exchange", found.source):
                tell(caution(f"{queue} gets nothing: the exchange {found.source} is missing"))
    except BrokerError as error:
        tell(wrong(str(error)))


async def look_at_loop(declarer: Declarer, queue: ServerQueue, tell: Tell) -> None:
    """Tell whether the parts of the retry loop are there."""
    missing = [f"the {kind} {name}" for kind, name in queue.loop if not await there(declarer, kind, name)]
    parts = " and ".join(missing)
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        lost = f"what {queue.name} rejects is lost"
        tell(wrong(f"{parts} {verb} missing, so that {lost}: have the server declare it"))
    else:
        way = " -> ".join(f"{kind} {name}" for kind, name in queue.loop)
        tell(ok(f"the retry loop of {queue.name} is there: {way}"))
