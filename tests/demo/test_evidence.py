"""What is found at each place is counted for the action that it is about."""

from collections import Counter

import pytest

from flow.demo.broker import InPark
from flow.demo.crm_server import CrmServer
from flow.demo.evidence import of_crm, of_ledger, of_mails, of_park
from flow.demo.mail_sink import Mail
from flow.demo.people import MODERATORS
from flow.records.standings import Deed, Standing


def mail(action_id: int, to: str, *links: str) -> Mail:
    return Mail(number=1, to=to, subject="", action_id=action_id, message_id="", links=links)


def test_mails_are_told_apart_by_whom_they_ask() -> None:
    link = "http://127.0.0.1/link/s/7/accept/x"

    found = of_mails(
        [
            mail(7, "supporter+1@example.org", link),
            mail(7, "supporter+1@example.org"),
            mail(8, MODERATORS, link),
        ]
    )

    assert found == (Counter([7]), Counter([8]), Counter([7]))


@pytest.mark.anyio
async def test_news_of_an_address_belong_to_the_signature_with_its_number() -> None:
    contact = {"contact": {"email": "supporter+3@example.org"}}
    async with CrmServer() as crm:
        crm.store.apply([{"id": one, **contact} for one in ("action-17", "status-abc", "status-abc")])

        found = of_crm(crm, [Standing(17, "demo-3", "delivered", "accepted")])

    assert found == (Counter([17]), Counter([17, 17]))


def test_copies_in_the_park_are_counted_beside() -> None:
    found = [
        InPark("a.crm", 7, "invalid"),
        InPark("a.crm", 7, "invalid"),
        InPark("system.sqs", "poison-1", "empty"),
    ]

    assert of_park(found) == ({7: {"a.crm": "invalid"}, "poison-1": {"system.sqs": "empty"}}, 1)


def test_events_that_are_skipped_say_nothing_of_the_signature() -> None:
    found = [Deed("q", "7", "skipped", "an event"), Deed("q", "8", "skipped", "there is no consent")]

    assert of_ledger(found) == {8: {"q": "there is no consent"}}
