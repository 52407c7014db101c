"""The account at the end finds what is missing, doubled, or where it should not be."""

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from flow.demo.cast import Poison, Role, Signature, signature
from flow.demo.ends import SQS, THANKS, expected
from flow.demo.evidence import Evidence
from flow.demo.explanation import Explanation
from flow.demo.organisations import ACME, SADY, Party
from flow.records.standings import Standing

MANY = [signature(number) for number in range(1, 400)]
GOOD_POISON = {THANKS: "empty", SQS: "empty", "acme.crm": "empty"}


def one(role: Role, party: Party = ACME, *, thanked: bool = True, opt_in: bool = True) -> Signature:
    """Return a signature of the cast that is as it is asked for."""
    return next(
        found
        for found in MANY
        if (found.role, found.party) == (role, party)
        and (found.action.privacy.with_consent and found.page in party.thankful) is thanked
        and (found.action.privacy.opt_in is True) is opt_in
    )


# By the id of the action: the ids are other ones than the numbers of the signatures.
CAST = {
    1: one(Role.SIGNER),
    2: one(Role.SIGNER, thanked=False, opt_in=False),
    3: one(Role.BUSY),
    4: one(Role.SILENT),
    5: one(Role.REJECTING),
    6: next(found for found in MANY if found.role is Role.BOUNCING),
    7: next(found for found in MANY if found.role is Role.TESTER and found.party is ACME),
    8: next(found for found in MANY if found.role is Role.REFUSED and found.party is SADY),
    9: one(Role.SIGNER, SADY),
    10: next(found for found in MANY if found.role is Role.SILENT and found.party is SADY),
    11: next(found for found in MANY if found.role is Role.REJECTING and found.party is SADY),
    12: next(found for found in MANY if found.role is Role.TESTER and found.party is SADY),
}
STATUS = {
    **dict.fromkeys((1, 2, 3, 8, 9), ("delivered", "accepted")),
    **dict.fromkeys((4, 6, 7), ("new", "confirming")),
    5: ("rejected", "rejected"),
    **dict.fromkeys((10, 12), ("confirming", "accepted")),
    11: ("rejected", "accepted"),
}
REFUSED_THANKED = CAST[8].action.privacy.with_consent and CAST[8].page in SADY.thankful
GOOD = Evidence(
    standings={number: Standing(number, None, *STATUS[number]) for number in CAST},
    confirm_mails=Counter([1, 2, 3, 4, 5]),
    moderation_mails=Counter([8, 9, 10, 11]),
    thank_you_mails=Counter([1, 3, 9, *([8] if REFUSED_THANKED else [])]),
    crm=Counter([1, 2, 3, 9]),
    crm_news=Counter([1, 3, 6]),
    sqs=Counter([1, 2, 3]),
    sqs_news=Counter([1, 3, 6]),
    parked={
        6: {"system.email.confirm": "there is no such address"},
        8: {"sady.crm": "invalid"},
        "poison-1": GOOD_POISON,
    },
    skipped={
        2: {THANKS: "there is no consent"},
        7: {"system.email.confirm": "a test action"},
        12: {"sady.moderate": "a test action"},
        **({} if REFUSED_THANKED else {8: {THANKS: "there is no consent"}}),
    },
    retried=frozenset({3}),
)


def explained(**changed: Any) -> Explanation:
    return Explanation(CAST, [Poison(1)], replace(GOOD, **changed))


def test_each_signature_is_explained_by_where_it_ended() -> None:
    found = explained()

    assert found.unexplained == {}
    assert found.complete
    words = [" ".join(line.split()) for line in found.lines()]
    assert words[:10] == [
        "submitted 12 7 to acme, 5 to sady",
        "confirmed 3 acme: by a link in their mail",
        "rejected 1 acme: by a link in their mail",
        "waiting 1 acme: the mail is there, nobody followed its links",
        "not asked 2 acme: 1 only tried the form out, 1 have no such address",
        "accepted 2 sady: by a link in the moderator's mail",
        "rejected 1 sady: by a link in the moderator's mail",
        "waiting 1 sady: the mail is there, nobody followed its links",
        "not asked 1 sady: 1 only tried the form out",
        "told the CRM 4 1 of them after more than one attempt; and 3 news of addresses",
    ]
    assert words[-2:] == ["done twice 0", "unexplained 0"]
    assert max(len(line) for text in found.lines() for line in text.split("\n")) <= 80


def without(counter: Counter[int], number: int) -> Counter[int]:
    return Counter({one: times for one, times in counter.items() if one != number})


def more(counter: Counter[int], number: int) -> Counter[int]:
    return counter + Counter([number])


CHANGES: dict[str, tuple[Callable[[], dict[str, Any]], str, str]] = {
    "the CRM was not told": (
        lambda: {"crm": without(GOOD.crm, 1)},
        "action-1",
        "crm 0 instead of 1",
    ),
    "told twice": (lambda: {"crm": more(GOOD.crm, 1)}, "action-1", "crm 2 instead of 1"),
    "mailed twice": (
        lambda: {"confirm_mails": more(GOOD.confirm_mails, 4)},
        "action-4",
        "confirm mails 2 instead of 1",
    ),
    "thanked without consent": (
        lambda: {"thank_you_mails": more(GOOD.thank_you_mails, 2)},
        "action-2",
        "thank you mails 1 instead of 0",
    ),
    "forwarded twice": (lambda: {"sqs": more(GOOD.sqs, 3)}, "action-3", "sqs 2 instead of 1"),
    "delivered without a click": (
        lambda: {"crm": more(GOOD.crm, 7)},
        "action-7",
        "crm 1 instead of 0",
    ),
    "lost from the park": (
        lambda: {"parked": {one: why for one, why in GOOD.parked.items() if one != 8}},
        "action-8",
        "parked nowhere instead of sady.crm",
    ),
    "poison lost from one queue": (
        lambda: {"parked": {**GOOD.parked, "poison-1": {SQS: "", THANKS: ""}}},
        "poison-1",
        "not parked from acme.crm",
    ),
    "the status is wrong": (
        lambda: {"standings": {**GOOD.standings, 5: Standing(5, None, "delivered", "accepted")}},
        "action-5",
        "status delivered accepted instead of rejected rejected",
    ),
    "not in the records": (
        lambda: {"standings": {n: one for n, one in GOOD.standings.items() if n != 9}},
        "action-9",
        "it is not in the records",
    ),
    "never submitted": (lambda: {"crm": more(GOOD.crm, 99)}, "action-99", "nobody submitted it"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_is_not_explained_is_told_and_named(what: str) -> None:
    change, name, sentence = CHANGES[what]

    found = explained(**change())

    assert not found.complete
    assert list(found.unexplained) == [name]
    assert sentence in found.unexplained[name]
    assert f"    {name}: {found.unexplained[name]}" in list(found.lines())
    assert found.twice == ({name} if "twice" in what else set())


def test_somebody_who_looks_at_the_mails_may_follow_a_link() -> None:
    silent = CAST[4]

    accepted, rejected = (expected(silent, status) for status in ("delivered accepted", "rejected rejected"))

    assert (accepted.crm, accepted.sqs, accepted.confirm_mails) == (1, 1, 1)
    assert (rejected.crm, rejected.sqs, rejected.confirm_mails) == (0, 0, 1)


def test_a_second_copy_in_the_park_is_no_second_message() -> None:
    found = explained(copies=1)

    assert found.complete
    assert "  parked twice       1   the confirm of a copy was lost with the connection" in list(
        found.lines()
    )
