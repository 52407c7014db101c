"""What must become of signatures, worked out a second time and by other means than flow does."""

from dataclasses import dataclass, field

# exchange, binding key, queue
BINDINGS = [
    ("confirm", "*.system.supporter", "system.email.confirm"),
    ("confirm", "ORG.custom.supporter", "ORG.confirm"),
    ("confirm", "ORG.custom.action", "ORG.moderate"),
    ("deliver", "*.system.*", "system.email.thankyou"),
    ("deliver", "ORG.*.*", "ORG.crm"),
    ("deliver", "ORG.system.*", "system.sqs"),
]


@dataclass
class Org:
    """An organisation with its campaign, and what it wants."""

    name: str
    supporter_confirm: bool = False
    action_confirm: bool = False
    campaign_supporter_confirm: bool | None = None
    campaign_action_confirm: bool | None = None
    custom_supporter: bool = False
    custom_delivery: bool = False
    encrypted: bool = False

    def wants(self, what: str) -> bool:
        over = getattr(self, f"campaign_{what}")
        return getattr(self, what) if over is None else over  # type: ignore[no-any-return]


@dataclass
class Person:
    """A supporter."""

    org: Org
    email: str
    status: str = "new"
    rank: int | None = None
    email_status: str | None = None


@dataclass
class Deed:
    """An action."""

    number: int
    org: Org
    person: Person | None
    testing: bool
    status: str = "new"


@dataclass(frozen=True, order=True)
class Sent:
    """A message, as far as the model tells."""

    exchange: str
    key: str
    schema: str
    about: str
    """The stage, or the e-mail status of an event."""
    action: int
    rank: int | None = None


@dataclass
class Model:
    """All of it, changed one decision after another."""

    deeds: list[Deed] = field(default_factory=list)
    people: list[Person] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)

    def sign(self, org: Org, email: str, testing: bool = False) -> Deed:
        person = Person(org, email)
        self.people.append(person)
        return self._add(org, person, testing)

    def add(self, org: Org, email: str | None, testing: bool = False) -> Deed:
        """An action without personal data: of the last supporter with that address, if any."""
        same = [one for one in self.people if one.org is org and one.email == email]
        return self._add(org, same[-1] if same else None, testing)

    def accept_person(self, deed: Deed, double_opt_in: bool = False) -> str:
        person = deed.person
        if person is None:
            return "unknown"
        if person.status in ("new", "rejected"):
            return "refused"
        done = "unchanged"
        if person.status == "confirming":
            person.status, done = "accepted", "changed"
            self._run(person)
        if double_opt_in and person.email_status != "double_opt_in":
            self._email(person, "double_opt_in")
            # The messages of this moment know of it; the event comes after them.
            done = "changed"
        return done

    def reject_person(self, deed: Deed) -> str:
        person = deed.person
        if person is None:
            return "unknown"
        if person.status in ("new", "accepted"):
            return "refused"
        done = "unchanged" if person.status == "rejected" else "changed"
        person.status = "rejected"
        self._run(person)
        return done

    def accept_deed(self, deed: Deed) -> str:
        if deed.person is None:
            return "unknown"
        if deed.status == "delivered":
            return "unchanged"
        if deed.status != "confirming":
            return "refused"
        deed.status = "delivered"
        self._send(deed, "deliver")
        return "changed"

    def reject_deed(self, deed: Deed) -> str:
        if deed.person is None:
            return "unknown"
        if deed.status == "delivered":
            return "refused"
        done = "unchanged" if deed.status == "rejected" else "changed"
        deed.status = "rejected"
        return done

    def email(self, deed: Deed, status: str | None) -> str:
        if deed.person is None:
            return "unknown"
        if deed.person.email_status == status:
            return "unchanged"
        self._email(deed.person, status)
        return "changed"

    def queue(self, name: str, orgs: list[Org]) -> list[Sent]:
        """What lies in a queue at the end, if nobody reads it."""
        found = []
        for sent in self.sent:
            for exchange, pattern, queue in BINDINGS:
                for org in orgs:
                    bound = pattern.replace("ORG", org.name)
                    if exchange == sent.exchange and queue.replace("ORG", org.name) == name:
                        words = zip(bound.split("."), sent.key.split("."), strict=True)
                        if all(one in ("*", other) for one, other in words):
                            found.append(sent)
                            break
                else:
                    continue
                break
        return sorted(found, key=str)

    def _add(self, org: Org, person: Person | None, testing: bool) -> Deed:
        deed = Deed(len(self.deeds), org, person, testing)
        self.deeds.append(deed)
        if person is not None:
            self._run(person)
        return deed

    def _run(self, person: Person) -> None:
        for deed in self.deeds:
            if deed.person is person:
                self._one(deed, person, deed.org)

    def _one(self, deed: Deed, person: Person, org: Org) -> None:
        if person.status == "rejected":
            if deed.status in ("new", "confirming"):
                deed.status = "rejected"
            return
        if deed.status == "new" and person.status == "new" and org.wants("supporter_confirm"):
            person.status = "confirming"
            custom = "custom" if org.custom_supporter else "system"
            schema = "proca:action:2" if org.custom_supporter else "proca:ids:1"
            key = f"{org.name}.{custom}.supporter"
            self.sent.append(Sent("confirm", key, schema, "supporter_confirm", deed.number))
            return
        if deed.status == "new" and person.status == "new":
            person.status = "accepted"
        if person.status != "accepted":
            return
        if person.rank is None and not deed.testing:
            same = [
                one
                for one in self.people
                if one.org is org and one.email == person.email and one.rank is not None
            ]
            person.rank = len(same)
        if deed.status != "new":
            return
        if org.wants("action_confirm"):
            deed.status = "confirming"
            self._send(deed, "action_confirm")
        else:
            deed.status = "delivered"
            self._send(deed, "deliver")

    def _send(self, deed: Deed, stage: str) -> None:
        assert deed.person is not None
        custom = stage == "action_confirm" or deed.org.custom_delivery
        key = f"{deed.org.name}.{'custom' if custom else 'system'}.action"
        exchange = "confirm" if stage == "action_confirm" else "deliver"
        self.sent.append(Sent(exchange, key, "proca:action:2", stage, deed.number, deed.person.rank))

    def _email(self, person: Person, status: str | None) -> None:
        person.email_status = status
        theirs = [deed for deed in self.deeds if deed.person is person]
        first = next((deed for deed in theirs if not deed.testing), theirs[0])
        key = f"{person.org.name}.{'custom' if person.org.custom_delivery else 'system'}.supporter"
        told = Sent("deliver", key, "proca:event:2", str(status), first.number, person.rank)
        self.sent.append(told)
