"""Processing against the model: in whatever order people decide, statuses and messages are as it says."""

import secrets
from collections.abc import AsyncIterator
from typing import Any

import anyio
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from flow.codec import Codec
from flow.errors import ConfigError
from flow.plumbing.processing import Processing
from flow.plumbing.submission import Action
from flow.plumbing.submitting import Submitting
from flow.records.database import Database
from flow.records.tables import actions, supporters
from flow.schema import ActionMessage, EventMessage, IdsMessage
from flow.testing.messages import message
from tests.examples import examples
from tests.plumbing.signature_model import Deed, Model, Org
from tests.plumbing.signatures import define, outgoing, signature, statuses, submit, told

pytestmark = pytest.mark.anyio

EMAILS = ["ada@example.org", "ben@example.org"]
TRI = st.sampled_from([None, True, False])
ORGS = st.builds(
    Org,
    name=st.just(""),
    supporter_confirm=st.booleans(),
    action_confirm=st.booleans(),
    campaign_supporter_confirm=TRI,
    campaign_action_confirm=TRI,
    custom_supporter=st.booleans(),
    custom_delivery=st.booleans(),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("sign"), st.sampled_from(EMAILS), st.booleans()),
        st.tuples(st.just("add"), st.sampled_from([None, *EMAILS]), st.booleans()),
        st.tuples(st.just("accept_person"), st.integers(0, 9), st.booleans()),
        st.tuples(st.just("reject_person"), st.integers(0, 9), st.none()),
        st.tuples(st.just("accept_deed"), st.integers(0, 9), st.none()),
        st.tuples(st.just("reject_deed"), st.integers(0, 9), st.none()),
        st.tuples(st.just("email"), st.integers(0, 9), st.sampled_from(["bounce", "unsub", None])),
        st.tuples(st.just("settle"), st.none(), st.none()),
    ),
    min_size=1,
    max_size=14,
)
WITHIN = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    print_blob=True,
)


class Play:
    """The same steps for flow and for the model."""

    def __init__(self, database: Database, org: Org) -> None:
        self.database = database
        self.processing = Processing(database)
        self.org = org
        self.model = Model()
        self.ids: list[int] = []
        self.references: dict[str, str] = {}

    async def step(self, what: str, which: Any, how: Any) -> None:
        if what in ("sign", "add"):
            await self._submit(what, which, how)
        elif what == "settle":
            assert await self.processing.settle() == (0, None)
        elif self.ids:
            deed = self.model.deeds[which % len(self.ids)]
            assert await self._decide(what, deed, how) == self._expected(what, deed, how)

    def _expected(self, what: str, deed: Deed, how: Any) -> str:
        arguments = () if how is None and what != "email" else (how,)
        return str(getattr(self.model, what)(deed, *arguments))

    async def _submit(self, what: str, email: str | None, testing: bool) -> None:
        if what == "sign" and email is not None:
            action = signature(self.org, email, testing=testing)
            self.model.sign(self.org, email, testing)
        else:
            reference = self.references.get(email or "", "nobody") if email else None
            contact = {"contactRef": reference} if reference else None
            page = f"rivers/{self.org.name}"
            action = Action(action_page=page, contact=contact, testing=testing, action_type="share")
            self.model.add(self.org, email, testing)
        [done] = await submit(self.database, action)
        self.ids.append(done.action_id)
        if email and done.contact_ref:
            assert self.references.setdefault(email, done.contact_ref) == done.contact_ref

    async def _decide(self, what: str, deed: Deed, how: Any) -> str:
        id_ = self.ids[deed.number]
        reference = self.references[deed.person.email] if deed.person else "nobody"
        if what == "accept_person":
            answer = await self.processing.accept_supporter(id_, reference, double_opt_in=how)
        elif what == "reject_person":
            answer = await self.processing.reject_supporter(id_, reference)
        elif what == "accept_deed":
            answer = await self.processing.accept_action(id_)
        elif what == "reject_deed":
            answer = await self.processing.reject_action(id_, reference)
        else:
            answer = await self.processing.email_status(id_, how)
        return answer.change

    async def check(self) -> None:
        found = await statuses(self.database)
        for deed, id_ in zip(self.model.deeds, self.ids, strict=True):
            person = deed.person
            expected = (deed.status, person.status if person else None, person.rank if person else None)
            assert found[id_] == expected, (deed, found[id_])
        numbers = {id_: number for number, id_ in enumerate(self.ids)}
        sent = [told(*one, numbers) for one in await outgoing(self.database, self.org.name)]
        assert sent == self.model.sent


