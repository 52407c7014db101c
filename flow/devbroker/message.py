"""A message, and its place in a queue."""

from typing import Literal

from flow.devbroker import properties
from flow.devbroker.tables import Table, short

Settling = Literal["ack", "reject", "requeue", "return", "duplicate"]
"""How a delivery was settled: what the client decided, or "return": nothing, and its channel has ended.

"duplicate" settles nothing: the message was delivered a second time on purpose.
"""


class Message:
    """What was published: shared by all queues that hold it, and never changed.

    Nothing but octets is kept: a million small messages should fit in memory.
    """

    __slots__ = ("address", "body", "properties")

    def __init__(self, address: bytes, properties: bytes, body: bytes) -> None:
        """Keep *address*, exchange and routing key as on the wire, *properties*, flags first, and *body*."""
        self.address = address
        self.properties = properties
        self.body = body

    @property
    def exchange(self) -> str:
        """The exchange that it was published to."""
        return self.address[1 : 1 + self.address[0]].decode()

    @property
    def key(self) -> str:
        """The routing key that it was published with."""
        return self.address[2 + self.address[0] :].decode()

    @property
    def message_id(self) -> str | None:
        """The AMQP message id, or None."""
        return properties.shortstr(properties.cut(self.properties), properties.MESSAGE_ID)

    @property
    def headers(self) -> Table:
        """The header table; empty when there is none."""
        return properties.headers(properties.cut(self.properties))


def address(exchange: str, key: str) -> bytes:
    """Write exchange and routing key as they stand in publish, deliver, return and get-ok."""
    return short(exchange) + short(key)


class Entry:
    """A message in a queue."""

    __slots__ = ("deadline", "message", "place", "returns")

    def __init__(self, message: Message, place: int, deadline: float | None) -> None:
        """Put *message* at *place*, until *deadline* (seconds of the broker's clock; None: for ever)."""
        self.message = message
        self.place = place
        self.deadline = deadline
        self.returns = 0  # how often it was delivered and came back
