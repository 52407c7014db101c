"""What a history means: fates, what is wrong, and why something was delivered twice."""

from collections.abc import Callable

import pytest

from flow.devbroker.message import Message as Stored
from flow.devbroker.properties import MESSAGE_ID, join
from flow.outcome import DELIVERED, Decision, Outcome
from flow.verify.history import Ending, History, Settled
from flow.verify.mail import PLACE
from flow.verify.review import Review, review

PARKED = Decision(Outcome.PARKED, "no good")
RETRYING = Decision(Outcome.RETRYING, "it answered 500")
Act = Callable[[History], None]


def call(ending: Ending, *about: int, place: str = "POST /contacts", fault: str = "") -> Act:
    def act(history: History) -> None:
        made = history.begin(set(about), place)
        made.fault = fault
        history.end(made, ending)

    return act


def settle(how: str, decision: Decision | None, number: int = 0) -> Act:
    def act(history: History) -> None:
        history.settlings.append(Settled(history.tick(), number, how, decision))  # type: ignore[arg-type]

    return act


def strike(text: str) -> Act:
    return lambda history: history.faults.append(text)


def unanswered(history: History) -> None:
    history.begin({0}, "POST /contacts")


def optional(ending: Ending) -> Act:
    def act(history: History) -> None:
        made = history.begin({0}, "POST /tags")
        made.optional = True
        history.end(made, ending)

    return act


def answered(history: History) -> None:
    history.end(history.calls[-1], Ending.TAKEN)


def duplicated(history: History) -> None:
    history.settle("acme.crm", Stored(b"\0\0", join({MESSAGE_ID: b"\x01m"}), b""), "duplicate")


TAKEN, UNTOLD, REFUSED = (call(one, 0) for one in Ending)
ACK = settle("ack", DELIVERED)
FOUND = call(Ending.TAKEN, 0, place="POST /search")
OPTIONAL, OPTIONAL_FAILED = optional(Ending.TAKEN), optional(Ending.REFUSED)
MAILED, MAIL_UNTOLD = call(Ending.TAKEN, 0, place=PLACE), call(Ending.UNTOLD, 0, place=PLACE)
SEEN = call(Ending.TAKEN, 9)  # a call that shows that the double is in use


def looked(history: History) -> None:
    history.others += 1
    history.answers["GET"] = "[]"


FAULTY = call(Ending.REFUSED, 0, fault="answered 500")
SLOW = call(Ending.TAKEN, 0, fault="was slow")
PARK = settle("ack", PARKED)


def judged(
    *acts: Act, held: dict[int, str] | None = None, parked: tuple[int, ...] = (), once: bool = False
) -> Review:
    history = History({"m": 0}, [])
    for act in acts:
        act(history)
    return review(1, history, held or {}, parked, count=1, unmarked=[], redirected=["CRM_URL"], once=once)


@pytest.mark.parametrize(
    "acts",
    [
        (TAKEN, ACK),
        (REFUSED, settle("reject", RETRYING), TAKEN, ACK),
        (UNTOLD, settle("reject", RETRYING), TAKEN, ACK),
        (TAKEN, settle("requeue", DELIVERED), ACK),
        (SEEN, settle("ack", Decision(Outcome.SKIPPED, "a test"))),
        (TAKEN, settle("requeue", DELIVERED), REFUSED, settle("return", RETRYING), ACK),
        (TAKEN, OPTIONAL_FAILED, ACK),
    ],
)
def test_a_message_that_arrived_before_it_was_acknowledged_is_right(acts: tuple[Act, ...]) -> None:
    assert judged(*acts).wrong == []


@pytest.mark.parametrize(
    ("acts", "sentence"),
    [
        ((SEEN, ACK), "called delivered, but no call about them reached the target"),
        ((ACK, TAKEN), "acknowledged before the call about them was answered"),
        ((unanswered, ACK, answered), "acknowledged before the call about them was answered"),
        ((REFUSED, ACK), "called delivered, though the last call about them before that had failed"),
        (
            (FOUND, REFUSED, ACK),
            "called delivered, though the last call about them before that had failed, and only one to"
            " another path had not (if that call may fail, name its path with --optional)",
        ),
        ((REFUSED, unanswered, ACK, answered), "acknowledged before the call about them was answered"),
        ((OPTIONAL, ACK), "called delivered, but no call about them reached the target"),
        ((UNTOLD, ACK), "called delivered, though the last call about them before that had failed"),
        ((ACK,), "called delivered, but nothing called the address in CRM_URL"),
        ((SEEN,), "lost: neither settled nor in a queue"),
        ((SEEN, settle("ack", None)), "acknowledged though nothing was decided of them"),
        ((SEEN, settle("ack", PARKED)), "called parked, but the park has no copy"),
    ],
)
def test_what_is_wrong_is_said(acts: tuple[Act, ...], sentence: str) -> None:
    (found,) = judged(*acts).wrong

    assert (found.sentence, found.numbers) == (sentence, [0])


