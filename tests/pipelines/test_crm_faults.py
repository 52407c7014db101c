"""What becomes of signatures when the CRM does not play along."""

import logging

import anyio
import pytest

from flow.demo.crm_server import CrmServer
from flow.demo.crm_store import Faults
from flow.outcome import Retry, Unavailable, Verdict
from tests.pipelines.conftest import TOKEN, Desk, OpenDesk, signature, told

pytestmark = pytest.mark.anyio

CANARIES = [TOKEN, "canary@example.org", "Kanarienvogel"]


async def test_results_are_matched_by_id_and_not_by_place(crm: CrmServer, desk: Desk) -> None:
    crm.faults = Faults(
        invalid={"action-1": "no_such_country"},
        busy={"action-2": 1},
        busy_after=45.0,
        missing={"action-3": 1},
        stray=["action-77"],
    )

    ok, invalid, busy, missing, last = await desk.deliver(*(signature(number) for number in range(5)))

    assert ok is None
    assert last is None
    assert told(invalid) == ("Reject", "the CRM calls it invalid: no_such_country")
    assert told(busy) == ("Retry", "the CRM does not take it now")
    assert isinstance(busy, Retry)
    assert busy.after == 45.0
    assert told(missing) == ("Retry", "the CRM did not say what became of it")
    assert set(crm.records) == {"action-0", "action-4"}


async def test_an_unknown_status_of_an_item_is_retried(crm: CrmServer, desk: Desk) -> None:
    crm.faults = Faults(
        answer='[{"id": "action-7", "status": "perhaps"}, {"id": "action-8", "status": "ok"}]'
    )

    perhaps, ok = await desk.deliver(signature(7), signature(8))

    assert told(perhaps) == ("Retry", "the CRM does not take it now")
    assert ok is None


@pytest.mark.parametrize(
    "reason", ["canary@example.org is no address", "Kanarienvogel", "+49 30 123", "x" * 41, ""]
)
async def test_a_reason_of_the_crm_is_repeated_only_when_it_is_a_code(
    crm: CrmServer, desk: Desk, reason: str
) -> None:
    crm.faults = Faults(invalid={"action-7": reason})

    [verdict] = await desk.deliver(signature(7))

    assert told(verdict) == ("Reject", "the CRM calls it invalid")


async def test_the_id_of_an_item_is_the_same_at_every_attempt(crm: CrmServer, desk: Desk) -> None:
    crm.faults = Faults(reset=1)

    [broken] = await desk.deliver(signature(7), attempt=1)
    [done] = await desk.deliver(signature(7), attempt=2)

    assert isinstance(broken, Retry)
    assert done is None
    assert crm.effects == {"action-7": 2}  # told twice under one id: an idempotent CRM applies it once
    assert list(crm.records) == ["action-7"]


async def test_the_key_of_a_call_is_repeated_by_a_redelivery_only(crm: CrmServer, desk: Desk) -> None:
    """A CRM that answers a known key from memory must not answer the next attempt so."""
    await desk.deliver(signature(7), signature(8))
    await desk.deliver(signature(7), signature(8))
    await desk.deliver(signature(7), signature(8), attempt=2)
    await desk.deliver(signature(7))

    first, again, retried, other = (call.key for call in crm.calls)
    assert first
    assert first == again
    assert len({first, retried, other}) == 3


@pytest.mark.parametrize(
    ("faults", "verdict", "reason", "after"),
    [
        (Faults(outage=True), Unavailable, "the CRM answered 503", None),
        (Faults(limited="17"), Unavailable, "the CRM answered 429", 17.0),
        (Faults(limited="Wed, 21 Oct 2015 07:28:00 GMT"), Unavailable, "the CRM answered 429", 0.0),
        (Faults(limited="²"), Unavailable, "the CRM answered 429", None),
        (Faults(status=401), Unavailable, "the CRM refuses the token (401)", None),
        (Faults(status=403), Unavailable, "the CRM refuses the token (403)", None),
        (Faults(status=404), Unavailable, "the CRM answered 404: is the address right?", None),
        (Faults(status=302), Unavailable, "the CRM answered 302: is the address right?", None),
        (Faults(status=500), Retry, "the CRM answered 500", None),
        (Faults(status=502), Retry, "the CRM answered 502", None),
        (Faults(status=408), Retry, "the CRM answered 408", None),
        (Faults(status=400), Retry, "the CRM answered 400", None),
        (Faults(status=413), Retry, "the CRM answered 413", None),
        (Faults(status=422), Retry, "the CRM answered 422", None),
    ],
    ids=lambda value: repr(value)[:60] if isinstance(value, Faults) else "",
)
async def test_a_refused_call_decides_the_whole_batch(
    crm: CrmServer, desk: Desk, faults: Faults, verdict: type[Verdict], reason: str, after: float | None
) -> None:
    await desk.deliver(signature(1))  # the campaign is known from here on
    crm.faults = faults

    verdicts = await desk.deliver(signature(7), signature(8))

    assert [told(one) for one in verdicts] == [(verdict.__name__, reason)] * 2
    assert [getattr(one, "after", None) for one in verdicts] == [after] * 2
    assert set(crm.records) == {"action-1"}


