"""Invented messages: always the same ones, and readable, except where they are not meant to be."""

import pytest

from flow.codec import Codec
from flow.demo import signatures
from flow.errors import DecodeError
from flow.schema import ActionMessage, EventMessage, IdsMessage
from tests.messages import MemoryOrigin

CODEC = Codec((ActionMessage, EventMessage, IdsMessage))


def test_the_same_numbers_give_the_same_signatures_in_any_order() -> None:
    forwards = [signatures.action(number, seed=4) for number in range(50)]
    backwards = [signatures.action(number, seed=4) for number in reversed(range(50))]

    assert forwards == backwards[::-1]
    assert forwards != [signatures.action(number, seed=5) for number in range(50)]


def test_signatures_are_of_many_languages_pages_and_organisations() -> None:
    made = [signatures.action(number) for number in range(500)]

    assert len({one["actionPage"]["locale"] for one in made}) == len(signatures.PAGES)
    assert len({(one["actionPageId"], one["orgId"]) for one in made}) == len(signatures.PAGES)
    assert {one["org"]["name"] for one in made} == {name for name, _ in signatures.ORGANISATIONS.values()}
    assert {one["privacy"]["optIn"] for one in made} == {True, False, None}
    assert all(one["contact"]["email"].endswith("@example.org") for one in made)


def test_every_signature_is_read() -> None:
    for number, body in enumerate(signatures.bodies(range(500))):
        message = MemoryOrigin().message(body)
        CODEC.decode(message)
        assert message.record_id == str(number)
        assert message.occurred_at is not None


def test_ids_and_events_are_read_and_belong_to_the_signature() -> None:
    signed = signatures.action(7)
    for made in (signatures.ids(7), signatures.email_status(7)):
        message = MemoryOrigin().message(signatures.body(made))
        CODEC.decode(message)
        assert message.body.action_page_id == signed["actionPageId"]
        assert message.body.org_id == signed["orgId"]
    CODEC.decode(MemoryOrigin().message(signatures.body(signatures.campaign_updated())))


@pytest.mark.parametrize("number", range(len(signatures.POISON)))
def test_poison_is_never_read(number: int) -> None:
    with pytest.raises(DecodeError):
        CODEC.decode(MemoryOrigin().message(signatures.poison(number)))
