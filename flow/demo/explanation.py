"""The account at the end: for each message that was published, what became of it and how that is known."""

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flow.demo.cast import Role, Sent
from flow.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What is found at the places where messages end, by message id."""

    told: Mapping[str, int]
    """How often the CRM applied it."""
    skipped: Mapping[str, str]
    """Why the pipeline skipped it."""
    parked: Mapping[str, Sequence[str]]
    """Why it is parked, once for each copy."""
    retried: Mapping[str, int] = field(default_factory=dict)
    """How often it was tried again."""
    again: frozenset[str] = frozenset()
    """Those published again, as nobody could know whether they had arrived."""


class Explanation:
    """Explains each message of *sent* by the *evidence*."""

    def __init__(self, sent: Mapping[str, Sent], evidence: Evidence) -> None:
        self._sent = sent
        self._evidence = evidence
        self.unexplained = {one for one in sent if len(self._ends(one)) != 1}
        """Those that ended nowhere, or in two places."""
        self.unexpected = {
            one for one in sent.keys() - self.unexplained if self._ends(one) != [sent[one].role.outcome]
        }
        """Those that ended in another way than their role has it."""
        self.twice = {one for one, times in evidence.told.items() if times > 1 and one not in evidence.again}
        """Those that the CRM was told twice of, though they were published once."""
        self.strangers = (evidence.told.keys() | evidence.parked.keys()) - sent.keys()
        """What ended somewhere and was never published."""

    @property
    def complete(self) -> bool:
        """Whether every message is explained, ended as it should and was delivered once."""
        return not (self.unexplained or self.unexpected or self.twice or self.strangers)

    def lines(self) -> Iterator[str]:
        """Say it for people."""
        roles = Counter(sent.role for sent in self._sent.values())
        poison = roles[Role.POISON]
        evidence = self._evidence
        yield self._line(
            "published", len(self._sent), f"{len(self._sent) - poison} signatures, {poison} unreadable"
        )
        told = [one for one in evidence.told if evidence.told[one] == 1]
        after = sum(one in evidence.retried for one in told)
        yield self._line("delivered once", len(told), f"{after} of them after more than one attempt")
        for reason, ones in by_reason({one: [reason] for one, reason in evidence.skipped.items()}):
            yield self._line("skipped", ones, reason)
        for reason, ones in by_reason(evidence.parked):
            yield self._line("parked", ones, reason)
        copies = sum(len(reasons) - 1 for reasons in evidence.parked.values())
        republished = sum(evidence.told.get(one, 0) > 1 for one in evidence.again)
        if republished:
            yield self._line("published twice", republished, "the CRM was told twice and applied it once")
        if copies:
            yield self._line("parked twice", copies, "the confirm of a copy was lost with the connection")
        yield self._line("told twice", len(self.twice), "")
        yield self._line(
            "unexplained", len(self.unexplained | self.strangers), shown(self.unexplained | self.strangers)
        )
        if self.unexpected:
            yield self._line("unexpected", len(self.unexpected), shown(self.unexpected))

    def _ends(self, one: str) -> list[Outcome]:
        evidence = self._evidence
        places = {
            Outcome.DELIVERED: evidence.told,
            Outcome.SKIPPED: evidence.skipped,
            Outcome.PARKED: evidence.parked,
        }
        return [outcome for outcome, place in places.items() if one in place]

    def _line(self, what: str, number: int, more: str) -> str:
        return f"  {what:15} {number:6}   {more}".rstrip()


def by_reason(places: Mapping[str, Sequence[str]]) -> list[tuple[str, int]]:
    """Return each reason with the number of messages, the most frequent first."""
    found: defaultdict[str, int] = defaultdict(int)
    for reasons in places.values():
        found[reasons[0]] += 1
    return sorted(found.items(), key=lambda one: (-one[1], one[0]))


def shown(ones: set[str]) -> str:
    """Name some messages by their ids."""
    names = sorted(ones)
    return ", ".join(names[:5]) + (" and more" if len(names) > 5 else "")
