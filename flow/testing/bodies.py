"""Bodies as the campaign server sends them, about people and places that do not exist."""

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, TypeVar

import msgspec
from msgspec import Struct, structs

from flow.options import suggestion
from flow.reasons import unfit
from flow.schema import (
    Action,
    ActionMessage,
    ActionPage,
    Address,
    Campaign,
    Contact,
    EventMessage,
    IdsMessage,
    Org,
    Privacy,
    Supporter,
    Tracking,
)

W = TypeVar("W", bound=Struct)
Path = tuple[str, ...]

NUMBERS = count(1)  # of actions; every body has another one
BEGINNING = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
SHORT = {"page": "action_page", "org": "org", "campaign": "campaign"}
"""What may be given by its id, its name, or as a whole."""


def action(**changes: Any) -> ActionMessage:
    """Make a `proca:action:2`: a signature with consent, each by another person with another id.

    *changes* name fields of the message or of any part in it: `testing=True`, `email="ada@example.org"`,
    `contact=Contact(…)`. Of several fields of one name the one nearest to the top is meant. `page`,
    `org` and `campaign` take an id, a name or the whole part; `id` is the action's.

    Raises:
        TypeError: there is no such field, or several; or the value does not fit it.
    """
    number = next(NUMBERS)
    return changed("action", signature(number), changes)


def event(event_type: str = "email_status", **changes: Any) -> EventMessage:
    """Make a `proca:event:2` with the parts that *event_type* has, changed like an `action`.

    An `email_status` says that mail to the person of an action bounces.

    Raises:
        TypeError: there is no such field, or several; or the value does not fit it.
    """
    number = next(NUMBERS)
    make = EVENTS.get(event_type, confirm_created)
    return changed("event", structs.replace(make(signature(number)), event_type=event_type), changes)


def ids(**changes: Any) -> IdsMessage:
    """Make a `proca:ids:1` about an action, changed like an `action`.

    Raises:
        TypeError: there is no such field; or the value does not fit it.
    """
    number = next(NUMBERS)
    return changed("ids", IdsMessage(action_id=number, action_page_id=1, org_id=1, stage="deliver"), changes)


def signature(number: int) -> ActionMessage:
    """Return the action with this *number*."""
    at = BEGINNING + timedelta(seconds=number)
    return ActionMessage(
        action_id=number,
        action_page_id=1,
        campaign_id=1,
        org_id=1,
        stage="deliver",
        action=Action(action_type="register", created_at=at, custom_fields={"comment": "For the rivers"}),
        action_page=ActionPage(name="clean_water/river_club/en", locale="en", thank_you_template="thank_you"),
        campaign=Campaign(name="clean_water", title="Clean water", external_id=614),
        org=Org(name="river_club", title="River Club"),
        contact=Contact(
            contact_ref=f"fingerprint-{number}",
            email=f"supporter+{number}@example.org",
            first_name="Ada",
            last_name="Waters",
            dupe_rank=0,
            area="IE",
            country="IE",
            postcode="X00 0000",
            address=Address(street="Weir Lane", street_number="1", locality="Riverton", country="IE"),
        ),
        privacy=Privacy(with_consent=True, opt_in=True, given_at=at),
        tracking=Tracking(
            source="newsletter", medium="email", campaign="spring", location="https://example.org/sign"
        ),
    )


def email_status(signed: ActionMessage) -> EventMessage:
    """Return that mail to who *signed* bounces."""
    at = signed.action.created_at + timedelta(hours=1)
    privacy = structs.replace(signed.privacy or Privacy(), email_status="bounce", email_status_changed=at)
    return EventMessage(
        event_type="email_status",
        timestamp=at,
        action_id=signed.action_id,
        action_page_id=signed.action_page_id,
        campaign_id=signed.campaign_id,
        org_id=signed.org_id,
        supporter=Supporter(contact=signed.contact, privacy=privacy),
        action=signed.action,
        action_page=signed.action_page,
        campaign=signed.campaign,
    )


