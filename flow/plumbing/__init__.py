"""What is done to the plumbing besides consuming: set it up, push into it, look after parked messages."""

from flow.plumbing.plumbing import Plumbing
from flow.plumbing.push import Outgoing, Unconfirmed

__all__ = ["Outgoing", "Plumbing", "Unconfirmed"]