def test_what_is_still_on_its_way_is_no_loss() -> None:
    assert judged(SEEN, held={0: "retrying"}).wrong == []
    assert judged(SEEN, settle("ack", PARKED), parked=(0,)).wrong == []
    (found,) = judged(SEEN, held={0: "not settled"}).wrong
    assert found.sentence == "not settled when time was up"


@pytest.mark.parametrize(
    ("acts", "cause"),
    [
        ((UNTOLD, TAKEN, ACK), "the target took a call and broke off, so the pipeline could not know"),
        (
            (TAKEN, strike("an ack lost"), settle("requeue", DELIVERED), TAKEN, ACK),
            "an ack lost: the broker delivered again",
        ),
        (
            (TAKEN, strike("an ack lost"), strike("tiny segments"), settle("requeue", DELIVERED), TAKEN, ACK),
            "an ack lost: the broker delivered again",
        ),
        ((TAKEN, duplicated, TAKEN, ACK, ACK), "a delivery duplicated: the broker delivered twice"),
        (
            (TAKEN, settle("reject", RETRYING), TAKEN, ACK),
            "its attempt failed after the target had it: it answered 500",
        ),
        ((TAKEN, TAKEN, ACK), "no fault explains it: the pipeline called twice by itself"),
    ],
)
def test_the_cause_of_a_second_delivery_is_found(acts: tuple[Act, ...], cause: str) -> None:
    (found,) = judged(*acts).twice

    assert (found.sentence, found.numbers) == (cause, [0])


def test_a_refused_call_and_one_to_another_path_are_no_second_delivery() -> None:
    assert judged(FOUND, TAKEN, ACK).twice == []
    assert judged(REFUSED, settle("reject", RETRYING), TAKEN, ACK).twice == []


@pytest.mark.parametrize("mailed", [MAILED, MAIL_UNTOLD])
def test_two_mails_under_a_claim_are_wrong_and_two_calls_are_not(mailed: Act) -> None:
    (found,) = judged(mailed, MAILED, ACK, once=True).wrong
    called, unclaimed = judged(TAKEN, TAKEN, ACK, once=True), judged(mailed, MAILED, ACK)

    assert found.sentence.startswith("mailed twice, in spite of the claim (")
    assert (called.wrong, len(called.twice)) == ([], 1)
    assert (unclaimed.wrong, len(unclaimed.twice)) == ([], 1)


def test_what_nobody_knows_is_rightly_parked() -> None:
    unknown = Decision(Outcome.PARKED, "outcome unknown")

    assert judged(MAIL_UNTOLD, settle("ack", unknown), parked=(0,), once=True).wrong == []


def test_calls_that_speak_of_nobody_leave_it_open_what_arrived() -> None:
    def other(history: History) -> None:
        history.others += 1

    found = judged(other, ACK)

    assert found.wrong == []
    assert found.unchecked.startswith("no call at the address in CRM_URL speaks of a message")


@pytest.mark.parametrize(
    ("acts", "answered", "vain"),
    [
        ((PARK,), "", True),
        ((looked, PARK), "a GET with []", True),
        ((looked, TAKEN, PARK), "a GET with []", True),
        ((looked, FAULTY, PARK), "", False),
        ((looked, SLOW, PARK), "", False),
        ((looked, TAKEN, ACK), "", False),
        ((looked, settle("ack", Decision(Outcome.SKIPPED, "a test"))), "", False),
    ],
)
def test_an_answer_is_blamed_only_where_it_was_given_and_nothing_delivered(
    acts: tuple[Act, ...], answered: str, vain: bool
) -> None:
    found = judged(*acts, parked=(0,))

    assert (found.answered, found.vain) == (answered, vain)