def campaign_updated(signed: ActionMessage) -> EventMessage:
    """Return that the campaign of *signed* has changed."""
    campaign = structs.replace(signed.campaign, id=signed.campaign_id, config={}, org=signed.org)
    return EventMessage(
        event_type="campaign_updated",
        timestamp=signed.action.created_at,
        campaign_id=signed.campaign_id,
        org_id=signed.org_id,
        campaign=campaign,
    )


def confirm_created(signed: ActionMessage) -> EventMessage:
    """Return that somebody is to confirm something about the campaign of *signed*."""
    confirm = {
        "code": "123456",
        "email": "coordinator@example.org",
        "operation": "add_partner",
        "objectId": signed.campaign_id,
        "acceptLink": "https://example.org/accept",
    }
    return EventMessage(
        event_type="confirm_created",
        timestamp=signed.action.created_at,
        org_id=signed.org_id,
        confirm=confirm,
    )


EVENTS: Mapping[str, Callable[[ActionMessage], EventMessage]] = {
    "email_status": email_status,
    "campaign_updated": campaign_updated,
}


def changed(maker: str, body: W, changes: Mapping[str, Any]) -> W:
    """Return *body* with *changes*, read again from JSON as a pipeline would.

    Raises:
        TypeError: there is no such field, or several; or the value does not fit it.
    """
    named = dict(expanded(maker, body, name, value) for name, value in changes.items())
    for path in sorted(named, key=len):  # a whole part first, then what is in it
        body = with_value(body, path, named[path])
    try:
        return msgspec.json.decode(msgspec.json.encode(body), type=type(body))
    except msgspec.ValidationError as error:
        raise TypeError(f"{maker}() would make a body that cannot be read: {unfit(error)}") from None


def expanded(maker: str, body: Struct, name: str, value: Any) -> tuple[Path, Any]:
    """Return the path of the field that *name* means in *body*, and its value."""
    if name == "id":
        name = "action_id"
    elif name in SHORT and isinstance(value, int):
        name = f"{SHORT[name]}_id"
    elif name in SHORT:
        name = SHORT[name]
        if isinstance(value, str):
            return (name, "name"), value
    found = nearest(body, name)
    if not found:
        raise TypeError(f"{maker}() has no field {name}{suggestion(name, {*fields(body), *SHORT})}")
    if len(found) > 1:
        paths = " or ".join(".".join(path) for path in found)
        raise TypeError(f"{maker}() does not know whether {name} is {paths}; give it the whole part")
    return found[0], value


def nearest(body: Struct, name: str) -> list[Path]:
    """Return the paths to the fields called *name* that lie nearest to the top of *body*."""
    level: list[tuple[Path, Struct]] = [((), body)]
    while level:
        found = [(*path, name) for path, part in level if name in part.__struct_fields__]
        if found:
            return found
        level = [((*path, inner), whole) for path, part in level for inner, whole in parts(part)]
    return []


def parts(body: Struct) -> Iterator[tuple[str, Struct]]:
    """Yield the parts of *body* with their names."""
    for name in body.__struct_fields__:
        if isinstance(value := getattr(body, name), Struct):
            yield name, value


def fields(body: Struct) -> Iterator[str]:
    """Yield the names of all fields of *body* and its parts."""
    yield from body.__struct_fields__
    for _, part in parts(body):
        yield from fields(part)


def with_value(body: W, path: Path, value: Any) -> W:
    """Return *body* with another value at *path*.

    Raises:
        TypeError: a part on the way is not there.
    """
    name, *rest = path
    if rest:
        part = getattr(body, name)
        if not isinstance(part, Struct):
            raise TypeError(f"there is no {name} to set {rest[-1]} in")
        value = with_value(part, tuple(rest), value)
    return structs.replace(body, **{name: value})