@given(org=ORGS, steps=STEPS)
@WITHIN
async def test_statuses_and_messages_are_as_the_model_says(
    database: Database, org: Org, steps: list[tuple[str, Any, Any]]
) -> None:
    org.name = f"org_{secrets.token_hex(6)}"
    await define(database, org)
    play = Play(database, org)

    for step in steps:
        await play.step(*step)
        await play.check()


@pytest.fixture
async def acme(database: Database) -> Org:
    """An organisation that confirms supporters and moderates actions."""
    org = Org("acme", supporter_confirm=True, action_confirm=True)
    await define(database, org)
    return org


@pytest.fixture
async def processing(database: Database) -> AsyncIterator[Processing]:
    return Processing(database)


async def test_a_wrong_reference_is_answered_like_an_action_that_is_not_there(
    database: Database, acme: Org, processing: Processing
) -> None:
    [one] = await submit(database, signature(acme, "ada@example.org"))
    assert one.contact_ref

    for action_id, reference in [(one.action_id, "guessed"), (one.action_id, ""), (999, one.contact_ref)]:
        assert (await processing.accept_supporter(action_id, reference)).change == "unknown"
        assert (await processing.reject_action(action_id, reference)).change == "unknown"
    assert (await statuses(database))[one.action_id][:2] == ("new", "confirming")


async def test_an_unknown_email_status_is_refused(processing: Processing) -> None:
    with pytest.raises(ConfigError, match="must be one of double_opt_in"):
        await processing.email_status(1, "bounced")


async def test_messages_are_read_by_pipelines(database: Database, processing: Processing) -> None:
    org = Org("acme", supporter_confirm=True)
    await define(database, org)
    fields = {"age": 42, "topics": ["rivers"], "comment": "Łódź"}
    tracking = {"source": "newsletter"}
    donation = {"amount": "1250", "currency": "EUR", "payload": {"order": "o-1"}, "provider": "any"}
    more = {"custom_fields": fields, "tracking": tracking, "donation": donation}
    [one] = await submit(database, signature(org, "Ada@Example.org", **more))
    await processing.accept_supporter(one.action_id, str(one.contact_ref), double_opt_in=True)

    codec = Codec((IdsMessage, ActionMessage, EventMessage))
    bodies = []
    raws = [raw for _, _, raw in await outgoing(database, "acme")]
    for raw in raws:
        read = message(raw)
        codec.decode(read)
        bodies.append(read.body)
    ids, action, event = bodies
    assert (ids.supporter_id, ids.action_id, ids.stage) == (
        one.supporter_id,
        one.action_id,
        "supporter_confirm",
    )
    assert (action.contact.email, action.contact.last_name) == ("Ada@Example.org", "Waters")
    assert (action.contact.contact_ref, action.contact.dupe_rank) == (one.contact_ref, 0)
    assert action.action.custom_fields == fields
    assert (action.action.donation.amount, action.action.donation.currency) == (1250, "EUR")
    assert msgspec.json.decode(raws[1])["action"]["donation"] == donation
    assert action.tracking.source == "newsletter"
    assert action.org.name == "acme"
    assert action.privacy.email_status == "double_opt_in"
    assert event.supporter.privacy.email_status == "double_opt_in"
    assert event.supporter.contact.contact_ref == one.contact_ref


async def test_all_who_sign_at_once_get_different_ranks(database: Database) -> None:
    org = Org("acme")
    await define(database, org)
    other = Database(database.url)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(submit, (database, other)[number % 2], signature(org, "ada@example.org"))
    await other.close()

    found = await statuses(database)
    assert sorted(rank for *_, rank in found.values() if rank is not None) == list(range(20))
    assert {status for status, *_ in found.values()} == {"delivered"}
    assert len(await outgoing(database, "acme")) == 20


async def test_all_who_are_accepted_at_once_get_different_ranks(database: Database, acme: Org) -> None:
    several = await submit(database, *[signature(acme, "ada@example.org") for _ in range(20)])
    other = Database(database.url)

    async with anyio.create_task_group() as group:
        for number, one in enumerate(several):
            processing = Processing((database, other)[number % 2])
            group.start_soon(processing.accept_supporter, one.action_id, str(one.contact_ref))
    await other.close()

    ranks = [rank for *_, rank in (await statuses(database)).values() if rank is not None]
    assert sorted(ranks) == list(range(20))


