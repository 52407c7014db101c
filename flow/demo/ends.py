"""Where a signature ended: what shall be found of it, by its role and its organisation; pure."""

from dataclasses import dataclass, fields, replace

from flow.demo.cast import Role, Signature

THANKS, SQS = "system.email.thankyou", "system.sqs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Everything that is found of one signature."""

    status: str
    """Of the action and of the supporter."""
    confirm_mails: int = 0
    """How many mails asked the supporter."""
    moderation_mails: int = 0
    """How many mails asked the moderator."""
    thank_you_mails: int = 0
    crm: int = 0
    """How often the CRM applied it."""
    crm_news: int = 0
    """How often the CRM was told something of the address."""
    sqs: int = 0
    sqs_news: int = 0
    parked: frozenset[str] = frozenset()
    """From which queues a message about it was parked."""
    skipped: frozenset[str] = frozenset()
    """In which queues a message about it was skipped."""

    @property
    def delivered(self) -> bool:
        """Whether it went on to who waits for signatures."""
        return self.status.startswith("delivered")

    @property
    def rejected(self) -> bool:
        """Whether somebody said no."""
        return self.status.startswith("rejected")

    def differences(self, other: "Ends") -> str:
        """Say in what it is not as the *other*."""
        found = []
        for one in fields(self):
            mine, wanted = getattr(self, one.name), getattr(other, one.name)
            if mine != wanted:
                what = one.name.replace("_", " ")
                found.append(f"{what} {shown(mine)} instead of {shown(wanted)}")
        return "; ".join(found)

    def exceeds(self, other: "Ends") -> bool:
        """Whether something was done more often than in the *other*, where it was to be done."""
        counts = [(getattr(self, one.name), getattr(other, one.name)) for one in fields(self)]
        return any(isinstance(mine, int) and mine > wanted >= 1 for mine, wanted in counts)


def shown(value: object) -> str:
    """Return a part of the ends in words."""
    return (", ".join(sorted(value)) or "nowhere") if isinstance(value, frozenset) else str(value)


def expected(signature: Signature, status: str) -> Ends:
    """Return what shall be found of *signature*; of one that nobody of the cast answers *status* decides.

    Whoever looks at the mails may follow a link as well.
    """
    role, party = signature.role, signature.party
    if role is Role.SILENT and status.startswith("delivered"):
        role = Role.SIGNER
    elif role is Role.SILENT and status.startswith("rejected"):
        role = Role.REJECTING
    asked = asking(signature)
    by_mail = party.supporter_confirm
    before = "new confirming" if by_mail else "confirming accepted"
    if role is Role.TESTER:
        return Ends(status=before, skipped=frozenset({party.asking}))
    if by_mail and role is Role.BOUNCING:
        news = int(party.sqs)
        return Ends(status=before, parked=frozenset({party.asking}), crm_news=1, sqs_news=news)
    if role is Role.SILENT:
        return replace(asked, status=before)
    if role is Role.REJECTING:
        return replace(asked, status="rejected rejected" if by_mail else "rejected accepted")
    return accepted(signature, asked)


def asking(signature: Signature) -> Ends:
    """Return the mails by which somebody is asked about *signature*."""
    by_mail = signature.party.supporter_confirm
    return Ends(status="", confirm_mails=int(by_mail), moderation_mails=int(not by_mail))


def accepted(signature: Signature, asked: Ends) -> Ends:
    """Return what shall be found of a signature that was accepted."""
    party, privacy = signature.party, signature.action.privacy
    sqs = int(party.sqs)
    news = int(bool(party.supporter_confirm and privacy.opt_in))
    thanked = privacy.with_consent and signature.page in party.thankful
    ends = replace(
        asked,
        status="delivered accepted",
        thank_you_mails=int(thanked),
        crm=1,
        crm_news=news,
        sqs=sqs,
        sqs_news=news * sqs,
        skipped=frozenset() if thanked else frozenset({THANKS}),
    )
    if signature.role is Role.REFUSED:
        return replace(ends, crm=0, parked=frozenset({party.queue}))
    return ends
