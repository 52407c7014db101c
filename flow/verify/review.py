"""What one run comes to: the fate of each message, what is wrong, and what was delivered twice and why."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain, pairwise

from flow.outcome import Outcome
from flow.verify.history import Call, Ending, History, Settled
from flow.verify.mail import PLACE

LOST, WAITING, UNDECIDED = "lost", "not settled", "undecided"
DONE = {"delivered", "skipped"}
FAILED = "called delivered, though the last call about them before that had failed"
MAY_FAIL = " (if that call may fail, name its path with --optional)"
APPLIED = (Ending.TAKEN, Ending.UNTOLD)
GIVING_BACK = ("connection", "channel", "consumers", "an ack")
"""How the words for faults begin that put what was delivered back into its queue."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One sentence about some messages."""

    sentence: str
    """What is said before their count."""
    numbers: list[int]


@dataclass(slots=True, kw_only=True)
class Review:
    """What came out of one run."""

    seed: int
    fates: dict[int, str]
    """Of each message: delivered, skipped, parked, retrying, or something worse."""
    wrong: list[Finding] = field(default_factory=list)
    twice: list[Finding] = field(default_factory=list)
    """What reached the target more than once, by the cause."""
    unchecked: str = ""
    """Why it is not known what reached the target; empty: it is."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Why messages were tried again or parked, and how many."""
    answered: str = ""
    """What the target answered, if nothing was delivered though it did; empty: that is not the cause."""
    broker: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    """Faults that struck."""

    @property
    def vain(self) -> bool:
        """Whether nothing was delivered, and not for faults of the target: other runs would end so, too."""
        return not DONE & set(self.fates.values()) and (bool(self.answered) or not self.target)


def review(
    seed: int,
    history: History,
    held: Mapping[int, str],
    parked: Iterable[int],
    *,
    count: int,
    unmarked: Iterable[int],
    redirected: list[str],
    down: bool = False,
    once: bool = False,
) -> Review:
    """Judge one run of *count* messages.

    *held* names those that are in a queue at its end ("retrying" or "not settled"), *parked* those in the
    park. *unmarked* ones cannot be recognized in a call, and *redirected* are the variables that lead to the
    double. *down* says that the pipeline waited for its target at the end, *once* that it has a claim that
    parks what is unknown: then nobody may get a mail twice.
    """
    in_the_park = set(parked)
    last = {one.number: one for one in history.settlings if one.how == "ack"}
    fates = {number: fate(number, last, held) for number in range(count)}
    found = Review(
        seed=seed,
        fates=fates,
        broker=[one.text for one in history.struck],
        target=at_calls(history.calls),
    )
    for one in history.settlings:
        if one.decision is not None and one.decision.outcome in (Outcome.RETRYING, Outcome.PARKED):
            found.reasons[one.decision.reason] = found.reasons.get(one.decision.reason, 0) + 1
    add(found.wrong, "lost: neither settled nor in a queue", of(fates, LOST))
    add(found.wrong, "acknowledged though nothing was decided of them", of(fates, UNDECIDED))
    why = ": the pipeline waited for a target that it took for unavailable" if down else ""
    add(found.wrong, f"not settled when time was up{why}", of(fates, WAITING))
    without = [number for number in of(fates, "parked") if number not in in_the_park]
    add(found.wrong, "called parked, but the park has no copy", without)
    found.unchecked = unseen(history, redirected, found)
    if not DONE & set(fates.values()):
        found.answered = answers(history)
    if not found.unchecked:
        at_the_target(history, set(unmarked), found)
        mails = [call for call in history.calls if once and call.place == PLACE]
        for again in repeated(history, mails):
            add(found.wrong, f"mailed twice, in spite of the claim ({again.sentence})", again.numbers)
        found.twice = repeated(history, [call for call in history.calls if call not in mails])
    return found


def answers(history: History) -> str:
    """Say what the target answered when nothing went wrong; "" if it never did."""
    fine = [one for one in history.calls if one.ending is Ending.TAKEN and not one.fault]
    if not fine and (history.calls or not history.others):
        return ""
    return " and ".join(f"a {method} with {how}" for method, how in history.answers.items())


def at_calls(calls: Iterable[Call]) -> list[str]:
    """Say what was done on purpose, and to which calls."""
    places: dict[str, list[int]] = {}
    for call in calls:
        if call.fault:
            places.setdefault(call.fault, []).append(call.number)
    return [f"it {fault} at call {', '.join(map(str, found))}" for fault, found in places.items()]


