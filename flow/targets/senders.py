"""From which address an organisation's mails go out, and how many a second each address may have."""

import time
from collections.abc import Callable, Hashable, Iterable
from typing import Any

from flow.errors import DatabaseDown
from flow.message import Message
from flow.outcome import Unavailable
from flow.ratelimit import RateLimit
from flow.records.database import Database
from flow.records.mailing import own_senders
from flow.targets.addresses import Mailbox, sender

KEPT = 60.0  # seconds for which the sender of an organisation is not asked for again
SPREAD = 10.0  # seconds over which the mails of one batch are spread, at most: a drain waits for them


class Senders:
    """The addresses from which organisations send; several may have the same."""

    def __init__(
        self, database: Database | None, usual: Mailbox, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Take the records, and the *usual* address of all organisations that have none of their own."""
        self._now = now
        self._database = database
        self._usual = usual
        self._known: dict[int, tuple[Mailbox, float]] = {}

    async def look_up(self, org_ids: Iterable[int | None]) -> None:
        """Look those up that are not known yet, or were looked up more than a minute ago: by one query.

        Raises:
            Unavailable: the database does not answer.
        """
        now = self._now()
        wanted = {one for one in org_ids if one is not None and self._looked_up(one) < now - KEPT}
        if self._database is None or not wanted:
            return
        try:
            found = await own_senders(self._database, wanted)
        except DatabaseDown as error:
            raise Unavailable(str(error)) from None
        for one in wanted:
            own = sender(found.get(one) or "")
            self._known[one] = (self._usual if own is None else own[1]), now

    def of(self, org_id: int | None) -> str:
        """Return the address of an organisation as it was when it was looked up."""
        known = None if org_id is None else self._known.get(org_id)
        return (self._usual if known is None else known[0]).text

    def _looked_up(self, org_id: int) -> float:
        known = self._known.get(org_id)
        return float("-inf") if known is None else known[1]


def check_rate(name: str, rate: float | None) -> None:
    """Check the *rate* in the setting *name*.

    Raises:
        ValueError: it is no number above 0.
    """
    if rate is not None and not 0 < rate < float("inf"):
        raise ValueError(f"{name} must be a number above 0, got {rate:g}")


def paced(
    usual: RateLimit | None,
    rate: float | None,
    key: Callable[[Message[Any]], Hashable] | None = None,
) -> RateLimit | None:
    """Return the *usual* limit of a pipeline with the *rate* that a setting gives, by *key*.

    A limit that has a key keeps it, unless there is a *rate*; None, no limit at all, stays None.
    """
    if usual is None:
        return None
    if rate is not None:
        return RateLimit(messages=rate, per=1.0, key=key)
    return RateLimit(calls=usual.calls, messages=usual.messages, per=usual.per, key=usual.key or key)


def gap(limit: RateLimit | None, count: int) -> float:
    """Return the seconds between the beginnings of *count* mails that *limit* has let go at once."""
    if limit is None or limit.messages is None or count < 1:
        return 0.0
    return min(limit.per / limit.messages, SPREAD / count)
