"""The account at the end: for each signature where it ended, how often it was told, and how that is known."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import fill

from flow.demo.cast import Poison, Signature
from flow.demo.ends import SQS, THANKS, Ends, expected
from flow.demo.evidence import Evidence
from flow.demo.organisations import ACME, PARTIES, Party

UNREADABLE = frozenset({ACME.queue, THANKS, SQS})
"""From which queues an unreadable message is parked: they are all that its key leads to."""
NAMED = 5  # of those that are not explained


class Explanation:
    """Explains each signature, by the id of its action, and each unreadable message by the *evidence*."""

    def __init__(
        self, signatures: Mapping[int, Signature], poison: Sequence[Poison], evidence: Evidence
    ) -> None:
        self._signatures = signatures
        self._poison = poison
        self._evidence = evidence
        self._found: dict[int, Ends] = {}
        self.unexplained: dict[str, str] = {}
        """What did not end as it shall, or nowhere, by name: the difference in words."""
        self.twice: set[str] = set()
        """What was done more often than it shall be."""
        for action_id, signature in signatures.items():
            self._explain(action_id, signature)
        for one in poison:
            queues = frozenset(evidence.parked.get(one.id, ()))
            if queues != UNREADABLE:
                missing = ", ".join(sorted(UNREADABLE - queues))
                self.unexplained[one.id] = (
                    f"not parked from {missing}" if missing else "parked elsewhere, too"
                )
        names = {one.id for one in poison}
        for stranger in evidence.seen | evidence.standings.keys():
            if stranger not in signatures and stranger not in names:
                self.unexplained[f"action-{stranger}"] = "nobody submitted it"

    @property
    def complete(self) -> bool:
        """Whether everything ended as it should, and nothing was done twice."""
        return not self.unexplained and not self.twice

    def lines(self) -> Iterator[str]:
        """Say it for people."""
        numbers = Counter(one.party for one in self._signatures.values())
        yield line(
            "submitted",
            len(self._signatures),
            ", ".join(f"{numbers[party]} to {party.name}" for party in PARTIES),
        )
        for party in PARTIES:
            yield from self._decided(party)
        yield from self._told()
        evidence = self._evidence
        yield line("unreadable", len(self._poison), "parked from each of the three queues they came to")
        for what, reasons in (
            ("skipped", evidence.skipped),
            ("parked", {one: why for one, why in evidence.parked.items() if isinstance(one, int)}),
        ):
            for queue, reason, count in by_reason(reasons):
                yield line(what, count, f"{queue}: {reason}")
        if evidence.copies:
            yield line("parked twice", evidence.copies, "the confirm of a copy was lost with the connection")
        yield line("done twice", len(self.twice), named(self.twice))
        yield line("unexplained", len(self.unexplained), named(self.unexplained))
        for name in sorted(self.unexplained)[:NAMED]:
            yield f"    {name}: {self.unexplained[name]}"

    def _explain(self, action_id: int, signature: Signature) -> None:
        name = f"action-{action_id}"
        if action_id not in self._evidence.standings:
            self.unexplained[name] = "it is not in the records"
            return
        found = self._found[action_id] = self._evidence.ends(action_id)
        wanted = expected(signature, found.status)
        if found != wanted:
            self.unexplained[name] = found.differences(wanted)
        if found.exceeds(wanted):
            self.twice.add(name)

    def _decided(self, party: Party) -> Iterator[str]:
        """Say what people decided about the signatures of *party*."""
        by_mail = party.supporter_confirm
        ends = [found for one, found in self._found.items() if self._signatures[one].party is party]
        yes = sum(found.delivered for found in ends)
        no = sum(found.rejected for found in ends)
        how = "by a link in their mail" if by_mail else "by a link in the moderator's mail"
        yield line("confirmed" if by_mail else "accepted", yes, f"{party.name}: {how}")
        yield line("rejected", no, f"{party.name}: {how}")
        waiting = [found for found in ends if not found.delivered and not found.rejected]
        asked = sum(found.confirm_mails + found.moderation_mails > 0 for found in waiting)
        yield line("waiting", asked, f"{party.name}: the mail is there, nobody followed its links")
        bouncing = sum(party.asking in found.parked for found in waiting)
        testing = sum(party.asking in found.skipped for found in waiting)
        reasons = [f"{testing} only tried the form out", *([f"{bouncing} have no such address"] * by_mail)]
        yield line("not asked", len(waiting) - asked, f"{party.name}: {', '.join(reasons)}")

    def _told(self) -> Iterator[str]:
        evidence, found = self._evidence, self._found.values()
        after = sum(1 for one, ends in self._found.items() if ends.crm and one in evidence.retried)
        news = sum(ends.crm_news for ends in found)
        more = f"{after} of them after more than one attempt; and {news} news of addresses"
        yield line("told the CRM", sum(ends.crm for ends in found), more)
        asked = sum(ends.confirm_mails for ends in found), sum(ends.moderation_mails for ends in found)
        more = f"by mail, after {asked[0]} mails to confirm and {asked[1]} to the moderator"
        yield line("thanked", sum(ends.thank_you_mails for ends in found), more)
        news = sum(ends.sqs_news for ends in found)
        yield line("sent to SQS", sum(ends.sqs for ends in found), f"and {news} news of addresses")


def line(what: str, number: int, more: str = "") -> str:
    """Return a line of the account; what is too long goes on below."""
    start = f"  {what:13} {number:6}   "
    return fill(more, 80, initial_indent=start, subsequent_indent=" " * len(start)) or start.rstrip()


def by_reason(places: Mapping[int, Mapping[str, str]]) -> list[tuple[str, str, int]]:
    """Return each queue and reason with the number of signatures, the most frequent first."""
    found: defaultdict[tuple[str, str], int] = defaultdict(int)
    for reasons in places.values():
        for one in reasons.items():
            found[one] += 1
    return sorted(((*one, count) for one, count in found.items()), key=lambda one: (-one[2], one))


def named(ones: Iterable[str]) -> str:
    """Name some by their ids."""
    names = sorted(ones)
    return ", ".join(names[:NAMED]) + (" and more" if len(names) > NAMED else "")