def add(findings: list[Finding], sentence: str, numbers: list[int]) -> None:
    """Add a finding about *numbers*, if there are any."""
    if numbers:
        findings.append(Finding(sentence, numbers))


def of(fates: Mapping[int, str], fate: str) -> list[int]:
    """Return the messages with this *fate*."""
    return [number for number, one in fates.items() if one == fate]


def fate(number: int, last: Mapping[int, Settled], held: Mapping[int, str]) -> str:
    """Return in a word what became of a message."""
    settled = last.get(number)
    if settled is None:
        return held.get(number, LOST)
    return UNDECIDED if settled.decision is None else settled.decision.outcome.value


def unseen(history: History, redirected: list[str], found: Review) -> str:
    """Return why it is not known what reached the target, or ""; that nothing called it is wrong."""
    names = " and ".join(redirected)
    if not redirected:
        return "no setting of the pipeline is the http URL of its target"
    if history.calls:
        return ""
    if history.others:
        return f"no call at the address in {names} speaks of a message by an id, an address or its digest"
    add(
        found.wrong,
        f"called delivered, but nothing called the address in {names}",
        of(found.fates, "delivered"),
    )
    return ""


def at_the_target(history: History, unmarked: set[int], found: Review) -> None:
    """Compare what was acknowledged as delivered with the calls before it."""
    never: dict[int, None] = {}
    early: dict[int, None] = {}
    failed: dict[int, None] = {}
    elsewhere: dict[int, None] = {}
    for one in history.settlings:
        decided = one.decision is not None and one.decision.outcome is Outcome.DELIVERED
        if one.how != "ack" or not decided or one.number in unmarked or not history.calls:
            continue
        calls = [call for call in history.calls if one.number in call.about and not call.optional]
        before = [call for call in calls if call.ended is not None and call.ended < one.when]
        last = max(before, key=lambda call: call.ended or 0, default=None)
        if last is not None and any(one.ending is Ending.TAKEN and one.place == last.place for one in before):
            continue  # if the last one failed, it was a second delivery of what the target has
        if any(call.began < one.when and call not in before for call in calls):
            early[one.number] = None
        elif last is not None:
            taken = any(call.ending is Ending.TAKEN for call in before)
            (elsewhere if taken else failed)[one.number] = None
        else:
            (early if calls else never)[one.number] = None
    add(found.wrong, "called delivered, but no call about them reached the target", list(never))
    add(found.wrong, "acknowledged before the call about them was answered", list(early))
    add(found.wrong, FAILED, list(failed))
    add(found.wrong, f"{FAILED}, and only one to another path had not{MAY_FAIL}", list(elsewhere))


def repeated(history: History, among: Sequence[Call]) -> list[Finding]:
    """Return what had effect more than once by calls *among* those of *history*, by the cause."""
    causes: dict[str, list[int]] = {}
    numbers = sorted({number for call in among for number in call.about})
    for number in numbers:
        calls = [one for one in among if number in one.about and one.ending in APPLIED]
        places = dict.fromkeys(one.place for one in calls)
        pairs = [pairwise(one for one in calls if one.place == place) for place in places]
        for earlier, later in chain(*pairs):
            known = causes.setdefault(cause(number, earlier, later, history), [])
            if number not in known:
                known.append(number)
    return [Finding(sentence, found) for sentence, found in causes.items()]


def cause(number: int, earlier: Call, later: Call, history: History) -> str:
    """Return why message *number* was delivered with the call *later* though it was with *earlier*."""
    if earlier.ending is Ending.UNTOLD:
        return "the target took a call and broke off, so the pipeline could not know"
    since = earlier.ended or earlier.began
    between = [one for one in history.settlings if one.number == number and since < one.when < later.began]
    for one in between:
        if one.how in ("return", "requeue"):
            before = [fault.text for fault in history.struck if since < fault.when < one.when]
            struck = [text for text in before if text.startswith(GIVING_BACK)]
            return f"{struck[-1] if struck else 'given back'}: the broker delivered again"
        if one.how == "reject" and one.decision is not None:
            return f"its attempt failed after the target had it: {one.decision.reason}"
    if number in history.duplicated:
        return "a delivery duplicated: the broker delivered twice"
    return "no fault explains it: the pipeline called twice by itself"
