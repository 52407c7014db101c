"""What is submitted belongs to the page and the organisation that it says, and to nobody else."""

from datetime import UTC, datetime

import anyio
import pytest
from nacl.public import PrivateKey

from flow.errors import DecodeError
from flow.plumbing.processing import Processing
from flow.plumbing.submission import Action, ActionPage
from flow.plumbing.submitting import Submitted, Submitting
from flow.records.cases import contact_lock
from flow.records.database import Database
from flow.records.forgetting import by_id, forget
from flow.records.locking import hold
from tests.end_to_end.campaigning import text
from tests.plumbing.signature_model import Org
from tests.plumbing.signatures import define, outgoing, signature, statuses, submit

pytestmark = pytest.mark.anyio


@pytest.fixture
async def acme(database: Database) -> Org:
    """An organisation whose campaign another one has joined, with a page of its own."""
    acme, brook = Org("acme"), Org("brook")
    for org in (acme, brook):
        await define(database, org)
    page = ActionPage(name="joined/brook", campaign="rivers_acme", organisation="brook")
    await Submitting(database).define(page)
    return acme


@pytest.mark.parametrize("together", [True, False])
async def test_a_submission_of_another_page_is_an_error_and_no_repetition(
    database: Database, acme: Org, together: bool
) -> None:
    """Two organisations number their forms alike: the second signature must not be lost in silence."""
    one = signature(acme, "ada@example.org", submission="1")
    other = signature(Org("brook"), "ben@example.org", submission="1")
    batches = [[one, other, one]] if together else [[one], [other], [one]]

    first, wrong, again = [result for batch in batches for result in await Submitting(database).submit(batch)]

    assert isinstance(first, Submitted)
    assert str(wrong) == "its submission is that of an action on another page: give it a name of its own"
    assert isinstance(wrong, DecodeError)
    assert again == Submitted(first.action_id, first.supporter_id, first.contact_ref, None)
    assert (await statuses(database)).keys() == {first.action_id}


async def test_a_reference_of_another_organisation_finds_nobody(database: Database, acme: Org) -> None:
    """What one organisation knows of a person is not told to another."""
    [known] = await submit(database, signature(acme, "ada@example.org"))

    named = Action(action_page="joined/brook", contact={"contactRef": known.contact_ref})
    [stranger] = await submit(database, named)

    assert stranger.supporter_id is None
    assert (await statuses(database))[stranger.action_id] == ("new", None, None)
    assert await outgoing(database, "brook") == []


async def test_actions_of_another_organisation_are_not_taken_over(database: Database, acme: Org) -> None:
    [theirs] = await submit(database, Action(action_page="joined/brook", submission="early"))

    await submit(database, signature(acme, "ada@example.org", links=["early"]))

    assert (await statuses(database))[theirs.action_id] == ("new", None, None)
    assert await outgoing(database, "brook") == []


async def erase(database: Database, supporter_id: int) -> None:
    async with database.begin() as connection:
        person = await by_id(connection, supporter_id)
        assert person is not None
        await forget(connection, person, datetime.now(UTC))


async def test_of_who_is_forgotten_nothing_is_noted_any_more(database: Database, acme: Org) -> None:
    """An old link may be followed, and an old mail may come back."""
    [one] = await submit(database, signature(acme, "ada@example.org"))
    sent = len(await outgoing(database, "acme"))
    assert one.supporter_id is not None
    await erase(database, one.supporter_id)
    processing = Processing(database)

    accepted = await processing.accept_supporter(one.action_id, str(one.contact_ref), double_opt_in=True)
    bounced = await processing.email_status(one.action_id, "bounce")

    assert (accepted.change, bounced.change) == ("unchanged", "unchanged")
    assert len(await outgoing(database, "acme")) == sent - 1  # the delivery was erased with the person


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_forgetting_waits_for_who_adds_an_action_of_the_same_person(
    database: Database, acme: Org
) -> None:
    """Else the action would come to somebody who is forgotten, with what it tells of them."""
    [one] = await submit(database, signature(acme, "ada@example.org"))
    assert one.supporter_id is not None
    done = anyio.Event()

    async def erasing() -> None:
        await erase(database, one.supporter_id or 0)
        done.set()

    async with anyio.create_task_group() as tasks, database.begin() as connection:
        await hold(connection, "contact", [contact_lock(1, str(one.contact_ref))])
        tasks.start_soon(erasing)
        with anyio.move_on_after(1.0):
            await done.wait()
        assert not done.is_set()
    assert done.is_set()


async def test_what_is_closed_for_an_organisation_is_in_no_message(database: Database) -> None:
    brook, key = (
        Org("brook", supporter_confirm=True, custom_supporter=True, encrypted=True),
        PrivateKey.generate(),
    )
    await define(database, brook, text(bytes(key.public_key)))
    [one] = await submit(database, signature(brook, "ada@example.org"))
    await Processing(database).accept_supporter(one.action_id, str(one.contact_ref), double_opt_in=True)

    bodies = [body for *_, body in await outgoing(database, "brook")]

    assert len(bodies) == 3  # to be confirmed, delivered, and the news of the address
    for body in bodies:
        assert b"Ada" not in body
        assert b"example.org" not in body
        assert b'"payload"' in body
