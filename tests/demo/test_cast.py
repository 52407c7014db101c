"""Who is in the story: everybody has one part, and all of them appear."""

from collections import Counter
from itertools import islice

import pytest

from flow.codec import Codec
from flow.demo.cast import Role, Sent, cast
from flow.errors import DecodeError
from flow.outcome import Outcome
from flow.schema import ActionMessage
from tests.messages import MemoryOrigin

FEW = list(islice(cast(), 404))


def read(sent: Sent) -> ActionMessage:
    message = MemoryOrigin().message(sent.body())
    Codec((ActionMessage,)).decode(message)
    body: ActionMessage = message.body
    return body


def test_each_message_has_an_id_of_its_own_and_every_role_appears() -> None:
    roles = Counter(sent.role for sent in FEW)

    assert len({sent.id for sent in FEW}) == 404
    assert roles == {Role.SIGNER: 380, Role.BUSY: 8, Role.TESTER: 8, Role.REFUSED: 4, Role.POISON: 4}


def test_the_role_is_in_the_message() -> None:
    for sent in FEW:
        if sent.role is Role.POISON:
            with pytest.raises(DecodeError):
                read(sent)
            continue
        body = read(sent)
        assert sent.id == f"action-{body.action_id}"
        assert body.action.testing is (sent.role is Role.TESTER)


def test_every_role_has_an_end() -> None:
    ends = {role: role.outcome for role in Role}

    assert ends == {
        Role.SIGNER: Outcome.DELIVERED,
        Role.BUSY: Outcome.DELIVERED,
        Role.TESTER: Outcome.SKIPPED,
        Role.REFUSED: Outcome.PARKED,
        Role.POISON: Outcome.PARKED,
    }
