"""Addresses that do not exist: noted in the records, and told to who wants to know."""

from flow.errors import DatabaseError
from flow.outcome import Retry
from flow.plumbing.processing import Processing
from flow.records.database import Database
from flow.records.mailing import Recipient

BOUNCE = "bounce"


class Bounces:
    """Notes bounces; an `email_status` event in the outbox tells of each."""

    def __init__(self, database: Database | None) -> None:
        """Take the records; None: there is nowhere to note it."""
        self._processing = None if database is None else Processing(database)

    async def note(self, to: Recipient) -> None:
        """Note that mail to *to* bounces, if the records know them; noting it again changes nothing.

        Raises:
            Retry: it cannot be noted now.
        """
        if self._processing is None or to.supporter_id is None:
            return
        try:
            await self._processing.email_status(to.action_id, BOUNCE, to.contact_ref)
        except DatabaseError as error:
            raise Retry(f"the address bounces, which cannot be noted: {error}") from None
