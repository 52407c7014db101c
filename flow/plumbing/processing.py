"""Decisions about signatures: each status changes together with the message that tells of it."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, TypeAlias

from flow.errors import ConfigError
from flow.records import cases
from flow.records.cases import Case
from flow.records.database import Database
from flow.records.locking import hold
from flow.records.working import Work
from flow.transitions import ActionStatus, SupporterStatus

Change: TypeAlias = Literal["changed", "unchanged", "refused", "unknown"]
Now: TypeAlias = Callable[[], datetime]

EMAIL_STATUSES = ("double_opt_in", "bounce", "blocked", "spam", "unsub")
AGAIN = 1000  # actions that are looked at in one transaction of a sweep


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of a decision."""

    change: Change
    """`changed`; `unchanged`: so it was; `refused`: too late or too early; `unknown`: no such action."""
    sentence: str
    action: ActionStatus | None = None
    supporter: SupporterStatus | None = None


UNKNOWN = Answer(change="unknown", sentence="there is no such action")


class Processing:
    """Decisions about signatures in the records; every one can be repeated, and says what happened.

    A status and the message that tells of it are one transaction: publishing the outbox is another's work.
    """

    def __init__(self, database: Database, *, now: Now = lambda: datetime.now(UTC)) -> None:
        """Work on *database*, which is open."""
        self._database = database
        self._now = now

    async def accept_supporter(
        self, action_id: int, contact_ref: str, *, double_opt_in: bool = False
    ) -> Answer:
        """Accept the supporter of an action, and process all of their actions that wait.

        With *double_opt_in* they also confirmed that they want to be written to, which is noted and told.
        A wrong *contact_ref* is answered like an action that does not exist.

        Raises:
            DatabaseError: it could not be done.
        """

        def accept(work: Work, case: Case) -> str:
            if why := {"new": TOO_EARLY, "rejected": REJECTED}.get(case.supporter_status):
                return why
            work.set_supporter(case.supporter_id, "accepted")
            if double_opt_in and case.email_status != "double_opt_in":
                work.set_email_status(case.supporter_id, "double_opt_in", self._now())
            return ""

        return await self._decide(action_id, contact_ref, "supporter", "accepted", accept)

    async def reject_supporter(self, action_id: int, contact_ref: str) -> Answer:
        """Reject the supporter of an action, and all of their actions that wait.

        Raises:
            DatabaseError: it could not be done.
        """

        def reject(work: Work, case: Case) -> str:
            if why := {"new": TOO_EARLY, "accepted": ACCEPTED}.get(case.supporter_status):
                return why
            work.set_supporter(case.supporter_id, "rejected")
            return ""

        return await self._decide(action_id, contact_ref, "supporter", "rejected", reject)

    async def accept_action(self, action_id: int, contact_ref: str | None = None) -> Answer:
        """Accept an action that is being moderated, and deliver it. A *contact_ref* must be right, if given.

        Raises:
            DatabaseError: it could not be done.
        """

        def accept(_: Work, case: Case) -> str:
            if why := {"new": TOO_EARLY, "rejected": REJECTED}.get(case.action_status):
                return why
            if case.action_status == "confirming":
                if case.supporter_status != "accepted":
                    return TOO_EARLY
                case.action_status = "accepted"
            return ""

        return await self._decide(action_id, contact_ref, "action", "accepted", accept)

    async def reject_action(self, action_id: int, contact_ref: str | None = None) -> Answer:
        """Reject an action that was not delivered. A *contact_ref* must be right, if given.

        Raises:
            DatabaseError: it could not be done.
        """

        def reject(_: Work, case: Case) -> str:
            if case.action_status in ("accepted", "delivered"):
                return ACCEPTED
            case.action_status = "rejected"
            return ""

        return await self._decide(action_id, contact_ref, "action", "rejected", reject)

    async def email_status(
        self, action_id: int, status: str | None, contact_ref: str | None = None
    ) -> Answer:
        """Note what is known of the address of an action's supporter; an event tells of the change.

        Raises:
            ConfigError: there is no such status.
            DatabaseError: it could not be done.
        """
        if status is not None and status not in EMAIL_STATUSES:
            raise ConfigError(f"an e-mail status must be one of {', '.join(EMAIL_STATUSES)}, got {status!r}")

        def note(work: Work, case: Case) -> str:
            if case.email_status != status:
                work.set_email_status(case.supporter_id, status, self._now())
            return ""

        return await self._decide(action_id, contact_ref, "e-mail status", "noted", note)

    async def settle(self, after: int = 0) -> tuple[int, int | None]:
        """Apply the table to actions beyond the id *after* that are not as they stay, such as imported ones.

        Returns how many got another status, and the id to go on after; None: there are no more.

        Raises:
            DatabaseError: it could not be done.
        """
        async with self._database.reading() as connection:  # mostly there are none: keep no writer waiting
            found = await cases.unsettled(connection, after, AGAIN)
        if not found:
            return 0, None
        async with self._database.begin() as connection:
            await hold(connection, "contact", [one.lock for one in found])
            supporters = {one.supporter_id for one in found if one.supporter_id is not None}
            work = await Work.begin(connection, supporters)
            await work.finish(self._now())
        return work.changed, found[-1].action_id if len(found) == AGAIN else None

    async def _decide(
        self,
        action_id: int,
        contact_ref: str | None,
        what: str,
        done: str,
        decide: Callable[[Work, Case], str],
    ) -> Answer:
        """Lock everything of the supporter of an action, *decide*, and write what follows.

        *decide* changes the case, or returns why it does not. Nothing is known of an action without a
        supporter, or with another reference.
        """
        async with self._database.begin() as connection:
            found = await cases.find(connection, action_id)
            if found is None or found.supporter_id is None or not _same(found.contact_ref, contact_ref):
                return UNKNOWN
            await hold(connection, "contact", [found.lock])
            work = await Work.begin(connection, [found.supporter_id])
            case = work.case(action_id)
            if case is None:
                return UNKNOWN
            before = _state(case)
            if why := decide(work, case):
                return _answer(case, "refused", f"the {what} {why}")
            await work.finish(self._now())
        if _state(case) == before and not work.changed and not work.emitted:
            return _answer(case, "unchanged", f"the {what} was {done} before")
        return _answer(case, "changed", f"the {what} is {done}")


TOO_EARLY = "does not wait to be confirmed"
ACCEPTED = "was accepted before"
REJECTED = "was rejected before"


def _state(case: Case) -> tuple[str | None, ...]:
    return case.action_status, case.supporter_status, case.email_status


def _answer(case: Case, change: Change, sentence: str) -> Answer:
    return Answer(
        change=change, sentence=sentence, action=case.action_status, supporter=case.supporter_status
    )


def _same(known: str | None, given: str | None) -> bool:
    """Whether the reference is right, in a time that does not tell how much of it is."""
    return given is None or hmac.compare_digest((known or "").encode(), given.encode())
