"""The messages of the campaign server, field by field, as they travel through the queues.

Unknown fields are ignored here and stay in `Message.raw`. To read more fields, subclass: what is declared as
`class MyAction(ActionMessage, frozen=True, kw_only=True)` reads the same schema. The repr shows ids only.
"""

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

from msgspec import Meta, Struct, field

Id: TypeAlias = Annotated[int, Meta(ge=0, le=2**63 - 1, extra={"lax": True})]
"""A number of the campaign server's database; old senders write it as text, `"614"`, which is accepted."""

Time: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""An aware point in time; ISO 8601 text without an offset is taken as UTC."""

CustomFields: TypeAlias = dict[str, str | int | float | bool | list[str | int | float] | None]
"""What a form asked beyond the contact, by the name the form gave it."""

EVENT_TYPES = frozenset({"email_status", "campaign_updated", "confirm_created"})
"""The event types known today; others are skipped."""
EVENT_ALIASES: Mapping[str, str] = MappingProxyType({"supporter.email_status": "email_status"})
"""Other names that servers give to these types: their documentation calls one by its routing key."""


class Wire(Struct, frozen=True, kw_only=True, rename="camel", gc=False):
    """A part of a message; printed without its contents.

    The garbage collector does not track them: what was read from JSON holds no cycles.
    """

    def __repr__(self) -> str:
        """Show the ids that are numbers and nothing else."""
        return (
            f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in self.__rich_repr__())})"
        )

    def __rich_repr__(self) -> list[tuple[str, Any]]:
        """Return what the repr may show; msgspec's own shows every field."""
        ids = [name for name in self.__struct_fields__ if name == "id" or name.endswith("_id")]
        return [(name, getattr(self, name)) for name in ids if isinstance(getattr(self, name), int)]


class IdsMessage(Wire, tag_field="schema", tag="proca:ids:1", frozen=True, kw_only=True):
    """Ids only; the pipelines of the system itself read the records from the database."""

    action_id: Id
    action_page_id: Id
    org_id: Id
    supporter_id: Id | None = None
    """Set when it is about a supporter, who is to be confirmed, and not about the action."""
    stage: str | None = None
    """`deliver`, `supporter_confirm` or `action_confirm`."""

    @property
    def record_id(self) -> str:
        """The action's id."""
        return str(self.action_id)


class Donation(Wire, frozen=True, kw_only=True):
    """The donation of an action that is one."""

    amount: Decimal | None = None
    """In the smallest unit of the currency (cents), as the campaign server stores it."""
    currency: str | None = None
    """Three letters, ISO 4217."""
    frequency_unit: str | None = None
    """`one_off`, `weekly`, `monthly`, …"""
    payload: Any = None
    """What the payment provider said, as it came."""


class Action(Wire, frozen=True, kw_only=True):
    """What a supporter did."""

    action_type: str
    """`register`, `share`, `mail2target`, `donate`, …"""
    created_at: Time
    testing: bool = False
    """A test of the form: not to be counted, and not to be mailed to anybody."""
    custom_fields: CustomFields = field(default_factory=dict)
    donation: Donation | None = None


class ActionPage(Wire, frozen=True, kw_only=True):
    """The page, of one organisation in one language, on which the action was done."""

    name: str
    locale: str
    """Language, with or without a country: `de`, `de_AT`."""
    thank_you_template: str | None = None
    """The name of the template of the thank-you mail; None: no mail."""
    thank_you_template_ref: str | None = None
    """The mail provider's name for that template; older than `thank_you_template`."""
    supporter_confirm_template: str | None = None


class Org(Wire, frozen=True, kw_only=True):
    """An organisation: its short name, which is in queue names, and its title for people."""

    name: str
    title: str = ""


class Campaign(Wire, frozen=True, kw_only=True):
    """A campaign, which many organisations may run together."""

    name: str
    title: str = ""
    id: Id | None = None
    """In `campaign_updated` only; elsewhere it is the message's `campaign_id`."""
    external_id: int | str | None = None
    """What the campaign's owner calls it in another system."""
    contact_schema: str = "basic"
    """Which personal data the form asks: `basic`, `eci`, …"""
    config: Any = None
    """The campaign's settings as they came, in `campaign_updated` only."""
    org: Org | None = None
    """The owner, in `campaign_updated` only."""


