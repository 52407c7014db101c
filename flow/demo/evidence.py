"""What is found at the places where signatures end: records, mails, CRM, SQS, park and ledger."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields

from flow.broker.url import BrokerUrl
from flow.demo.broker import InPark, parked
from flow.demo.cast import number_of, submission
from flow.demo.crm_server import CrmServer
from flow.demo.ends import Ends
from flow.demo.mail_sink import Mail
from flow.demo.people import MODERATORS
from flow.demo.sqs_server import SqsServer
from flow.records.database import Database
from flow.records.standings import Deed, Standing, deeds, standings

EVENT = "an event"  # why the thank-you mailer skips what goes the way of deliveries and is none


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """What was found, mostly by the id of an action."""

    standings: Mapping[int, Standing]
    confirm_mails: Counter[int] = field(default_factory=Counter)
    moderation_mails: Counter[int] = field(default_factory=Counter)
    thank_you_mails: Counter[int] = field(default_factory=Counter)
    crm: Counter[int] = field(default_factory=Counter)
    crm_news: Counter[int] = field(default_factory=Counter)
    sqs: Counter[int] = field(default_factory=Counter)
    sqs_news: Counter[int] = field(default_factory=Counter)
    parked: Mapping[int | str, Mapping[str, str]] = field(default_factory=dict)
    """By what it is about: the queues with the reasons."""
    copies: int = 0
    """How many messages are in the park a second time."""
    skipped: Mapping[int, Mapping[str, str]] = field(default_factory=dict)
    """By action: the queues with the reasons."""
    retried: frozenset[int] = frozenset()
    """Actions of which a message was tried again."""

    def ends(self, action_id: int) -> Ends:
        """Return what was found of an action."""
        standing = self.standings[action_id]
        return Ends(
            status=f"{standing.action} {standing.supporter}",
            confirm_mails=self.confirm_mails[action_id],
            moderation_mails=self.moderation_mails[action_id],
            thank_you_mails=self.thank_you_mails[action_id],
            crm=self.crm[action_id],
            crm_news=self.crm_news[action_id],
            sqs=self.sqs[action_id],
            sqs_news=self.sqs_news[action_id],
            parked=frozenset(self.parked.get(action_id, ())),
            skipped=frozenset(self.skipped.get(action_id, ())),
        )

    @property
    def seen(self) -> set[int | str]:
        """Everything that something was found about outside the records."""
        counted = [value for one in fields(self) if isinstance(value := getattr(self, one.name), Counter)]
        return {one for count in counted for one in count} | self.parked.keys() | self.skipped.keys()


async def gathered(
    database: Database, url: BrokerUrl, mails: Iterable[Mail], crm: CrmServer, sqs: SqsServer
) -> Evidence:
    """Look at all the places."""
    known = {one.action_id: one for one in await standings(database)}
    retried = {int(deed.record_id) for deed in await deeds(database, "retrying")}
    told, news = of_crm(crm, known.values())
    confirming, moderating, thanking = of_mails(mails)
    reasons, copies = of_park(await parked(url))
    return Evidence(
        standings=known,
        confirm_mails=confirming,
        moderation_mails=moderating,
        thank_you_mails=thanking,
        crm=told,
        crm_news=news,
        sqs=Counter({one: times for (kind, one), times in sqs.stored.items() if "action" in kind}),
        sqs_news=Counter({one: times for (kind, one), times in sqs.stored.items() if "event" in kind}),
        parked=reasons,
        copies=copies,
        skipped=of_ledger(await deeds(database, "skipped")),
        retried=frozenset(retried),
    )


def of_mails(mails: Iterable[Mail]) -> tuple[Counter[int], Counter[int], Counter[int]]:
    """Return how many mails went out about each action: to confirm, to moderate, and others."""
    confirming: Counter[int] = Counter()
    moderating: Counter[int] = Counter()
    thanking: Counter[int] = Counter()
    for mail in mails:
        kind = confirming if mail.link("accept") else thanking
        (moderating if mail.to == MODERATORS else kind)[mail.action_id] += 1
    return confirming, moderating, thanking


def of_crm(crm: CrmServer, known: Iterable[Standing]) -> tuple[Counter[int], Counter[int]]:
    """Return how often the CRM was told of each action, and something of its address.

    News of an address name no action, but the address has the number of the signature.
    """
    told: Counter[int] = Counter()
    news: Counter[int] = Counter()
    numbered = {one.submission: one.action_id for one in known}
    for one, times in crm.effects.items():
        if one.startswith("action-"):
            told[int(one.removeprefix("action-"))] += times
        else:
            number = number_of(crm.records[one]["contact"].get("email") or "")
            news[numbered.get(submission(number), 0)] += times
    return told, news


def of_park(found: Iterable[InPark]) -> tuple[dict[int | str, dict[str, str]], int]:
    """Return why messages are parked, and how many are there a second time."""
    reasons: defaultdict[int | str, dict[str, str]] = defaultdict(dict)
    copies = 0
    for one in found:
        copies += one.queue in reasons[one.about]
        reasons[one.about][one.queue] = one.reason
    return dict(reasons), copies


def of_ledger(found: Iterable[Deed]) -> dict[int, dict[str, str]]:
    """Return why messages about signatures were skipped."""
    reasons: defaultdict[int, dict[str, str]] = defaultdict(dict)
    for deed in found:
        if deed.reason != EVENT:
            reasons[int(deed.record_id)][deed.queue] = deed.reason or ""
    return dict(reasons)
