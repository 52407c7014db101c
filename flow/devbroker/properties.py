"""The properties of a message, cut into raw values by their flag."""

from flow.devbroker import tables
from flow.devbroker.errors import ConnectionRefusal, Malformed
from flow.devbroker.tables import Table

HEADERS, EXPIRATION, USER_ID = 1 << 13, 1 << 8, 1 << 4
TIMESTAMP, PRIORITY, DELIVERY_MODE, MESSAGE_ID = 1 << 6, 1 << 11, 1 << 12, 1 << 7
SIZES = {TIMESTAMP: 8, PRIORITY: 1, DELIVERY_MODE: 1}
FLAGS = tuple(1 << bit for bit in range(15, 1, -1))  # in the order in which the values stand
UNKNOWN = 0b11

Properties = dict[int, bytes]
"""Flag to value, in the order of the wire; the value of a short string has its length before it."""


def cut(content: bytes) -> Properties:
    """Read flags and values.

    Raises:
        ConnectionRefusal: they are not what they say they are.
    """
    flags = int.from_bytes(content[:2], "big")
    if len(content) < 2 or flags & UNKNOWN:
        raise ConnectionRefusal(541)
    found: Properties = {}
    at, size = 2, len(content)
    for flag in FLAGS:
        if not flags & flag:
            continue
        begin = at
        if flag == HEADERS:
            at = tables.read_table(content, at)[1]
        else:
            at += SIZES.get(flag) or (1 + content[at] if at < size else 1)
        if at > size:
            raise Malformed("cannot decode properties")
        found[flag] = content[begin:at]
    if at != size:
        raise Malformed("cannot decode properties")
    return found


def join(properties: Properties) -> bytes:
    """Write flags and values."""
    flags = 0
    for flag in properties:
        flags |= flag
    return flags.to_bytes(2, "big") + b"".join(properties[flag] for flag in FLAGS if flag in properties)


def headers(properties: Properties) -> Table:
    """Return the headers; an empty table when there are none."""
    content = properties.get(HEADERS)
    return tables.read_table(content)[0] if content else {}


def with_headers(content: bytes, more: Table) -> bytes:
    """Return the properties *content* with *more* headers, the names in order, as RabbitMQ writes them."""
    properties = cut(content)
    changed = headers(properties) | more
    properties[HEADERS] = tables.write_table(dict(sorted(changed.items())))
    return join(properties)


def shortstr(properties: Properties, flag: int) -> str | None:
    """Return the text of a property; None when it is not there."""
    value = properties.get(flag)
    return None if value is None else value[1:].decode(errors="replace")
