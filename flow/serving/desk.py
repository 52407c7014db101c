"""What the pages ask of the records, and what they are told."""

from dataclasses import dataclass
from typing import Protocol

from flow.links import Verb


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An action that somebody may decide about; nothing in it is personal but the reference."""

    action_id: int
    contact_ref: str | None
    """None: the action has no supporter."""
    organisation: str
    locale: str
    campaign: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What became of it."""

    supporter: str | None
    """The status of the supporter afterwards."""
    action: str
    """The status of the action afterwards."""
    agreed: bool
    """Whether it is now as it was asked for; False: it had been decided the other way."""


class Desk(Protocol):
    """Decides about supporters and actions; each decision may be repeated."""

    async def find(self, action_id: int) -> Found | None:
        """Return the action, or None.

        Raises:
            DatabaseDown: this cannot be done now.
        """

    async def decide_supporter(self, action_id: int, verb: Verb, *, doi: bool) -> Decided:
        """Accept or reject the supporter of the action, and with *doi* note the double opt-in.

        Raises:
            DatabaseDown: this cannot be done now.
        """

    async def decide_action(self, action_id: int, verb: Verb) -> Decided:
        """Accept or reject the action itself.

        Raises:
            DatabaseDown: this cannot be done now.
        """
