"""What a message looks like after it died in a queue or came back to it: the headers of RabbitMQ 3.10."""

from flow.devbroker import properties, tables
from flow.devbroker.message import Message, address
from flow.devbroker.tables import Table

FIRST = ("reason", "queue", "exchange")


def dead(message: Message, *, reason: str, queue: str, exchange: str, key: str | None, now: int) -> Message:
    """Return the message as it leaves *queue* for *exchange*.

    *reason* is rejected, expired, maxlen or delivery_limit; *key* replaces the routing key unless None;
    *now* in seconds since 1970.
    """
    found = properties.cut(message.properties)
    headers = properties.headers(found)
    keys = [message.key, *copies(headers)]
    death = {
        "reason": tables.longstr(reason),
        "queue": tables.longstr(queue),
        "time": tables.timestamp(now),
        "exchange": tables.longstr(message.exchange),
        "routing-keys": tables.array(map(tables.longstr, keys)),
    }
    expiration = properties.shortstr(found, properties.EXPIRATION)
    if expiration is not None:
        death["original-expiration"] = tables.longstr(expiration)
    headers = _recorded(headers, death)
    if key is not None:
        headers.pop("CC", None)
    found.pop(properties.EXPIRATION, None)
    found[properties.HEADERS] = tables.write_table(headers)
    target = address(exchange, message.key if key is None else key)
    return Message(target, properties.join(found), message.body)


def returned(message: Message, returns: int) -> Message:
    """Return *message* with the header in which quorum queues tell how often it came back."""
    count = {"x-delivery-count": tables.long(returns)}
    return Message(message.address, properties.with_headers(message.properties, count), message.body)


def _recorded(headers: Table, death: Table) -> Table:
    """Return the headers with *death* in front; deaths of the same queue and reason are counted as one."""
    former = deaths(headers)
    if "x-death" not in headers:
        for name in FIRST:
            headers[f"x-first-death-{name}"] = death[name]
    same = [entry for entry in former or [] if _place(entry) == _place(death)]
    others = [entry for entry in former or [] if _place(entry) != _place(death)]
    if same:
        newest = {**same[0], "count": tables.long(_count(same[0]) + 1)}
    else:
        newest = {"count": tables.long(1), **death}
    if former is not None:  # only the very first death has its fields in another order
        newest = dict(sorted(newest.items()))
    headers["x-death"] = tables.array(b"F" + tables.write_table(entry) for entry in (newest, *others))
    return dict(sorted(headers.items()))


def deaths(headers: Table) -> list[Table] | None:
    """Return the entries of x-death, the newest first; None when there is no such list."""
    value = headers.get("x-death", b"")
    if value[:1] != b"A":
        return None
    return [tables.read_table(entry, 1)[0] for entry in tables.read_array(value, 1) if entry[:1] == b"F"]


def _count(death: Table) -> int:
    """Return how often it happened; 0 when that is no number, as any publisher can have it."""
    count = death.get("count", b"V")
    return int(tables.plain(count)) if chr(count[0]) in tables.INTEGERS else 0


def _place(death: Table) -> tuple[bytes | None, bytes | None]:
    return death.get("queue"), death.get("reason")


def is_cycle(message: Message, queue: str) -> bool:
    """Whether *message* was in *queue* before and came back to it without ever having been rejected."""
    wanted = tables.longstr(queue)
    rejected = tables.longstr("rejected")
    for death in deaths(properties.headers(properties.cut(message.properties))) or []:
        if death.get("reason") == rejected:
            return False
        if death.get("queue") == wanted:
            return True
    return False


def copies(headers: Table, name: str = "CC") -> list[str]:
    """Return the further routing keys in the header *name*, CC or BCC."""
    value = headers.get(name)
    if value is None or value[:1] != b"A":
        return []
    return [tables.text(entry) for entry in tables.read_array(value, 1) if entry[:1] == b"S"]
