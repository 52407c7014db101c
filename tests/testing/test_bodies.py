"""Bodies and messages for tests: as from the campaign server, each different, changed by name."""

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from flow.codec import Codec
from flow.errors import ConfigError
from flow.outcome import Outcome
from flow.pipeline import Pipeline
from flow.schema import EVENT_TYPES, ActionMessage, Contact, EventMessage, IdsMessage
from flow.testing import action, event, ids, message, run_messages
from tests.bodies import sample

EVERY = [action, ids, *(lambda kind=kind: event(kind) for kind in sorted(EVENT_TYPES))]


def test_bodies_are_what_the_codec_reads() -> None:
    kinds = Codec((ActionMessage, EventMessage, IdsMessage))

    for make in EVERY:
        body = make()
        read = message(body)
        kinds.decode(read)
        assert read.body == body
        assert read.raw == msgspec.json.encode(body)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (action, "action"),
        (ids, "ids"),
        *((lambda kind=kind: event(kind), kind) for kind in sorted(EVENT_TYPES)),
    ],
)
def test_bodies_hold_what_those_of_the_server_hold(make: Any, name: str) -> None:
    """No part is in the one and missing in the other."""
    kind = type(make())
    read = message(sample(name))
    Codec((kind,)).decode(read)

    for field in kind.__struct_fields__:
        if getattr(read.body, field) is not None:
            assert getattr(make(), field) is not None, field


def test_every_body_has_another_id_and_another_person() -> None:
    made = [action(), action(), event(), ids()]
    addresses = [one.contact.email for one in made[:2]]  # type: ignore[union-attr]

    assert len({one.action_id for one in made}) == 4
    assert len(set(addresses)) == 2
    assert all(address.endswith("@example.org") for address in addresses if address)


def test_a_change_names_a_field_wherever_it_is() -> None:
    one = action(testing=True, email="ada@example.org", locale="de", country="AT", opt_in=False, source="x")

    assert one.action.testing is True
    assert (one.contact.email, one.contact.country) == ("ada@example.org", "AT")
    assert one.action_page.locale == "de"
    assert one.privacy is not None
    assert one.privacy.opt_in is False
    assert one.tracking is not None
    assert one.tracking.source == "x"
    assert one.contact.address is not None
    assert one.contact.address.country == "IE"


def test_page_org_and_campaign_are_ids_names_or_parts() -> None:
    numbers = action(id=9, page=1, org=2, campaign=3)
    names = action(page="a/b", org="acme", campaign="rivers")
    whole = action(contact=Contact(contact_ref="r"), first_name="Ben", org=None)

    assert (numbers.action_id, numbers.action_page_id, numbers.org_id, numbers.campaign_id) == (9, 1, 2, 3)
    assert (names.action_page.name, names.campaign.name) == ("a/b", "rivers")
    assert names.org is not None
    assert names.org.name == "acme"
    assert whole.contact == Contact(contact_ref="r", first_name="Ben")
    assert whole.org is None


def test_events_are_changed_in_depth() -> None:
    status = event(email_status="unsub", email="ada@example.org")
    updated = event("campaign_updated", title="Clean water now", config={"theme": "blue"})
    unknown = event("not_known_yet")

    assert status.supporter is not None
    assert status.supporter.privacy is not None
    assert status.supporter.contact is not None
    assert status.supporter.privacy.email_status == "unsub"
    assert status.supporter.contact.email == "ada@example.org"
    assert updated.campaign is not None
    assert (updated.campaign.title, updated.campaign.config) == ("Clean water now", {"theme": "blue"})
    assert unknown.event_type == "not_known_yet"


def test_times_and_ids_are_changed() -> None:
    at = datetime(2026, 2, 19, tzinfo=UTC)

    assert action(created_at=at).occurred_at == at
    assert ids(stage="action_confirm", supporter_id=5).supporter_id == 5


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"emial": "x"}, r"action\(\) has no field emial; did you mean email\?"),
        ({"name": "x"}, r"does not know whether name is action_page\.name or campaign\.name or org\.name"),
        ({"testing": "yes"}, r"cannot be read: action\.testing is not true or false"),
        ({"created_at": datetime(2026, 2, 19)}, r"cannot be read: action\.createdAt is not a time with"),
        ({"privacy": None, "opt_in": True}, "there is no privacy to set opt_in in"),
        ({"page": 1.5}, r"cannot be read: actionPage is not an object"),
    ],
)
def test_a_wrong_change_is_told_in_a_sentence(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(TypeError, match=sentence):
        action(**changes)


def test_a_message_can_be_given_to_a_callback() -> None:
    """Without a pipeline it holds what its body is read as; what cannot be read is None."""
    one = message(action(id=7), attempt=2)
    plain = message({"n": 1}, queue="acme.crm")

    assert one.body.action_id == 7
    assert (one.record_id, one.attempt, one.queue, one.headers["x-death"][0]["count"]) == ("7", 2, "test", 1)
    assert one.occurred_at == one.body.action.created_at
    assert (plain.body, plain.queue, plain.routing_key) == ({"n": 1}, "acme.crm", "acme.crm")
    assert message(b"\xff").body is None


def test_a_message_that_no_broker_could_have_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"message\(attempt\) must be a whole number of at least 1, got 0"):
        message(b"", attempt=0)
    with pytest.raises(ValueError, match="at most 255 bytes, got 256"):
        message(b"", routing_key="ä" * 128)


@pytest.mark.anyio
async def test_a_wrong_declared_type_shows() -> None:
    """What a test sends goes through the codec of the pipeline, like everything that is consumed."""

    class Declared(Pipeline[IdsMessage]):
        queue = "acme.crm"

        def handle_message(self, message: Any) -> Any:
            return message.body

    results = await run_messages(Declared(), [action(), message(action()), ids()])

    assert [one.outcome for one in results] == [Outcome.PARKED, Outcome.PARKED, Outcome.DELIVERED]
    assert results[0].reason == "schema proca:action:2 is not read by this pipeline"
