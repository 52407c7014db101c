"""Who decides what the links ask for: the processing of the records."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias

from flow.links import Verb
from flow.plumbing.processing import Answer, Processing
from flow.records import linked
from flow.records.database import Database
from flow.records.linked import Linked

Outcome: TypeAlias = Literal["changed", "unchanged", "refused"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What became of it."""

    supporter: str | None
    """The status of the supporter afterwards."""
    action: str | None
    """The status of the action afterwards."""
    outcome: Outcome
    """`refused`: it had been decided the other way, or does not wait to be decided."""

    @property
    def agreed(self) -> bool:
        """Whether it is now as it was asked for."""
        return self.outcome != "refused"


class Desk(Protocol):
    """Decides about supporters and actions; each decision may be repeated."""

    async def find(self, action_id: int) -> Linked | None:
        """Return the action, or None.

        Raises:
            DatabaseDown: this cannot be done now.
        """

    async def decide_supporter(self, action: Linked, verb: Verb, *, doi: bool) -> Decided | None:
        """Accept or reject the supporter of the action, and with *doi* note the double opt-in.

        Returns None when the action is gone, or has no supporter.

        Raises:
            DatabaseDown: this cannot be done now.
        """

    async def decide_action(self, action: Linked, verb: Verb) -> Decided | None:
        """Accept or reject the action itself.

        Returns None when it is gone, or has no supporter.

        Raises:
            DatabaseDown: this cannot be done now.
        """


class RecordsDesk:
    """Decides in the records."""

    def __init__(self, database: Database, decided: Callable[[], None]) -> None:
        """Work on *database*; *decided* is called after each decision: a message may wait in the outbox."""
        self._database = database
        self._processing = Processing(database)
        self._decided = decided

    async def find(self, action_id: int) -> Linked | None:
        """Return the action, or None."""
        return await linked.find(self._database, action_id)

    async def decide_supporter(self, action: Linked, verb: Verb, *, doi: bool) -> Decided | None:
        """Accept or reject the supporter of the action, and with *doi* note the double opt-in."""
        number, reference = action.action_id, action.contact_ref or ""
        if verb == "accept":
            return self._told(await self._processing.accept_supporter(number, reference, double_opt_in=doi))
        return self._told(await self._processing.reject_supporter(number, reference))

    async def decide_action(self, action: Linked, verb: Verb) -> Decided | None:
        """Accept or reject the action itself."""
        if verb == "accept":
            return self._told(await self._processing.accept_action(action.action_id))
        return self._told(await self._processing.reject_action(action.action_id))

    def _told(self, answer: Answer) -> Decided | None:
        self._decided()
        if answer.change == "unknown":
            return None
        return Decided(supporter=answer.supporter, action=answer.action, outcome=answer.change)
