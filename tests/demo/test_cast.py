"""Who is in the story: everybody has one part, and all of them appear in each organisation that has it."""

from collections import Counter
from itertools import islice

import msgspec

from flow.demo.cast import Poison, Role, Signature, cast, number_of, role, signature
from flow.demo.organisations import ACME, SADY
from flow.plumbing.submission import Action, read

FEW = list(islice(cast(), 303))
SIGNATURES = [one for one in FEW if isinstance(one, Signature)]


def test_after_each_hundred_comes_what_nobody_can_read() -> None:
    poison = [one for one in FEW if isinstance(one, Poison)]

    assert [one.id for one in poison] == ["poison-1", "poison-2", "poison-3"]
    assert [one.number for one in SIGNATURES] == list(range(1, 301))


def test_every_role_appears_where_it_is_played() -> None:
    roles = {party: Counter(one.role for one in SIGNATURES if one.party is party) for party in (ACME, SADY)}

    assert set(roles[ACME]) == set(Role)
    assert set(roles[SADY]) == set(Role) - {Role.BOUNCING, Role.GREYLISTED}  # nobody there gets such mail
    assert roles[ACME].total() == 200
    assert roles[ACME][Role.SIGNER] > 100


def test_it_is_what_can_be_submitted() -> None:
    """What the demo submits would be taken by `flow submit` as a line, too."""
    for one in SIGNATURES:
        line = read(msgspec.json.encode(one.action))
        assert isinstance(line, Action)
        assert line.testing is (one.role is Role.TESTER)
        assert number_of(one.email) == one.number


def test_the_same_number_is_the_same_signature() -> None:
    assert signature(14) == signature(14)
    assert signature(14).role is role(14) is Role.GREYLISTED


def test_other_addresses_have_no_number() -> None:
    assert number_of("moderators@example.org") == number_of("supporter+x@example.org") == 0
