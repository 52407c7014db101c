"""What the broker tells over AMQP without side effects."""

from typing import Any

from flow.broker.connecting import caution as caution_of
from flow.broker.connecting import connect
from flow.broker.declaring import Declarer
from flow.broker.faults import no_queue
from flow.broker.url import BrokerUrl
from flow.checking.declared import PipelineClass
from flow.checking.finding import Tell, caution, ok, unchecked, wrong
from flow.errors import BrokerError, NotFound, NoVirtualHost
from flow.topology import PARK_EXCHANGE

NAME = "flow check"
HEARTBEAT = 10  # seconds


async def check_broker(url: BrokerUrl, tell: Tell) -> bool:
    """Check address, TLS, login, virtual host and version; return whether the broker let us in."""
    try:
        link = await connect(url, name=NAME, heartbeat=HEARTBEAT)
    except BrokerError as error:
        tell(wrong(str(error)))
        return False
    properties = link.connection.server_properties
    await link.close()
    tell(ok(f"{url.place} lets the user {url.user} into the virtual host {url.vhost}"))
    if url.tls:
        tell(ok(f"TLS: the certificate of {url.place} is accepted"))
    elif url.in_the_clear:
        tell(caution("the connection is not encrypted: use amqps:// across a network"))
    else:
        tell(ok("the connection is not encrypted, and stays on this machine"))
    warning = caution_of(properties)
    tell(wrong(warning) if warning else ok(f"RabbitMQ {text(properties.get('version'))}"))
    return True


async def check_queue(url: BrokerUrl, cls: PipelineClass, tell: Tell) -> int | None:
    """Check that the queue is there; return how many consumers it has, or None when it is not there."""
    queue = cls.queue
    try:
        async with Declarer(url, name=NAME) as declarer:
            look = await declarer.look(queue)
    except BrokerError as error:
        missing = isinstance(error, NotFound) and not isinstance(error, NoVirtualHost)
        tell(wrong(str(no_queue(url, queue)) if missing else str(error)))
        return None
    tell(ok(f"the queue {queue} exists, with {look.ready} messages ready and {look.consumers} consumers"))
    return look.consumers


async def check_park(url: BrokerUrl, cls: PipelineClass, tell: Tell) -> None:
    """Check where hopeless messages go."""
    name = cls.__name__
    if cls.park == "loop":
        tell(ok(f'{name}: hopeless messages stay in the retry loop (park = "loop")'))
        return
    if cls.park != "queue":
        tell(ok(f"{name}: hopeless messages go to files (park = {cls.park!r})"))
        return
    try:
        async with Declarer(url, name=NAME) as declarer:
            await declarer.look_for_exchange(PARK_EXCHANGE)
    except BrokerError as error:
        tell(caution(f"{name}: hopeless messages cannot be parked and stay in the retry loop: {error}"))
    else:
        tell(ok(f"{name}: hopeless messages go to the exchange {PARK_EXCHANGE}"))


def tell_unreached(cls: PipelineClass, tell: Tell) -> None:
    """Say what is not known of the queue of *cls* without a broker."""
    tell(unchecked(f"whether the queue {cls.queue} exists, and its park: needs the broker"))


def text(value: Any) -> str:
    """Return a text of the broker, which the library may have left as bytes."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes | bytearray) else str(value)