async def test_who_accepts_and_who_rejects_at_once_agree(
    database: Database, acme: Org, processing: Processing
) -> None:
    several = await submit(database, *[signature(acme, f"n{number}@example.org") for number in range(10)])
    other = Database(database.url)
    answers: dict[int, list[str]] = {one.action_id: [] for one in several}

    async def decide(action_id: int, reference: str, way: int) -> None:
        on = Processing((database, other)[way % 2])
        call = on.accept_supporter if way < 2 else on.reject_supporter
        answers[action_id].append((await call(action_id, reference)).change)

    async with anyio.create_task_group() as group:
        for one in several:
            for way in range(4):
                group.start_soon(decide, one.action_id, str(one.contact_ref), way)
    await other.close()

    for one in several:
        assert sorted(answers[one.action_id]) == ["changed", "refused", "refused", "unchanged"]
        assert (await statuses(database))[one.action_id][:2] in [
            ("confirming", "accepted"),
            ("rejected", "rejected"),
        ]
    moderated = [key for _, key, _ in await outgoing(database, "acme") if key == "acme.custom.action"]
    accepted = [found for found in (await statuses(database)).values() if found[1] == "accepted"]
    assert len(moderated) == len(accepted)


async def test_the_same_submission_at_once_is_stored_once(database: Database, acme: Org) -> None:
    other = Database(database.url)

    async with anyio.create_task_group() as group:
        for number in range(10):
            several = [signature(acme, "ada@example.org", submission=f"form-{one}") for one in (1, 2, 1)]
            group.start_soon(submit, (database, other)[number % 2], *several[:: (-1) ** number])
    await other.close()

    assert len(await statuses(database)) == 2
    assert len(await outgoing(database, "acme")) == 2


async def test_what_another_program_left_new_is_settled_once(
    database: Database, acme: Org, processing: Processing
) -> None:
    several = await submit(database, *[signature(acme, f"n{number}@example.org") for number in range(5)])
    async with database.begin() as connection:
        await connection.execute(update(supporters).values(processing_status="accepted"))
        await connection.execute(
            update(actions).where(actions.c.id == several[0].action_id).values(processing_status="accepted")
        )

    first, again = await processing.settle(), await processing.settle()

    assert (first, again) == ((5, None), (0, None))
    found = [status for status, *_ in (await statuses(database)).values()]
    assert sorted(found) == ["confirming"] * 4 + ["delivered"]


async def test_actions_without_a_supporter_are_linked_to_the_one_who_comes(database: Database) -> None:
    org = Org("acme")
    await define(database, org)
    page = "rivers/acme"
    [alone] = await submit(database, Action(action_page=page, action_type="share", submission="early"))
    assert (await statuses(database))[alone.action_id] == ("new", None, None)

    [one] = await submit(database, signature(org, "ada@example.org", links=["early"]))

    assert (await statuses(database))[alone.action_id] == ("delivered", "accepted", 0)
    assert one.supporter_id is not None


async def test_a_wrong_page_is_the_error_of_its_line_alone(database: Database, acme: Org) -> None:
    lines = [Action(action_page="none"), signature(acme, "ada@example.org")]

    wrong, right = await Submitting(database).submit(lines)

    assert "does not exist" in str(wrong)
    assert (await statuses(database)).keys() == {right.action_id}  # type: ignore[union-attr]


@pytest.mark.parametrize("tests", [[True], [True, False], [False, True]])
async def test_news_of_an_address_are_those_of_a_test_only_if_all_was_a_test(
    database: Database, tests: list[bool]
) -> None:
    org = Org("acme")
    await define(database, org)
    [first] = await submit(database, signature(org, "ada@example.org", testing=tests[0]))
    again = {"action_page": "rivers/acme", "contact": {"contactRef": first.contact_ref}}
    for testing in tests[1:]:
        await submit(database, Action(**again, action_type="share", testing=testing))

    await Processing(database).email_status(first.action_id, "bounce")

    body = msgspec.json.decode((await outgoing(database, "acme"))[-1][2], type=EventMessage)
    assert body.action is not None
    assert body.action.testing == all(tests)
