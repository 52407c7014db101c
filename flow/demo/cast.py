"""Who is in the story: what is submitted, in which order, and what shall become of it."""

from collections.abc import Iterator
from enum import Enum
from itertools import count
from typing import NamedTuple

import msgspec

from flow.demo import signatures
from flow.demo.organisations import ACME, SADY, Party
from flow.plumbing.submission import Action

EVERY = 100  # so many signatures come before each message that nobody can read


class Role(Enum):
    """What is special about a signature."""

    SIGNER = "signed"
    BUSY = "signed; the CRM takes it at the third attempt only"
    GREYLISTED = "signed; the mail server takes the first mail at the second attempt only"
    SILENT = "nobody follows the link"
    REJECTING = "rejected"
    BOUNCING = "there is no such address"
    TESTER = "somebody tried the form out"
    REFUSED = "signed; the CRM will never take it"


class Signature(NamedTuple):
    """One submission."""

    number: int
    role: Role
    party: Party
    page: int
    action: Action

    @property
    def email(self) -> str:
        """The address of who signed."""
        return self.action.email or ""


class Poison(NamedTuple):
    """A message that nobody can read, published by some other sender."""

    number: int

    @property
    def id(self) -> str:
        """Its message id."""
        return f"poison-{self.number}"

    @property
    def body(self) -> bytes:
        """What is published."""
        return signatures.poison(self.number)


def role(number: int) -> Role:
    """Return the role of the signature with this *number*, from 1."""
    mailed = party(number).supporter_confirm
    if number % 100 == 50:
        return Role.REFUSED
    if number % 50 == 25:
        return Role.TESTER
    if number % 40 == 10:
        return Role.BUSY
    if mailed and number % 60 == 32:
        return Role.BOUNCING
    if mailed and number % 30 == 14:
        return Role.GREYLISTED
    if number % 14 == 6:
        return Role.REJECTING
    return Role.SILENT if number % 10 == 3 else Role.SIGNER


def party(number: int) -> Party:
    """Return the organisation of the signature with this *number*: of every three the third is Sady's."""
    return SADY if number % 3 == 0 else ACME


def signature(number: int) -> Signature:
    """Return the signature with this *number*; the same one each time."""
    part, whose = role(number), party(number)
    made = signatures.action(number, testing=part is Role.TESTER)
    known = made["contact"]
    person = {name: known[name] for name in known if name not in ("contactRef", "dupeRank")}
    privacy = made["privacy"]
    page = whose.pages[number // 3 % len(whose.pages)]
    line = {
        "actionPage": whose.page(page),
        "actionType": made["action"]["actionType"],
        "submission": submission(number),
        "testing": part is Role.TESTER,
        "customFields": made["action"]["customFields"],
        "contact": person,
        "privacy": {"withConsent": privacy["withConsent"], "optIn": privacy["optIn"]},
        "tracking": made["tracking"],
    }
    return Signature(number, part, whose, page, msgspec.convert(line, Action))


def submission(number: int) -> str:
    """Return what the signature with this *number* is called in the records."""
    return f"demo-{number}"


def number_of(email: str) -> int:
    """Return the number of the signature with this address; 0: of none."""
    number = email.removeprefix("supporter+").removesuffix("@example.org")
    return int(number) if number.isascii() and number.isdecimal() else 0


def cast() -> Iterator[Signature | Poison]:
    """Yield signatures without end, and after each hundred of them a message that nobody can read."""
    for number in count(1):
        yield signature(number)
        if number % EVERY == 0:
            yield Poison(number // EVERY)
