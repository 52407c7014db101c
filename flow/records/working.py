"""Some supporters and their actions in hand: changed together, with the messages that tell of it."""

from collections.abc import Collection
from datetime import datetime
from typing import TYPE_CHECKING

from flow.records import cases, outbox
from flow.records.cases import Case
from flow.records.emitting import email_event, emission
from flow.transitions import ActionStatus, Demands, SupporterStatus, demands, transition

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection


class Work:
    """The cases of some supporters, locked; `finish` writes what is changed here, and its messages."""

    def __init__(
        self, connection: "AsyncConnection", found: list[Case], ranked: dict[tuple[int, str], int]
    ) -> None:
        """Take *found* cases, and how many ranks each contact (campaign, reference) has given out."""
        self._connection = connection
        self._ranked = ranked
        self._actions = {case.action_id: case.action_status for case in found}
        self._supporters = {case.supporter_id: (case.supporter_status, case.dupe_rank) for case in found}
        self._addresses: dict[int, Case] = {}  # whose e-mail status is new
        self.cases = found
        self.changed = 0
        """How many actions have another status, once it is finished."""
        self.emitted = 0
        """How many messages are put into the outbox, once it is finished."""

    @classmethod
    async def begin(cls, connection: "AsyncConnection", supporters: Collection[int]) -> "Work":
        """Lock the rows of *supporters* and of their actions; the locks of their contacts are held."""
        found = await cases.of_supporters(connection, supporters) if supporters else []
        contacts = {(case.campaign_id, case.contact_ref) for case in found}
        return cls(connection, found, await cases.ranked(connection, contacts) if contacts else {})

    def case(self, action_id: int) -> Case | None:
        """Return the case of an action, unless it went to somebody else meanwhile."""
        return next((case for case in self.cases if case.action_id == action_id), None)

    def set_supporter(self, supporter_id: int, status: SupporterStatus) -> None:
        """Give a supporter another status."""
        for case in self._of(supporter_id):
            case.supporter_status = status

    def set_email_status(self, supporter_id: int, status: str | None, at: datetime) -> None:
        """Note what is known of a supporter's address; an event will tell of it. Nothing of the forgotten."""
        for case in self._of(supporter_id):
            if case.forgotten_at is not None:
                continue
            case.email_status, case.email_status_changed_at = status, at
            first = self._addresses.setdefault(supporter_id, case)
            if first.testing and not case.testing:  # nobody may take it for the news of a test
                self._addresses[supporter_id] = case

    async def finish(self, at: datetime) -> None:
        """Apply the table to every case, and write what has changed, *at* that moment."""
        messages = []
        for case in self.cases:
            becomes = transition(case.action_status, case.supporter_status, demanded(case))
            case.action_status = becomes.action
            if becomes.supporter is not None and becomes.supporter != case.supporter_status:
                self.set_supporter(case.supporter_id, becomes.supporter)
            self._rank(case)
            if becomes.emit is not None:
                messages.append(emission(case, becomes.emit))
        messages += [email_event(case) for case in self._addresses.values()]
        await self._write(at)
        await outbox.put(self._connection, messages)
        self.emitted = len(messages)

    def _rank(self, case: Case) -> None:
        """Rank a supporter who is accepted: tests of a form are not counted, so they get no rank."""
        if case.dupe_rank is None and case.supporter_status == "accepted" and not case.testing:
            contact = (case.campaign_id, case.contact_ref)
            rank = self._ranked.get(contact, 0)
            self._ranked[contact] = rank + 1
            for one in self._of(case.supporter_id):
                one.dupe_rank = rank

    async def _write(self, at: datetime) -> None:
        actions: dict[int, ActionStatus] = {}
        supporters: dict[int, tuple[SupporterStatus, int | None]] = {}
        for case in self.cases:
            if case.action_status != self._actions[case.action_id]:
                actions[case.action_id] = case.action_status
            state = (case.supporter_status, case.dupe_rank)
            if state != self._supporters[case.supporter_id]:
                supporters[case.supporter_id] = state
        await cases.update_actions(self._connection, actions, at)
        await cases.update_supporters(self._connection, supporters)
        for supporter_id, case in self._addresses.items():
            await cases.update_email_status(self._connection, supporter_id, case.email_status, at)
        self.changed = len(actions)

    def _of(self, supporter_id: int) -> list[Case]:
        return [case for case in self.cases if case.supporter_id == supporter_id]


def demanded(case: Case) -> Demands:
    """Return what must be confirmed of *case*: what its organisation says, unless its campaign does."""
    own = Demands(supporter=case.supporter_confirm, action=case.action_confirm)
    return demands(own, case.campaign_supporter_confirm, case.campaign_action_confirm)
