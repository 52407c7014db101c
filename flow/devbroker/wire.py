"""Frames: cut and built with struct; methods off the hot path are read and written by pamqp's tables."""

import struct
from typing import Any

import pamqp.frame
from pamqp.commands import INDEX_MAPPING

from flow.devbroker import tables
from flow.devbroker.errors import ConnectionRefusal, Malformed, octets
from flow.devbroker.message import Message

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE
END_OCTET = b"\xce"
OVERHEAD = 8  # octets of a frame around its content
TOLERANCE = 8  # octets that a frame may be longer than agreed, as some clients forget the overhead
LEAST_FRAME, LARGEST_FRAME = 4096, 131_072
GREETING = b"AMQP\x00\x00\x09\x01"
HEARTBEAT_FRAME = b"\x08\x00\x00\x00\x00\x00\x00\xce"

PUBLISH, ACK, RECOVER_ASYNC = 0x003C0028, 0x003C0050, 0x003C0064  # class and method, as one number
GET_OK = b"\x00\x3c\x00\x47"
NO_ROUTE = b"\x00\x3c\x00\x32\x01\x38\x08NO_ROUTE"  # basic.return with 312 and its text
FIXED = {"octet": ">B", "short": ">H", "long": ">I", "longlong": ">Q", "timestamp": ">Q"}

head_of = struct.Struct(">BHI")
number_of = struct.Struct(">I")
header_of = struct.Struct(">BHIHHQ")
delivery_of = struct.Struct(">Q?")
content_of = struct.Struct(">HHQ")
ack_content_of = struct.Struct(">QB")
ack_of = struct.Struct(">BHIIQ?B")


class Ack:
    """basic.ack, read quickly."""

    __slots__ = ("delivery_tag", "multiple")

    def __init__(self, delivery_tag: int, multiple: bool) -> None:
        self.delivery_tag = delivery_tag
        self.multiple = multiple


def read_ack(content: bytes) -> Ack:
    """Read basic.ack.

    Raises:
        Malformed: it is too short or too long.
    """
    if len(content) != 13:
        raise Malformed(f"cannot decode {octets(content[4:])}")
    tag, bits = ack_content_of.unpack_from(content, 4)
    return Ack(tag, bool(bits & 1))


def read_method(content: bytes) -> Any:
    """Read a method into pamqp's class for it; tables stay as they are, octets.

    Raises:
        Malformed: it is not what its class says.
        ConnectionRefusal: there is no such method.
    """
    if len(content) < 4:
        raise Malformed(f"type 1, all octets = {octets(content)}: unknown_frame")
    number = number_of.unpack_from(content)[0]
    if number == RECOVER_ASYNC:  # pamqp warns of it
        raise ConnectionRefusal(540, "Basic.RecoverAsync is not provided by the development broker")
    kind = INDEX_MAPPING.get(number)
    if kind is None:
        raise ConnectionRefusal(503, "unknown method")
    method: Any = kind()
    try:
        _fill(method, content)
    except (struct.error, IndexError):
        raise Malformed(f"cannot decode {octets(content[4:])}") from None
    except UnicodeDecodeError:
        raise Malformed("Malformed UTF-8 in shortstr") from None
    return method


def _fill(method: Any, content: bytes) -> None:
    """Read the fields of *method* one after the other; bits share an octet."""
    at, bit = 4, 8
    for name in method.__slots__:
        kind = method.amqp_type(name)
        if kind == "bit":
            at, bit = (at + 1, 0) if bit == 8 else (at, bit)
            value: Any = bool(content[at - 1] >> bit & 1)
            bit += 1
        else:
            bit = 8
            at, value = _value(kind, content, at)
        setattr(method, name, value)
    if at != len(content):
        raise IndexError


def _value(kind: str, content: bytes, at: int) -> tuple[int, Any]:
    """Return where the value at *at* ends, and the value."""
    if kind == "table":
        end = tables.read_table(content, at)[1]
        return end, content[at:end]
    if kind in FIXED:
        return at + struct.calcsize(FIXED[kind]), struct.unpack_from(FIXED[kind], content, at)[0]
    size = content[at] if kind == "shortstr" else number_of.unpack_from(content, at)[0]
    begin = at + (1 if kind == "shortstr" else 4)
    if begin + size > len(content):
        raise IndexError
    octets_of = content[begin : begin + size]
    return begin + size, octets_of.decode() if kind == "shortstr" else octets_of


def method_frame(method: Any, channel: int) -> bytes:
    """Write a method that pamqp knows."""
    return pamqp.frame.marshal(method, channel)


def content_frames(head: bytes, channel: int, message: Message, frame_max: int) -> bytes:
    """Write the method whose octets are *head*, and the header and the body of *message* behind it."""
    body = message.body
    size = len(body)
    properties = message.properties
    parts = [
        head_of.pack(METHOD, channel, len(head)),
        head,
        END_OCTET,
        header_of.pack(HEADER, channel, 12 + len(properties), 60, 0, size),
        properties,
        END_OCTET,
    ]
    longest = frame_max - OVERHEAD
    for begin in range(0, size, longest):
        piece = body if size <= longest else body[begin : begin + longest]
        parts += (head_of.pack(BODY, channel, len(piece)), piece, END_OCTET)
    return b"".join(parts)


def ack_frame(channel: int, tag: int, multiple: bool) -> bytes:
    """Write a confirm."""
    return ack_of.pack(METHOD, channel, 13, ACK, tag, multiple, END)
