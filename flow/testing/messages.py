"""Messages for tests, with the properties that a broker would give them."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias, TypeVar, overload

from msgspec import Struct

from flow.codec import Codec
from flow.errors import DecodeError
from flow.message import Message, routed
from flow.options import whole
from flow.outcome import Skip
from flow.testing.origin import MemoryOrigin, encoded

Body: TypeAlias = Struct | Mapping[str, Any] | bytes | str
"""A body in a test: a Struct or an object, which are sent as JSON, or the bytes or the text as they are."""

S = TypeVar("S", bound=Struct)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unsent:
    """What is known of a message before it is in a queue."""

    raw: bytes
    attempt: int
    redelivered: bool = False
    headers: Mapping[str, Any] | None = None
    message_id: str | None = None
    queue: str | None = None
    routing_key: str | None = None

    def deliver(self, origin: MemoryOrigin, received_at: float) -> Message[Any]:
        """Return a delivery of it through *origin*."""
        return origin.message(
            self.raw,
            received_at=received_at,
            redelivered=self.redelivered,
            attempt=self.attempt,
            headers=self.headers,
            message_id=self.message_id,
            routing_key=self.routing_key,
        )


class Nowhere(MemoryOrigin):
    """Where a message comes from that a test has made and not run."""

    def __init__(self, unsent: Unsent) -> None:
        super().__init__(unsent.queue or "test")
        self.unsent = unsent


@overload
def message(
    body: S,
    *,
    attempt: int = 1,
    redelivered: bool = False,
    headers: Mapping[str, Any] | None = None,
    message_id: str | None = None,
    queue: str | None = None,
    routing_key: str | None = None,
) -> Message[S]: ...
@overload
def message(
    body: Mapping[str, Any] | bytes | str,
    *,
    attempt: int = 1,
    redelivered: bool = False,
    headers: Mapping[str, Any] | None = None,
    message_id: str | None = None,
    queue: str | None = None,
    routing_key: str | None = None,
) -> Message[Any]: ...
def message(
    body: Body,
    *,
    attempt: int = 1,
    redelivered: bool = False,
    headers: Mapping[str, Any] | None = None,
    message_id: str | None = None,
    queue: str | None = None,
    routing_key: str | None = None,
) -> Message[Any]:
    """Make a message with *body*, for `run_messages` or for calling a callback with it.

    `Message.body` is *body* once written as JSON and read again, None if it cannot be read. In
    `run_messages` it is decoded anew, as the pipeline declares it, and the message may be run many times.

    Args:
        body: a Struct or a mapping, sent as JSON; bytes and text are sent as they are.
        attempt: which attempt it is, from 1; above that the headers tell of rejections.
        redelivered: whether the broker has delivered it before.
        headers: its header table. Defaults to an empty one.
        message_id: its AMQP message id. Defaults to None.
        queue: the queue it comes from. None: the pipeline's; "test" outside of `run_messages`.
        routing_key: what it was published with. None: the name of the queue.

    Raises:
        ConfigError: *attempt* is below 1.
        TypeError: the body cannot be written as JSON.
        ValueError: *queue* or *routing_key* is too long.
    """
    whole("message(attempt)", attempt)
    for name in (queue, routing_key):
        routed(name or "")
    unsent = Unsent(
        raw=encoded(body),
        attempt=attempt,
        redelivered=redelivered,
        headers=headers,
        message_id=message_id,
        queue=queue,
        routing_key=routing_key,
    )
    made = unsent.deliver(Nowhere(unsent), received_at=0.0)
    with suppress(DecodeError, Skip):
        codec(type(body) if isinstance(body, Struct) else dict).decode(made)
    return made


@lru_cache(maxsize=64)
def codec(kind: type) -> Codec:
    """Return what reads bodies as *kind*."""
    return Codec((kind,))


def unsent(body: Body | Message[Any], attempt: int) -> Unsent:
    """Return what is to be sent: *body* for the *attempt*, or a message of `message` as it was made.

    Raises:
        TypeError: it is a message from elsewhere, or cannot be written as JSON.
    """
    if not isinstance(body, Message):
        return Unsent(raw=encoded(body), attempt=attempt)
    if not isinstance(body.origin, Nowhere):
        raise TypeError(f"run_messages takes bodies, and messages made by flow.testing.message, got {body!r}")
    return body.origin.unsent
