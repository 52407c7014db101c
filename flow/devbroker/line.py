"""What a channel knows of the connection that it is on."""

from typing import Protocol

from flow.devbroker import faults
from flow.devbroker.handshake import Handshake


class Confirming(Protocol):
    """A channel, as far as its connection confirms for it."""

    def confirm(self) -> None:
        """Answer what was published in this burst."""


class Line(faults.Line, Protocol):
    """The connection of a channel."""

    faults: faults.Faults
    published: bool

    @property
    def agreed(self) -> Handshake:
        """What the client and the broker agreed on."""

    @property
    def writable(self) -> bool:
        """Whether it takes more deliveries at this time."""

    @property
    def wants_cancels(self) -> bool:
        """Whether the client understands basic.cancel from the broker."""

    def write(self, frames: bytes) -> None:
        """Send *frames* with the next burst."""

    def confirm_later(self, channel: Confirming) -> None:
        """Call `channel.confirm` at the end of the burst."""
