"""The mailers as processes, on RabbitMQ, the records and a mail server: nobody is mailed twice."""

import json
import os
import signal
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from sqlalchemy import select, update

from flow.broker.url import BrokerUrl
from flow.parking import read_parked
from flow.plumbing.park import opened_park, parked_count
from flow.records.database import Database
from flow.records.tables import claims
from flow.records.tables import ledger as rows
from tests.bodies import changed
from tests.broker.queues import eventually, until
from tests.end_to_end.conftest import Flow, lines
from tests.pipelines.signatures import LOCALES, Signatures
from tests.records.signatures import START
from tests.targets.mail_server import Postbox, mail_server

pytestmark = pytest.mark.anyio

COUNT = int(os.environ.get("FLOW_TEST_MAILS", "60"))
PATIENCE = 30 + COUNT / 5  # seconds; the pipeline sends 20 a second


async def signed(database: Database, count: int, *, confirm: bool) -> list[dict[str, Any]]:
    """Let so many people sign, in three languages; return the messages about them."""
    signatures = Signatures(database, confirm)
    await signatures.define()
    return [
        await signatures.sign(f"supporter{number}@example.org", LOCALES[number % 3])
        for number in range(count)
    ]


async def push(flow: Flow, queue: str, bodies: list[dict[str, Any]]) -> None:
    """Put *bodies* into *queue*."""
    pushed = await flow(
        "push",
        "system.retry",
        queue,
        "-",
        "--lines",
        standard_input=lines([json.dumps(one).encode() for one in bodies]),
    )
    assert pushed.returncode == 0, pushed.stderr


def settings(postbox: Postbox, url: str) -> dict[str, str]:
    return {
        "FLOW_DATABASE_URL": url,
        "MAIL_HOST": "127.0.0.1",
        "MAIL_PORT": str(postbox.port),
        "MAIL_SECURITY": "none",
        "MAIL_SENDER": "mail@example.org",
        "MAIL_LINK_URL": "https://act.example.org",
        "MODERATE_LINK_URL": "https://act.example.org",
        "MODERATE_TO": "moderators@example.org",
        "FLOW_LINK_SECRET": "the-secret-that-signs-links-to-us",
    }


async def parked(url: BrokerUrl) -> Counter[str]:
    """Return the reasons of what is parked."""
    reasons: Counter[str] = Counter()
    async with opened_park(url, 65_535) as park:
        async for message in park.messages():
            reasons[read_parked(message).reason] += 1
    return reasons


async def asked(count: int) -> list[dict[str, Any]]:
    """Return messages about so many actions that a moderator is to decide."""
    return [
        changed("action", "stage", "action_confirm") | {"actionId": number} for number in range(1, count + 1)
    ]


@dataclass(frozen=True, kw_only=True)
class Mailer:
    """A pipeline that mails."""

    target: str
    queue: str
    connections: int
    asks: bool = False
    """It mails moderators, and reads what is in the messages; else supporters, and the records."""

    async def messages(self, database: Database) -> list[dict[str, Any]]:
        confirm = self.target == "pipelines.confirm"
        return await asked(COUNT) if self.asks else await signed(database, COUNT, confirm=confirm)


CONFIRM = Mailer(target="pipelines.confirm", queue="system.email.confirm", connections=2)
THANK_YOU = Mailer(target="pipelines.thank_you", queue="system.email.thankyou", connections=2)
MODERATE = Mailer(target="pipelines.moderate", queue="acme.moderate", connections=1, asks=True)


@pytest.mark.timeout(120 + 3 * PATIENCE)
@pytest.mark.parametrize("mailer", [CONFIRM, THANK_YOU, MODERATE], ids=lambda mailer: mailer.target)
async def test_a_kill_in_the_middle_of_mails_parks_one_for_each_connection_and_mails_nobody_twice(
    flow: Flow, amqp_url: str, tmp_path: Path, mailer: Mailer
) -> None:
    url, database_url = BrokerUrl.parse(amqp_url), f"sqlite:///{tmp_path / 'records.db'}"
    async with Database.opened(database_url) as database, mail_server() as postbox:
        messages = await mailer.messages(database)
        bounced = 0 if mailer.asks else 1
        postbox.recipient = lambda to: "550 5.1.1 unknown" if to == "supporter5@example.org" else None
        assert (await flow("setup", "--queue", mailer.queue, "--retry-delay", "1")).returncode == 0
        await push(flow, mailer.queue, messages)

        def hang_after_ten(envelope: Any) -> None:
            if len(postbox.received) >= 10 and postbox.hang is None:
                postbox.hang = anyio.Event()

        postbox.content = hang_after_ten
        running = await flow.run(mailer.target, **settings(postbox, database_url))
        await until(lambda: postbox.hang is not None)
        await eventually(lambda: sending(database))
        running.signal(signal.SIGKILL)
        await running.end()
        assert postbox.hang is not None
        postbox.hang.set()
        postbox.hang, postbox.content = None, lambda envelope: None
        hung = await sending(database)
        async with database.begin() as connection:  # as if its time had passed
            await connection.execute(update(claims).values(until=START))

        again = await flow.run(mailer.target, **settings(postbox, database_url))
        await eventually(lambda: parked_at_least(url, bounced + hung), PATIENCE)
        await eventually(lambda: decided(database, COUNT), PATIENCE)
        await push(flow, mailer.queue, messages)  # every copy is looked up, whatever the broker says of it
        await eventually(lambda: decided(database, 2 * COUNT - bounced - hung), PATIENCE)
        code = await again.stop()
        async with database.reading() as connection:
            query = select(rows.c.target_id).where(rows.c.outcome == "delivered")
            named = set((await connection.scalars(query)).all())

    assert code == 0, again.lines
    assert 1 <= hung <= mailer.connections
    mails = Counter(one.mail["Message-ID"] for one in postbox.received)
    assert max(mails.values()) == 1
    assert named <= mails.keys()  # what a log of mails calls them
    assert None not in named
    reasons = await parked(url)
    unknown = sum(count for reason, count in reasons.items() if reason.startswith("outcome unknown"))
    assert unknown == 2 * hung  # the copies of these are not sent either
    # The copy of one that bounced was skipped.
    assert reasons["there is no such address, says the mail server (550 5.1.1)"] == bounced
    mailed = {int(identifier.lstrip("<").partition(".")[0]) for identifier in mails}
    assert len({message["actionId"] for message in messages} - mailed) <= bounced + hung


async def sending(database: Database) -> int:
    """Return how many claims are in the middle of their effect."""
    async with database.reading() as connection:
        found = await connection.scalars(select(claims.c.id).where(claims.c.state == "sending"))
        return len(found.all())


async def decided(database: Database, count: int) -> bool:
    """Tell whether the ledger has at least so many rows."""
    async with database.reading() as connection:
        return len((await connection.scalars(select(rows.c.id))).all()) >= count


async def parked_at_least(url: BrokerUrl, count: int) -> bool:
    return await parked_count(url) >= count
