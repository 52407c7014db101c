"""Letters: what a rendered template is as a mail, and from whom to whom it goes."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.headerregistry import Address, BaseHeader, HeaderRegistry, UnstructuredHeader
from email.message import EmailMessage
from email.policy import SMTP, SMTPUTF8, EmailPolicy
from hashlib import blake2b
from typing import cast

from flow.codec import tried
from flow.outcome import Retry
from flow.targets.addresses import Mailbox, one_line
from flow.targets.templates import Rendered


class Links(UnstructuredHeader):
    """A header of links, which are never folded within nor encoded: nobody would read them then."""

    def fold(self, *, policy: EmailPolicy) -> str:
        """Return a line for each link."""
        name = getattr(self, "name", "")
        return f"{name}: {str(self).replace(', ', f',{policy.linesep} ')}{policy.linesep}"


HEADERS = HeaderRegistry()
HEADERS.map_to_type("list-unsubscribe", cast("type[BaseHeader]", Links))


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One mail as it is handed in; printed as nothing."""

    mail_from: str
    to: str
    content: bytes
    message_id: str
    """The same for one action and template."""
    utf8: bool
    """Whether an address in it is not ASCII, so that servers must know SMTPUTF8."""

    def __repr__(self) -> str:
        return "<Letter>"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sender:
    """From whom a letter is."""

    name: str
    address: Mailbox
    bounces: Mailbox | None = None
    """Where servers send what they could not deliver; None: to the address."""


def compose(
    rendered: Rendered, sender: Sender, to: Mailbox, message_id: str, headers: Mapping[str, str]
) -> Letter:
    """Return *rendered* as a letter; all that stands in its headers is one line, whatever it was.

    Raises:
        Retry: it cannot be made into a mail.
    """
    letter, error = tried(composed, rendered, sender, to, message_id, headers)
    if not isinstance(letter, Letter):
        raise Retry(f"the mail cannot be composed: {type(error).__name__}")
    return letter


def composed(
    rendered: Rendered, sender: Sender, to: Mailbox, message_id: str, headers: Mapping[str, str]
) -> Letter:
    """Return the letter, or raise what the `email` package raises."""
    envelope = sender.bounces or sender.address
    utf8 = any(one.internationalised for one in (envelope, sender.address, to))
    # Everything as 7 bits: no server on the way has to know more.
    policy = (SMTPUTF8 if utf8 else SMTP).clone(cte_type="7bit", header_factory=HEADERS)
    mail = EmailMessage(policy=policy)
    mail["From"] = Address(one_line(sender.name), sender.address.local, domain_of(sender.address))
    mail["To"] = Address("", to.local, domain_of(to))
    mail["Subject"] = one_line(rendered.subject)
    mail["Date"] = datetime.now(UTC)
    named = f"<{message_id}@{domain_of(sender.address)}>"
    mail["Message-ID"] = named
    mail["Auto-Submitted"] = "auto-generated"  # RFC 3834: no absence notice answers it
    for name, value in headers.items():
        mail[name] = one_line(value)
    mail.set_content(rendered.text)
    if rendered.html is not None:
        mail.add_alternative(rendered.html, subtype="html")
    return Letter(mail_from=envelope.text, to=to.text, content=mail.as_bytes(), message_id=named, utf8=utf8)


def domain_of(box: Mailbox) -> str:
    """Return the domain of *box* as it stands in headers."""
    return box.text.rpartition("@")[2]


def message_id(action_id: int, contact_ref: str, template: str) -> str:
    """Return the left side of a Message-ID: the same for one action and template, whenever it is sent."""
    whole = "\0".join((str(action_id), contact_ref, template))
    return f"{action_id}.{blake2b(whole.encode(errors='replace'), digest_size=12).hexdigest()}"
