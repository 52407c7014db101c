"""What a reply of a mail server means for a mail and for whom it is to; pure."""

import re
from dataclasses import dataclass
from enum import Enum

ENHANCED = re.compile(r"([245]\.\d{1,3}\.\d{1,3})(?=\s|$)")
SENDER = ("5.1.7", "5.1.8")  # of the 5.1.x codes these two speak of the sender: RFC 3463, 3.2
BUSY = ("5.3.2", "5.4.5")  # the server takes nothing now, or has taken enough for today
LOGIN = (530, 534, 535, 538)
FULL = (452, 454)  # of a sender: no room, and too fast or too many for now


class Stage(Enum):
    """What was said to the server last."""

    LOGIN = "the login"
    SENDER = "the sender"
    RECIPIENT = "the recipient"
    CONTENT = "the mail"


class Meaning(Enum):
    """What is to be done about a reply that is no success."""

    AWAY = "away"
    """The server takes nothing now, whoever it is for: everything waits, and no attempt is spent."""
    AGAIN = "again"
    """Not now: this mail is tried again later."""
    PARK = "park"
    """Never, and it is not the fault of who it is to."""
    BOUNCE = "bounce"
    """The address does not exist."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply code and the enhanced one (RFC 3463); the text is not kept, for it may quote addresses."""

    code: int
    enhanced: str | None = None

    @classmethod
    def of(cls, code: int, text: str) -> "Reply":
        """Take the enhanced code from the beginning of *text*."""
        found = ENHANCED.match(text)
        return cls(code, found[1] if found else None)

    def __str__(self) -> str:
        return f"{self.code} {self.enhanced}" if self.enhanced else str(self.code)


def meaning(stage: Stage, reply: Reply) -> Meaning:
    """Judge a *reply* that is no success.

    Only what is said of a recipient can be a bounce: 5xx with an enhanced code 5.1.x, or 550 without one.
    A reply that breaks the protocol counts as a fault of the server that may pass.
    """
    code, enhanced = reply.code, reply.enhanced or ""
    if code in LOGIN or stage is Stage.LOGIN:
        return Meaning.AWAY
    if stage is Stage.SENDER and (code in (421, 500, 502, 503, *FULL) or enhanced.startswith("4.3.")):
        return Meaning.AWAY  # no mail is taken, whoever it is to
    if stage is Stage.CONTENT and code == 454:  # how one large service says that it is too fast, or enough
        return Meaning.AWAY
    if stage is not Stage.RECIPIENT and enhanced in BUSY:
        return Meaning.AWAY
    if not 500 <= code <= 599:
        return Meaning.AGAIN
    if stage is not Stage.RECIPIENT or enhanced in SENDER:
        return Meaning.PARK
    if enhanced.startswith("5.1.") or (code == 550 and not enhanced):
        return Meaning.BOUNCE
    return Meaning.PARK
