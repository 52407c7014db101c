"""Decisions about signatures: each status changes together with the message that tells of it."""

import hmac
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

from flow.errors import ConfigError
from flow.records import cases
from flow.records.cases import Case
from flow.records.database import Database
from flow.records.locking import hold
from flow.records.working import Work
from flow.transitions import ActionStatus, SupporterStatus

if TYPE_CHECKING:
    from flow.records.cases import Connection

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
    processed: int = 0
    """How many actions have another status now: a supporter who is accepted takes all that wait along."""
    emitted: int = 0
    """How many messages were put into the outbox."""


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
        async with self._case(action_id, contact_ref) as (work, case):
            if work is None or case is None:
                return UNKNOWN
            status = case.supporter_status
            if status in ("new", "rejected"):
                return _refused(case, "supporter", TOO_EARLY if status == "new" else "was rejected before")
            work.set_supporter(case.supporter_id, "accepted")
            if double_opt_in and case.email_status != "double_opt_in":
                work.set_email_status(case.supporter_id, "double_opt_in", self._now())
            return await self._finished(work, case, "supporter", "accepted", changed=status != "accepted")

    async def reject_supporter(self, action_id: int, contact_ref: str) -> Answer:
        """Reject the supporter of an action, and all of their actions that wait.

        Raises:
            DatabaseError: it could not be done.
        """
        async with self._case(action_id, contact_ref) as (work, case):
            if work is None or case is None:
                return UNKNOWN
            status = case.supporter_status
            if status in ("new", "accepted"):
                return _refused(case, "supporter", TOO_EARLY if status == "new" else "was accepted before")
            work.set_supporter(case.supporter_id, "rejected")
            return await self._finished(work, case, "supporter", "rejected", changed=status != "rejected")

    async def accept_action(self, action_id: int, contact_ref: str | None = None) -> Answer:
        """Accept an action that is being moderated, and deliver it. A *contact_ref* must be right, if given.

        Raises:
            DatabaseError: it could not be done.
        """
        async with self._case(action_id, contact_ref) as (work, case):
            if work is None or case is None:
                return UNKNOWN
            status = case.action_status
            if status == "rejected":
                return _refused(case, "action", "was rejected before")
            if status == "new" or (status == "confirming" and case.supporter_status != "accepted"):
                return _refused(case, "action", TOO_EARLY)
            if status == "confirming":
                case.action_status = "accepted"
            return await self._finished(work, case, "action", "accepted", changed=status == "confirming")

    async def reject_action(self, action_id: int, contact_ref: str | None = None) -> Answer:
        """Reject an action that was not delivered. A *contact_ref* must be right, if given.

        Raises:
            DatabaseError: it could not be done.
        """
        async with self._case(action_id, contact_ref) as (work, case):
            if work is None or case is None:
                return UNKNOWN
            status = case.action_status
            if status in ("accepted", "delivered"):
                return _refused(case, "action", "was accepted before")
            case.action_status = "rejected"
            return await self._finished(work, case, "action", "rejected", changed=status != "rejected")

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
        async with self._case(action_id, contact_ref) as (work, case):
            if work is None or case is None:
                return UNKNOWN
            changed = case.email_status != status
            if changed:
                work.set_email_status(case.supporter_id, status, self._now())
            return await self._finished(work, case, "e-mail status", "noted", changed=changed)

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

    @asynccontextmanager
    async def _case(
        self, action_id: int, contact_ref: str | None
    ) -> "AsyncIterator[tuple[Work, Case] | tuple[None, None]]":
        """Lock everything of the supporter of an action; nothing when it has none, or another reference."""
        async with self._database.begin() as connection:
            found = await cases.find(connection, action_id)
            if found is None or found.supporter_id is None or not _same(found.contact_ref, contact_ref):
                yield None, None
                return
            work = await _locked(connection, found)
            case = work.case(action_id)
            if case is None:
                yield None, None
            else:
                yield work, case

    async def _finished(self, work: Work, case: Case, what: str, done: str, *, changed: bool) -> Answer:
        await work.finish(self._now())
        changed = changed or work.changed > 0 or work.emitted > 0
        return Answer(
            change="changed" if changed else "unchanged",
            sentence=f"the {what} is {done}" if changed else f"the {what} was {done} before",
            action=case.action_status,
            supporter=case.supporter_status,
            processed=work.changed,
            emitted=work.emitted,
        )


TOO_EARLY = "does not wait to be confirmed"


async def _locked(connection: "Connection", found: cases.Found) -> Work:
    await hold(connection, "contact", [found.lock])
    return await Work.begin(connection, [] if found.supporter_id is None else [found.supporter_id])


def _refused(case: Case, what: str, why: str) -> Answer:
    return Answer(
        change="refused",
        sentence=f"the {what} {why}",
        action=case.action_status,
        supporter=case.supporter_status,
    )


def _same(known: str | None, given: str | None) -> bool:
    """Whether the reference is right, in a time that does not tell how much of it is."""
    return given is None or hmac.compare_digest((known or "").encode(), given.encode())
