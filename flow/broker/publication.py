"""One message on its way out: checked and complete before anything is sent."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import uuid4

from pamqp.commands import Basic
from pamqp.header import ContentHeader

from flow.errors import PublishFailed

LONGEST_NAME = 255  # bytes of an AMQP short string
LONGEST_KEY = 128  # bytes of a header's name; RabbitMQ cuts longer ones
LARGEST_NUMBER = 2**63
FRAME_OVERHEAD = 8
PERSISTENT = 2

Headers = Mapping[str, str | int | bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Publication:
    """A body with its exchange, its routing key and its properties."""

    exchange: str
    routing_key: str
    body: bytes = field(repr=False)
    message_id: str
    headers: Headers = field(repr=False)
    content_type: str
    deadline: float
    """Seconds within which it must be confirmed."""

    def properties(self) -> Basic.Properties:
        """Return the properties, made for this one publish: the library writes into them."""
        return Basic.Properties(
            content_type=self.content_type,
            headers=dict(self.headers),
            delivery_mode=PERSISTENT,
            message_id=self.message_id,
        )

    def check_size(self, largest_frame: int) -> None:
        """Check that the properties fit into one frame; RabbitMQ closes the connection over a larger one.

        Raises:
            PublishFailed: they do not.
        """
        size = len(ContentHeader(body_size=len(self.body), properties=self.properties()).marshal())
        if largest_frame and size + FRAME_OVERHEAD > largest_frame:
            raise PublishFailed(
                f"The headers of a message for {self.destination} must fit {largest_frame - FRAME_OVERHEAD} "
                f"bytes together, got {size}: shorten them"
            )

    @property
    def destination(self) -> str:
        """The exchange and the routing key, as they are named in sentences."""
        exchange = f"exchange {self.exchange}" if self.exchange else "the default exchange"
        return f"{exchange} with the key {self.routing_key}"


def publication(
    exchange: str,
    routing_key: str,
    body: bytes,
    headers: Headers | None,
    message_id: str | None,
    content_type: str,
    deadline: float,
) -> Publication:
    """Make a publication; text that UTF-8 cannot hold is escaped, as in `\\udcff`.

    Raises:
        PublishFailed: a name, a header or a value is of a kind or size that cannot be sent.
    """
    names = {"exchange": exchange, "routing key": routing_key, "content type": content_type}
    if message_id is not None:
        names["message id"] = message_id
    for what, text in names.items():
        if len(writable(text).encode()) > LONGEST_NAME:
            raise PublishFailed(f"The {what} of a message must fit {LONGEST_NAME} bytes, got {text[:40]}…")
    return Publication(
        exchange=writable(exchange),
        routing_key=writable(routing_key),
        body=body,
        message_id=writable(message_id) if message_id else uuid4().hex,
        headers={writable(name): checked(name, value) for name, value in (headers or {}).items()},
        content_type=writable(content_type),
        deadline=deadline,
    )


def checked(name: str, value: object) -> str | int | bool:
    """Return *value* as it is sent in the header *name*."""
    if len(writable(name).encode()) > LONGEST_KEY:
        raise PublishFailed(f"The name of a header must fit {LONGEST_KEY} bytes, got {name[:40]}…")
    if isinstance(value, str):
        return writable(value)
    if isinstance(value, int) and -LARGEST_NUMBER <= value < LARGEST_NUMBER:
        return value
    kind = type(value).__name__
    raise PublishFailed(
        f"The header {name} must be a text, a whole number of 64 bits or a truth value, got {kind}"
    )


def writable(text: str) -> str:
    """Escape what UTF-8 cannot hold: bytes that came with surrogates."""
    return text.encode("utf-8", "backslashreplace").decode()
