"""What a person is told of the runs."""

from collections import Counter
from collections.abc import Iterator, Sequence

from flow.verify.bodies import Sample
from flow.verify.review import DONE, Finding, Review

SHOWN = 5  # messages that are named
HELP = (
    "If the pipeline expects another answer, let --answer MODULE:FUNCTION give it: "
    "until then its own mistakes stay hidden"
)
ORDER = ("delivered", "skipped", "parked", "retrying")


def lines(review: Review, samples: Sequence[Sample]) -> Iterator[str]:
    """Say what one run came to."""
    counted = Counter(review.fates.values())
    words = [*ORDER, *(word for word in counted if word not in ORDER)]
    fates = ", ".join(f"{counted[word]} {word}" for word in words if counted[word])
    yield f"seed {review.seed}: {len(samples)} messages: {fates}"
    yield f"  faults of the broker: {listed(review.broker)}"
    if not review.unchecked:
        yield f"  faults of the target: {listed(review.target)}"
    for finding in () if review.answered else review.twice:
        yield f"  twice: {said(finding, samples)}"
    for finding in review.wrong:
        yield f"  WRONG: {said(finding, samples)}"
    if review.wrong:
        for reason, count in sorted(review.reasons.items(), key=lambda one: -one[1])[:SHOWN]:
            yield f"  {count} times tried again or parked: {reason}"


def said(finding: Finding, samples: Sequence[Sample]) -> str:
    """Say a *finding* with the names of some of its messages."""
    named = [samples[number].name for number in finding.numbers[:SHOWN]]
    more = len(finding.numbers) - len(named)
    names = f"{', '.join(named)}{f' and {more} more' if more else ''}"
    return f"{finding.sentence}: {len(finding.numbers)} ({names})"


def listed(faults: Sequence[str]) -> str:
    """Say which faults there were, in their order."""
    return "; ".join(faults) or "none struck"


def conclusion(reviews: Sequence[Review]) -> tuple[list[str], bool]:
    """Return the last lines, and whether all is right."""
    unchecked = next((one.unchecked for one in reviews if one.unchecked), "")
    said = [f"not checked: what reached the target, because {unchecked}"] if unchecked else []
    bad = [one.seed for one in reviews if one.wrong]
    if bad:
        return [*said, f"wrong under seed {', '.join(map(str, bad))}"], False
    if not any(DONE & set(one.fates.values()) for one in reviews):
        return [*said, f"wrong: nothing was delivered, so nothing was verified{cause(reviews)}"], False
    arrived = "" if unchecked else ", and whatever is called delivered had reached the target before"
    return [*said, f"all right: every message was settled{arrived}"], True


def cause(reviews: Sequence[Review]) -> str:
    """Say why nothing was delivered, as far as it is known."""
    reasons = Counter[str]()
    for one in reviews:
        reasons.update(one.reasons)
    most = reasons.most_common(1)
    why = f": {most[0][0]}" if most else ""
    answered = next((one.answered for one in reviews if one.answered), "")
    if not answered:
        return why
    return f": the double of the target answered {answered}, and then came{why or ' nothing'}. {HELP}"
