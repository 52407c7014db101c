"""A message on its way in: put together from its frames, and checked."""

import re

from flow.devbroker import deadletter, properties, tables, wire
from flow.devbroker.arguments import LONGEST_TIME
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal, Malformed, octets
from flow.devbroker.message import Message
from flow.devbroker.properties import Properties

LARGEST_BODY = 134_217_728  # octets; the limit of RabbitMQ 3.10
COPIED = (b"\x02CC", b"\x03BCC")
MANDATORY, IMMEDIATE = 1, 2


class Incoming:
    """Collects publish, header and body of one message of a channel."""

    def __init__(self) -> None:
        self._address = b""
        self._flags = 0
        self._properties = b""
        self._found: Properties = {}
        self._parts: list[bytes] = []
        self._missing = -1  # octets of the body; -1: no message has begun
        self._headed = False

    @property
    def begun(self) -> bool:
        """Whether a message is in the middle."""
        return self._missing >= 0

    def check_none(self) -> None:
        """Check that no message is in the middle.

        Raises:
            ConnectionRefusal: one is, and what came is no part of it.
        """
        if self._missing >= 0:
            wanted = "content body" if self._headed else "content header for class 60"
            what = "body" if self._headed else "header"
            raise ConnectionRefusal(505, f"expected {wanted}, got non content {what} frame instead")

    def begin(self, content: bytes) -> None:
        """Take basic.publish."""
        size = len(content)
        middle = 7 + content[6] if size > 6 else size
        end = middle + 1 + content[middle] if size > middle else size
        if end + 1 != size:
            raise Malformed(f"cannot decode {octets(content[4:])}")
        self._address = content[6:end]
        self._flags = content[end]
        if not content.isascii():
            try:
                self._address[1 : middle - 6].decode()
                self._address[middle - 5 :].decode()
            except UnicodeDecodeError:
                raise Malformed("Malformed UTF-8 in shortstr") from None
        self._missing = 0
        self._headed = False

    def header(self, content: bytes) -> bool:
        """Take the content header; return whether the message is whole."""
        if self._missing < 0:
            raise ConnectionRefusal(505, "expected method frame, got non method frame instead")
        if self._headed:
            self.check_none()
        if len(content) < 14:
            raise Malformed(f"type 2, all octets = {octets(content)}: unknown_frame")
        kind, _, size = wire.content_of.unpack_from(content)
        if kind != 60:
            raise ConnectionRefusal(
                505, f"expected content header for class 60, got one for class {kind} instead"
            )
        if size > LARGEST_BODY:
            raise ChannelRefusal(
                406, f"message size {size} is larger than configured max size {LARGEST_BODY}"
            )
        self._properties = content[12:]
        self._found = properties.cut(self._properties)
        self._parts = []
        self._missing = size
        self._headed = True
        return bool(size == 0)

    def body(self, content: bytes) -> bool:
        """Take a piece of the body; return whether the message is whole."""
        if self._missing < 0:
            raise ConnectionRefusal(505, "expected method frame, got non method frame instead")
        if not self._headed:
            self.check_none()
        self._parts.append(content)
        self._missing -= len(content)
        if self._missing < 0:
            raise ConnectionRefusal(505, "the body is longer than its header says")
        return self._missing == 0

    def end(self) -> None:
        """Be ready for the next message."""
        self._missing = -1

    def finish(self) -> tuple[Message, bool, Properties]:
        """Return the message, whether it is mandatory, and its properties.

        Raises:
            ConnectionRefusal: it should be immediate, which RabbitMQ does not know either.
        """
        if self._flags & IMMEDIATE:
            raise ConnectionRefusal(540, "immediate=true")
        body = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
        message = Message(self._address, self._properties, body)
        return message, bool(self._flags & MANDATORY), self._found


def expiration(found: Properties, user: str) -> float | None:
    """Return how many seconds a message lives, None: no limit; check that the *user* it names is its own.

    Raises:
        ChannelRefusal: one of them is wrong.
    """
    named: str | None = properties.shortstr(found, properties.USER_ID)
    if named is not None and named != user:
        raise ChannelRefusal(406, f"user_id property set to '{named}' but authenticated user was '{user}'")
    text = properties.shortstr(found, properties.EXPIRATION)
    if text is None:
        return None
    number = re.match(r"[+-]?\d+", text)
    if number is None:
        why = "no_integer"
    elif number.end() < len(text):
        why = f'{{leftover_string,"{text[number.end() :]}"}}'
    elif int(text) < 0:
        why = f"{{value_negative,{int(text)}}}"
    elif int(text) > LONGEST_TIME:
        why = f"{{value_too_large,{int(text)}}}"
    else:
        return int(text) / 1000
    raise ChannelRefusal(406, f"invalid expiration '{text}': {why}")


def routing_keys(message: Message) -> tuple[Message, list[str]]:
    """Return the message without BCC, and its routing keys: its own, and those in the headers CC and BCC.

    Raises:
        ChannelRefusal: one of these is no list.
    """
    if not any(name in message.properties for name in COPIED):
        return message, [message.key]
    found = properties.cut(message.properties)
    headers = properties.headers(found)
    for name in ("CC", "BCC"):
        value = headers.get(name)
        if value is not None and value[:1] != b"A":
            why = f'{{unacceptable_type_in_header,"{name}",{tables.kind(value)}}}'
            raise ChannelRefusal(406, f"invalid message: {why}")
    keys = [message.key, *deadletter.copies(headers), *deadletter.copies(headers, "BCC")]
    if headers.pop("BCC", None) is not None:
        found[properties.HEADERS] = tables.write_table(headers)
        message = Message(message.address, properties.join(found), message.body)
    return message, keys
