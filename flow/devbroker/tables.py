"""Field tables, cut into fields without losing how their values were written."""

import struct
from collections.abc import Iterable
from typing import Any

from pamqp import decode

from flow.devbroker.errors import Malformed

Table = dict[str, bytes]
"""Each value as on the wire: a letter for its type, then its octets."""

TYPES = {
    "t": "bool",
    "b": "byte",
    "B": "unsignedbyte",
    "s": "short",
    "u": "unsignedshort",
    "I": "signedint",
    "i": "unsignedint",
    "l": "long",
    "L": "long",
    "f": "float",
    "d": "double",
    "D": "decimal",
    "T": "timestamp",
    "V": "void",
    "S": "longstr",
    "x": "binary",
    "A": "array",
    "F": "table",
}
OF_ONE_SIZE = zip("tbBsuIilLfdDTV", (1, 1, 1, 2, 2, 4, 4, 8, 8, 4, 8, 5, 8, 0), strict=True)
SIZES = {ord(letter): size for letter, size in OF_ONE_SIZE}
LONG = {ord(letter) for letter in "SxAF"}
INTEGERS = "bBsuIilL"
LARGEST = (1 << 64) - 1
DEEPEST = 32  # tables within tables

_length = struct.Struct(">I")


def read_table(content: bytes, at: int = 0, limit: int | None = None, depth: int = 0) -> tuple[Table, int]:
    """Read the table that begins at *at* and ends before *limit*; return it and where it ends.

    Raises:
        Malformed: it does not end where it says, or holds what is no field.
    """
    end, at = _extent(content, at, limit, depth)
    fields: Table = {}
    while at < end:
        begin = at + 1 + content[at]
        if begin >= end:
            raise Malformed("cannot decode a field table")
        try:
            name = content[at + 1 : begin].decode()
        except UnicodeDecodeError:
            raise Malformed("Malformed UTF-8 in shortstr") from None
        at = _skip(content, begin, end, depth)
        fields[name] = content[begin:at]
    return fields, end


def read_array(content: bytes, at: int = 0, limit: int | None = None, depth: int = 0) -> list[bytes]:
    """Read the array that begins at *at* and ends before *limit* into its values.

    Raises:
        Malformed: it does not end where it says, or holds what is no value.
    """
    end, at = _extent(content, at, limit, depth)
    values = []
    while at < end:
        begin, at = at, _skip(content, at, end, depth)
        values.append(content[begin:at])
    return values


def _extent(content: bytes, at: int, limit: int | None, depth: int) -> tuple[int, int]:
    limit = len(content) if limit is None else limit
    if depth > DEEPEST or at + 4 > limit:
        raise Malformed("cannot decode a field table")
    end = at + 4 + _length.unpack_from(content, at)[0]
    if end > limit:
        raise Malformed("cannot decode a field table")
    return end, at + 4


def _skip(content: bytes, at: int, end: int, depth: int) -> int:
    """Return where the value at *at* ends, having looked into it."""
    letter = content[at]
    size = SIZES.get(letter)
    if size is None:
        if letter not in LONG or at + 5 > end:
            raise Malformed("cannot decode a field value")
        size = 4 + _length.unpack_from(content, at + 1)[0]
    after = at + 1 + int(size)
    if after > end:
        raise Malformed("cannot decode a field value")
    if letter == ord("F"):
        read_table(content, at + 1, after, depth + 1)
    elif letter == ord("A"):
        read_array(content, at + 1, after, depth + 1)
    return after


def write_table(fields: Table) -> bytes:
    """Write a table, length first."""
    return sized(b"".join(short(name) + value for name, value in fields.items()))


def sized(content: bytes) -> bytes:
    """Put the length, four octets, before *content*."""
    return _length.pack(len(content)) + content


def short(text: str) -> bytes:
    """Write a short string."""
    octets = text.encode()
    return bytes((len(octets),)) + octets


def is_short(text: str) -> bool:
    """Whether *text* can be written as a short string."""
    return len(text.encode()) <= 255


def kind(value: bytes) -> str:
    """Return the name of the type of *value*, as RabbitMQ's texts have it."""
    return TYPES[chr(value[0])]


def text(value: bytes) -> str:
    """Read a long string; octets that are no UTF-8 become U+FFFD."""
    return value[5:].decode(errors="replace")


def plain(value: bytes) -> Any:
    """Return *value* as pamqp reads it; as it is when pamqp cannot, such as a time after the year 9999."""
    try:
        return decode.embedded_value(value)[1]
    except (ValueError, OverflowError, OSError):
        return value


def longstr(content: str) -> bytes:
    """Write a long string with its letter."""
    return b"S" + sized(content.encode())


def long(number: int) -> bytes:
    """Write a whole number of eight octets with its letter; one that is too large begins at the other end."""
    return b"l" + struct.pack(">Q", number & LARGEST)


def timestamp(seconds: int) -> bytes:
    """Write a point in time with its letter."""
    return b"T" + struct.pack(">Q", seconds)


def array(values: Iterable[bytes]) -> bytes:
    """Write a list of values with its letter."""
    return b"A" + sized(b"".join(values))
