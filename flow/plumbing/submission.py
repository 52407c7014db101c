"""What is submitted: actions, and what they need to exist, each read from one line of JSON."""

import difflib
import re
from datetime import datetime
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from flow.codec import depth, tried
from flow.crypto import KEY, decoded
from flow.errors import ConfigError, DecodeError
from flow.reasons import malformed, unfit
from flow.schema import Contact, CustomFields, Donation, Tracking
from flow.topology import check_organisation

Name = Annotated[str, Meta(min_length=1, max_length=255)]
Time = Annotated[datetime, Meta(tz=True)]
Word = Annotated[str, Meta(min_length=1, max_length=16)]
Given: TypeAlias = str | UnsetType | None

LARGEST = 1 << 20  # bytes of a line
DEEPEST = 100  # levels of lists and objects
ADDRESS = re.compile(r"[^\s@]{1,64}@[^\s@]{1,255}")
NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")  # PostgreSQL keeps no text with it
AREA = 16  # letters

T = TypeVar("T")


class Line(Struct, frozen=True, kw_only=True, rename="camel"):
    """One line; printed without its contents."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Organisation(Line, frozen=True, kw_only=True):
    """An organisation to be made, or changed in what is said of it."""

    name: Name
    title: str | UnsetType = UNSET
    supporter_confirm: bool | UnsetType = UNSET
    action_confirm: bool | UnsetType = UNSET
    custom_supporter_confirm: bool | UnsetType = UNSET
    custom_delivery: bool | UnsetType = UNSET
    public_key: Given = UNSET
    mail_from: Given = UNSET


class Campaign(Line, frozen=True, kw_only=True):
    """A campaign to be made, or changed in what is said of it; *organisation* is its owner's name."""

    name: Name
    organisation: Name
    title: str | UnsetType = UNSET
    external_id: Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)] | UnsetType | None = UNSET
    contact_schema: Annotated[str, Meta(min_length=1, max_length=32)] | UnsetType = UNSET
    supporter_confirm: bool | UnsetType | None = UNSET
    action_confirm: bool | UnsetType | None = UNSET


class ActionPage(Line, frozen=True, kw_only=True):
    """A page of an organisation for a campaign to be made, or changed in what is said of it."""

    name: Name
    campaign: Name
    organisation: Name
    locale: Word | UnsetType = UNSET
    thank_you_template: Given = UNSET
    duplicate_template: Given = UNSET
    supporter_confirm_template: Given = UNSET


class Privacy(Line, frozen=True, kw_only=True):
    """What a supporter agreed to."""

    with_consent: bool = False
    opt_in: bool | None = None
    given_at: Time | None = None


class Action(Line, frozen=True, kw_only=True):
    """Something that somebody did on an action page."""

    action_page: Name
    """The name of the page."""
    action_type: Name = "register"
    submission: Name | None = None
    """What the sender calls it: the same one submitted again is the same action. None: always a new one."""
    created_at: Time | None = None
    """None: now."""
    testing: bool = False
    custom_fields: CustomFields = {}
    donation: dict[str, Any] | None = None
    """Amount, currency and whatever else belongs to it."""
    contact: dict[str, Any] | None = None
    """The supporter's personal data, or only the `contactRef` of one who is known. None: only counted."""
    privacy: Privacy = Privacy()
    tracking: dict[str, Any] | None = None
    links: list[Name] = []
    """Submissions of actions without a supporter that were this one's."""

    @property
    def email(self) -> str | None:
        """The address as it is compared: without regard to upper case."""
        email = (self.contact or {}).get("email")
        return email.strip().lower() if email else None

    @property
    def contact_ref(self) -> str | None:
        """The reference that the sender names."""
        return (self.contact or {}).get("contactRef")

    @property
    def personal(self) -> dict[str, Any]:
        """The personal data without the reference; empty when the supporter is known, or there is none."""
        return {name: value for name, value in (self.contact or {}).items() if name != "contactRef"}


Definition: TypeAlias = Organisation | Campaign | ActionPage
KINDS: dict[str, type[Definition | Action]] = {
    "organisation": Organisation,
    "campaign": Campaign,
    "actionPage": ActionPage,
    "action": Action,
}


def read(raw: bytes) -> Definition | Action | None:
    """Read one line; None: it is blank.

    Raises:
        DecodeError: it is wrong; the sentence names the place and no value.
    """
    if not raw.strip():
        return None
    if len(raw) > LARGEST:
        raise DecodeError(f"it is longer than {LARGEST} bytes")
    if depth(raw) > DEEPEST:
        raise DecodeError(f"it is nested deeper than {DEEPEST} levels")
    value, error = tried(msgspec.json.decode, raw)
    if error:
        raise DecodeError(f"it is {malformed(error, raw)}")
    if not isinstance(value, dict):
        raise DecodeError("it is not a JSON object")
    if NUL.search(raw):
        raise DecodeError("it holds a NUL character, which cannot be stored")
    word = value.pop("type", "action")
    kind = KINDS.get(word) if isinstance(word, str) else None
    if kind is None:
        raise DecodeError(f"type must be one of {', '.join(KINDS)}")
    line: Definition | Action = _converted(value, kind, word)
    _check(line)
    return line


def _converted(value: dict[str, Any], kind: type[T], what: str) -> T:
    _check_fields(value, kind, what)
    if isinstance(value.get("privacy"), dict):
        _check_fields(value["privacy"], Privacy, "privacy")
    made, error = tried(msgspec.convert, value, kind)
    if error:
        raise DecodeError(unfit(error).replace("the body", "it"))
    return made  # type: ignore[no-any-return]  # what was asked for


def _check_fields(value: dict[str, Any], kind: Any, what: str) -> None:
    """A field with a wrong name would be lost in silence; it may be anything, so only ours is named."""
    known = kind.__struct_encode_fields__
    for name in value:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
            raise DecodeError(f"the {what} has a field that is not known; {hint}")


def _check(line: Definition | Action) -> None:
    match line:
        case Organisation(name=name, public_key=key):
            _, error = tried(check_organisation, name)
            if error:
                raise DecodeError(str(error) if isinstance(error, ConfigError) else "the name is not usable")
            if key is not UNSET and key is not None and decoded(key, KEY) is None:
                raise DecodeError(f"publicKey is not {KEY} bytes in base64url")
        case Action(contact=dict()):
            _check_contact(line)
    if isinstance(line, Action):
        for value, kind, what in (
            (line.donation, Donation, "donation"),
            (line.tracking, Tracking, "tracking"),
        ):
            if value is not None:
                _fits(value, kind, what)


def _check_contact(action: Action) -> None:
    contact = dict(action.contact or {})
    email = contact.get("email")
    if "contactRef" not in contact and not email:
        raise DecodeError("contact needs an email, or the contactRef of a supporter who is known")
    _fits({"contactRef": "-"} | contact, Contact, "contact")
    if email and not ADDRESS.fullmatch(email.strip()):
        raise DecodeError("contact.email is not an e-mail address")
    if not 0 < len(contact.get("contactRef", "-")) <= 64:
        raise DecodeError("contact.contactRef must have 1 to 64 letters")
    if len(contact.get("area") or "") > AREA:
        raise DecodeError(f"contact.area is longer than {AREA} letters")


def _fits(value: dict[str, Any], kind: Any, what: str) -> None:
    _, error = tried(msgspec.convert, value, kind)
    if error:
        reason = unfit(error)
        raise DecodeError(
            reason.replace("the body", what) if reason.startswith("the body") else f"{what}.{reason}"
        )
