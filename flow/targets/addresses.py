"""Mail addresses: which may be written to, and how they travel; pure."""

import re
import unicodedata
from dataclasses import dataclass

from flow.codec import tried

LONGEST = 254  # characters of an address, and 64 of what stands before the @: RFC 5321
LONGEST_LOCAL = 64
LONGEST_NAME = 100  # characters of a person's name; more is no name
ATOM = r"[^\s\x00-\x20\x7f()<>\[\]:;@\\,.\"]+"
LOCAL = re.compile(rf"{ATOM}(\.{ATOM})*")
LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
JOINERS = "\u200c\u200d"  # how some scripts join letters; anything else that is not printed is no text
LINK = re.compile(r"://|www\.|[/@<>]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Mailbox:
    """An address that mail may be sent to; printed as nothing."""

    local: str
    domain: str
    """As people write it."""
    ascii_domain: str | None
    """As DNS writes it; None when there is no such form that leads back to the same name."""

    @property
    def internationalised(self) -> bool:
        """Whether it travels only between servers that know SMTPUTF8."""
        return not self.local.isascii() or self.ascii_domain is None

    @property
    def text(self) -> str:
        """The address as it travels: with the domain of DNS, if the rest of it is ASCII as well."""
        domain = self.domain if self.internationalised else self.ascii_domain
        return f"{self.local}@{domain}"

    def __repr__(self) -> str:
        return "<Mailbox>"


def mailbox(text: str) -> Mailbox | None:
    """Return the address in *text*, or None if it is not exactly one: no name, no comment, no quotes.

    Addresses in an IP number (`ada@[192.0.2.1]`) and hosts without a dot are none.
    """
    local, at, domain = unicodedata.normalize("NFC", text.strip()).rpartition("@")
    if not at or not LOCAL.fullmatch(local) or not printable(local):
        return None
    domain = domain.lower()
    ascii_domain = dns_name(domain)
    written = domain if ascii_domain is None else ascii_domain
    too_long = len(local.encode()) > LONGEST_LOCAL or len(f"{local}@{written}".encode()) > LONGEST
    return None if too_long or not is_host(written) else Mailbox(local, domain, ascii_domain)


def dns_name(domain: str) -> str | None:
    """Return *domain* as DNS writes it; None when it has no such form, or one that is another name's.

    Python's codec writes `straße` as `strasse`, which may be somebody else's.
    """
    if domain.isascii():
        return domain
    encoded, _ = tried(lambda: domain.encode("idna").decode())
    decoded, _ = tried(lambda: encoded.encode().decode("idna"))
    return encoded if encoded and decoded == domain else None


def is_host(domain: str) -> bool:
    """Tell whether *domain* can be the name of a host that gets mail from elsewhere."""
    labels = domain.split(".")
    if len(labels) < 2 or labels[-1].isdecimal():
        return False
    return all(
        LABEL.fullmatch(label) if label.isascii() else printable(label) and 0 < len(label) <= 63
        for label in labels
    )


def printable(text: str) -> bool:
    """Tell whether *text* holds neither white space nor control or unassigned characters."""
    return text.isprintable() and " " not in text


def one_line(text: str) -> str:
    """Return *text* as one line: white space of any kind becomes one blank, what is not printable goes."""
    kept = (letter for letter in text if letter.isprintable() or letter.isspace() or letter in JOINERS)
    return " ".join("".join(kept).split())


def name_of_person(text: str | None) -> str:
    """Return a first name as one line, or "" if it is none.

    Forms are filled in by anybody with anybody's address: what holds a link, or is very long, would make the
    mail an advertisement.
    """
    name = one_line(text or "")
    return "" if len(name) > LONGEST_NAME or LINK.search(name) else name


def sender(text: str) -> tuple[str, Mailbox] | None:
    """Return the name and the address of `Name <address>` or `address`, or None if it is neither."""
    name, _, rest = text.rpartition("<")
    inner = rest.removesuffix(">") if rest.endswith(">") and "<" in text else text
    found = mailbox(inner)
    return None if found is None or set("<>@") & set(name) else (one_line(name).strip('"'), found)
