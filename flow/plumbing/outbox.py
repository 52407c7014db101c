"""Publishes the outbox: each message stays in it until the broker has confirmed it."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Protocol

import anyio

from flow.errors import BrokerError, FlowError, NotFound, NoVirtualHost, PublishFailed
from flow.plumbing.processing import Now
from flow.records import outbox
from flow.records.database import Database
from flow.records.outbox import Claimed

BATCH = 200  # messages that are claimed, published and taken out together
LEASE = 120.0  # seconds after which a claim is void: its holder has crashed
DEADLINE = 30.0  # seconds until a message must be confirmed
AGAIN = 30.0  # seconds until a message that was refused is tried again


class Publishing(Protocol):
    """What publishes with confirms, such as `flow.broker.publisher.Publisher`."""

    async def publish(
        self,
        exchange: str,
        routing_key: str,
        body: bytes,
        *,
        message_id: str | None = None,
        deadline: float = DEADLINE,
    ) -> None:
        """Return once the broker has confirmed the message, or raise a `BrokerError`."""


@dataclass(slots=True)
class Account:
    """What became of the messages that were claimed."""

    published: int = 0
    """Confirmed by the broker."""
    refused: Counter[str] = field(default_factory=Counter)
    """Not taken by the broker, by reason; they are kept and tried again."""
    fault: FlowError | None = None
    """Why the rest was left: the broker was lost, or the database."""


class Outbox:
    """Publishes what is in the outbox of a database; any number of them may work on one at once.

    A message is published at least once, and every time with the same `message_id`: after a crash between
    the broker's confirm and the note of it, it is published a second time.
    """

    def __init__(
        self,
        database: Database,
        publisher: Publishing,
        *,
        now: Now = lambda: datetime.now(UTC),
        lease: float = LEASE,
        again: float = AGAIN,
    ) -> None:
        """Take messages from *database* to *publisher*.

        *lease*: seconds that a message which was claimed by a process that crashed waits for another;
        longer than a publish may take. *again*: seconds until what the broker refused is tried again.
        """
        self._database = database
        self._publisher = publisher
        self._now = now
        self._lease = timedelta(seconds=lease)
        self._again = timedelta(seconds=again)

    async def publish(self, *, refused_too: bool = False) -> Account:
        """Publish all that is due; end early when the broker is lost.

        With *refused_too* what was refused before is tried at once, before its time.

        Raises:
            DatabaseError: the database failed; claims of messages that it holds run out by themselves.
        """
        account = Account()
        after = 0 if refused_too else None
        while account.fault is None:
            now = self._now()
            until = now + self._lease
            claimed = await outbox.claim(self._database, now, until, BATCH, refused_after=after)
            if not claimed:
                break
            after = None if after is None else max(after, claimed[-1].id)
            await self._publish(claimed, account)
        return account

    async def _publish(self, claimed: Sequence[Claimed], account: Account) -> None:
        confirmed: list[int] = []
        refused: dict[int, str] = {}

        async def one(message: Claimed) -> None:
            try:
                await self._publisher.publish(
                    message.exchange, message.routing_key, message.body, message_id=message.message_id
                )
            except NoVirtualHost as error:  # which is no word on this message
                account.fault = account.fault or error
            except (PublishFailed, NotFound) as error:
                refused[message.id] = str(error)
            except BrokerError as error:
                account.fault = account.fault or error
            else:
                confirmed.append(message.id)

        try:
            async with anyio.create_task_group() as group:
                for message in claimed:
                    group.start_soon(one, message)
        finally:
            # Also when it is cancelled: what is known is noted, and nobody waits for the rest.
            with anyio.CancelScope(shield=True):
                account.published += await outbox.confirm(self._database, confirmed, self._now())
                await outbox.refuse(self._database, refused, self._now() + self._again)
                known = {*confirmed, *refused}
                await outbox.release(self._database, [one.id for one in claimed if one.id not in known])
        account.refused.update(refused.values())
