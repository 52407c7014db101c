"""The mails of one batch: over one connection, in the pace of their sender, and what becomes of each."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio

from flow.batch import Batch
from flow.message import Message
from flow.outcome import Reject, Retry, Skip, Unavailable
from flow.targets.letters import Letter
from flow.targets.smtp import Sending, SmtpConnection

BATCH = 90.0  # seconds in which mails of a batch are begun; with the last one it ends within 300
LATEST = 600.0  # seconds until a mail is tried again, at most


class MailSession:
    """The mails of one batch, over one connection as long as the server keeps it."""

    def __init__(self, connection: SmtpConnection, gap: float = 0.0, *, patience: float = BATCH) -> None:
        """Take a connection, not opened yet, and the seconds from the beginning of one mail to the next.

        After *patience* seconds no mail is begun any more.
        """
        self._connection = connection
        self._gap = gap
        self._next = time.monotonic()
        self._deadline = self._next + patience

    async def send(self, letter: Letter, sending: Sending | None = None) -> None:
        """Hand in *letter*; *sending* surrounds the moments in which its fate is not known.

        Raises:
            Unavailable: the server is away, or too slow for the whole batch.
            Retry: not now.
            Bounced: there is no such address.
            OutcomeUnknown: it was given to the server, whose reply was never heard; never send it again.
            Reject: the server will not take it.
        """
        if time.monotonic() > self._deadline:
            raise Unavailable("the mail server is too slow for the whole batch")
        await self._turn()
        connection = self._connection
        if not connection.is_open:
            await connection.open()
        try:
            await self._hand_in(letter, sending)
        except (Retry, Unavailable):
            # Servers close a connection that has brought many mails: that says nothing of this one.
            if connection.is_open or connection.begun or not connection.sent:
                raise
            await connection.open()
            await self._hand_in(letter, sending)

    async def _turn(self) -> None:
        """Wait until the next mail may be begun."""
        now = time.monotonic()
        if self._next > now:
            await anyio.sleep(self._next - now)
        self._next = max(self._next, now) + self._gap

    async def _hand_in(self, letter: Letter, sending: Sending | None) -> None:
        await self._connection.send(
            letter.mail_from, letter.to, letter.content, utf8=letter.utf8, sending=sending
        )


@contextmanager
def deciding(batch: Batch[Any], message: Message[Any], soonest: float) -> Iterator[None]:
    """Let a verdict raised within decide *message* alone; a target that is away still decides all.

    What is to be tried again without a time of its own waits *soonest* seconds, then twice as long, at most
    ten minutes: servers that do not know a sender yet ask for some patience.
    """
    try:
        yield
    except Skip as verdict:
        batch.skip(message, verdict.reason)
    except Retry as verdict:
        patience = min(soonest * 2 ** min(message.attempt - 1, 10), LATEST)
        batch.retry(message, verdict.reason, patience if verdict.after is None else verdict.after)
    except Reject as verdict:
        batch.reject(message, verdict.reason)