class Address(Wire, rename=None, frozen=True, kw_only=True):
    """A postal address; how much of it is there depends on the form."""

    street: str | None = None
    street_number: str | None = None
    streetNumber: str | None = None  # the same: senders write it in either way
    locality: str | None = None
    region: str | None = None
    postcode: str | None = None
    country: str | None = None

    @property
    def house_number(self) -> str | None:
        """The number in the street, whichever way the sender wrote it."""
        return self.street_number or self.streetNumber


class Contact(Wire, frozen=True, kw_only=True):
    """Who did it: personal data, in part or wholly in `personal_info` when that is encrypted."""

    contact_ref: str
    """The fingerprint by which the same person is recognised; no personal data can be read from it."""
    email: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    dupe_rank: int | None = None
    """0 for a person's first action on the campaign, then counting up; None: not said."""
    area: str | None = None
    """Country or constituency, not encrypted."""
    phone: str | None = None
    street: str | None = None
    locality: str | None = None
    region: str | None = None
    country: str | None = None
    postcode: str | None = None
    birth_date: str | None = None
    address: Address | None = None


class PublicKey(Wire, frozen=True, kw_only=True):
    """One of the two keys of an encrypted contact."""

    public: str
    """base64url."""
    id: Id | None = None
    """The key's number at the campaign server; None in messages of the first generation."""


class PersonalInfo(Wire, frozen=True, kw_only=True):
    """The encrypted contact: NaCl `crypto_box`; its clear text is JSON, to be merged over `Contact`."""

    payload: str
    """The box, base64url."""
    nonce: str
    """24 bytes, base64url."""
    encrypt_key: PublicKey
    """The recipient's."""
    sign_key: PublicKey
    """The sender's."""


class Privacy(Wire, frozen=True, kw_only=True):
    """What the supporter agreed to, and whether mail reaches them."""

    with_consent: bool = False
    """The action came with a consent, given or implied, to process the personal data."""
    opt_in: bool | None = None
    """Wants to hear from the organisation; None: was not asked."""
    given_at: Time | None = None
    email_status: str | None = None
    """None (not known), `double_opt_in`, `bounce`, `blocked`, `spam` or `unsub`."""
    email_status_changed: Time | None = None


class Tracking(Wire, frozen=True, kw_only=True):
    """Where the supporter came from: the utm parameters of the link, and the address of the page."""

    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    location: str | None = None


class ActionMessage(Wire, tag_field="schema", tag="proca:action:2", frozen=True, kw_only=True):
    """An action with everything known about it; also made of the older `proca:action:1`."""

    action_id: Id
    action_page_id: Id
    campaign_id: Id
    org_id: Id | None = None
    """None in messages of the first generation."""
    stage: str | None = None
    """`deliver`, `supporter_confirm` or `action_confirm`."""
    action: Action
    action_page: ActionPage
    campaign: Campaign
    org: Org | None = None
    contact: Contact
    personal_info: PersonalInfo | None = None
    """Set when the contact is encrypted."""
    privacy: Privacy | None = None
    """None: no consent was asked for."""
    tracking: Tracking | None = None

    @property
    def record_id(self) -> str:
        """The action's id."""
        return str(self.action_id)

    @property
    def occurred_at(self) -> datetime:
        """When the action was done."""
        return self.action.created_at


class Supporter(Wire, frozen=True, kw_only=True):
    """The person an event is about."""

    contact: Contact | None = None
    privacy: Privacy | None = None
    """With the new `email_status`."""
    personal_info: PersonalInfo | None = None


class EventMessage(Wire, tag_field="schema", tag="proca:event:2", frozen=True, kw_only=True):
    """Something that happened apart from an action; which parts are there depends on `event_type`."""

    event_type: str
    """`email_status`, `campaign_updated` or `confirm_created`; others never reach a pipeline."""
    timestamp: Time | None = None
    action_id: Id | None = None
    action_page_id: Id | None = None
    campaign_id: Id | None = None
    org_id: Id | None = None
    supporter: Supporter | None = None
    """In `email_status`."""
    action: Action | None = None
    action_page: ActionPage | None = None
    campaign: Campaign | None = None
    """Whole in `campaign_updated`, in short in `email_status`."""
    org: Org | None = None
    tracking: Tracking | None = None
    confirm: dict[str, Any] | None = None
    """In `confirm_created`: the confirmation that was asked for, with its links and code, as it came."""

    @property
    def record_id(self) -> str | None:
        """The id of the action, or else of the campaign; None when neither is named."""
        known = self.action_id if self.action_id is not None else self.campaign_id
        return None if known is None else str(known)

    @property
    def occurred_at(self) -> datetime | None:
        """When it happened, if the sender said so."""
        return self.timestamp