@pytest.mark.parametrize("status", [400, 413, 422])
async def test_a_refused_body_is_parked_when_it_holds_one_item(
    crm: CrmServer, desk: Desk, status: int
) -> None:
    await desk.deliver(signature(1))
    crm.faults = Faults(status=status)

    [verdict] = await desk.deliver(signature(7))

    assert told(verdict) == ("Reject", f"the CRM answered {status}")


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "<html>busy</html>",
        '{"error": "down"}',
        "[7]",
        '[{"id": 7}]',
        "null",
        '["',
        '[{"x": ' + "[" * 3000,
    ],
)
async def test_an_answer_that_cannot_be_read_is_retried(crm: CrmServer, desk: Desk, answer: str) -> None:
    """An error in a 200, and anything else that is no list of results, delivers nothing."""
    crm.faults = Faults(answer=answer)

    verdicts = await desk.deliver(signature(7), signature(8))

    assert [told(one) for one in verdicts] == [("Retry", "the answer of the CRM cannot be read")] * 2


@pytest.mark.parametrize(("told_id", "kept"), [('"c-47"', "c-47"), ("4711", "4711"), ("null", None)])
async def test_the_id_of_the_crm_is_kept(crm: CrmServer, desk: Desk, told_id: str, kept: str | None) -> None:
    crm.faults = Faults(answer=f'[{{"id": "action-7", "status": "ok", "contactId": {told_id}}}]')

    [verdict] = await desk.deliver(signature(7))

    assert (verdict, desk.origin.made[-1].target_id) == (None, kept)


async def test_a_reset_after_the_crm_accepted_is_retried(crm: CrmServer, desk: Desk) -> None:
    await desk.deliver(signature(1))
    crm.faults = Faults(reset=1)

    [verdict] = await desk.deliver(signature(7))

    assert isinstance(verdict, Retry)
    assert verdict.reason.startswith("the call to the CRM broke off (")
    assert crm.effects["action-7"] == 1


@pytest.mark.parametrize("faults", [Faults(silent=True), Faults(delay=30.0), Faults(drip=0.1)])
async def test_a_call_that_takes_too_long_is_retried(
    crm: CrmServer, open_desk: OpenDesk, faults: Faults
) -> None:
    async with open_desk(timeout="0.5") as desk:
        await desk.deliver(signature(1))
        crm.faults = faults
        with anyio.fail_after(20):
            [verdict] = await desk.deliver(signature(7))

    assert told(verdict) == ("Retry", "the call to the CRM broke off (TimeoutError)")


async def test_a_crm_that_refuses_connections_is_unavailable_and_then_served(
    crm: CrmServer, desk: Desk
) -> None:
    await desk.deliver(signature(1))
    await crm.refuse()

    [refused] = await desk.deliver(signature(7))
    await crm.listen()
    [served] = await desk.deliver(signature(7), attempt=2)

    assert isinstance(refused, Unavailable)
    assert refused.reason.startswith("the CRM cannot be reached: ")
    assert served is None
    assert crm.effects["action-7"] == 1


async def test_every_call_carries_the_token(crm: CrmServer, desk: Desk) -> None:
    """The CRM lets nobody in without it: with another one nothing arrives, neither calls nor lookups."""
    [with_token] = await desk.deliver(signature(7))
    crm.token = "another"
    [without] = await desk.deliver(signature(8))

    assert with_token is None
    assert told(without) == ("Unavailable", "the CRM refuses the token (401)")


async def test_secrets_and_people_are_named_nowhere(
    crm: CrmServer, desk: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    """The CRM quotes what it was sent in each of these answers."""
    caplog.set_level(logging.DEBUG)
    said: list[object] = [desk.pipeline.settings, desk.pipeline.live]

    for faults in (
        Faults(),
        Faults(status=401),
        Faults(status=422),
        Faults(status=500),
        Faults(limited="1"),
        Faults(invalid={"action-7": "canary@example.org"}),
        Faults(answer='{"error": "canary@example.org"}'),
        Faults(reset=1),
    ):
        crm.faults = faults
        for verdict in await desk.deliver(signature(7)):
            said += [verdict, getattr(verdict, "__cause__", None), getattr(verdict, "reason", None)]
    message = desk.message(signature(7))
    message.body = desk.pipeline.handle_message(message)
    said += [message, message.body]

    shown = caplog.text + "".join(
        f"{one!r}{one}{vars(one) if hasattr(one, '__dict__') else ''}" for one in said
    )
    assert "action-7" in shown
    for canary in CANARIES:
        assert canary not in shown
