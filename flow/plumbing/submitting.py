"""Takes actions in: found or made supporters, stored and processed many at a time, each once."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import msgspec
from msgspec import UNSET

from flow.errors import DecodeError
from flow.plumbing.processing import Now
from flow.plumbing.submission import Action, ActionPage, Campaign, Definition, Organisation
from flow.records import submitting
from flow.records.cases import contact_lock
from flow.records.database import Database
from flow.records.defining import define, identify
from flow.records.locking import hold
from flow.records.sealing import sealed
from flow.records.submitting import Page, Stored
from flow.records.working import Work
from flow.transitions import ActionStatus

if TYPE_CHECKING:
    from flow.records.cases import Connection

REFERENCE = 24  # random bytes: it stands in links, so it must not be guessed

Contact: TypeAlias = tuple[int, str]


@dataclass(frozen=True, slots=True)
class Submitted:
    """An action that is stored now."""

    action_id: int
    supporter_id: int | None
    """None: it has no supporter, and is stored for counts."""
    contact_ref: str | None
    """Whoever has it may confirm the supporter."""
    status: ActionStatus | None
    """None: it was submitted before, and nothing was done."""


class Submitting:
    """Stores what is submitted; what a line refers to must be there, or be defined by a line before."""

    def __init__(self, database: Database, *, now: Now = lambda: datetime.now(UTC)) -> None:
        """Work on *database*, which is open."""
        self._database = database
        self._now = now

    async def define(self, definition: Definition) -> Literal["made", "there"]:
        """Make an organisation, a campaign or an action page, or change it in what is said of it.

        Raises:
            DecodeError: it names something that does not exist.
            DatabaseError: it could not be done.
        """
        async with self._database.begin() as connection:
            await hold(connection, "definition", [definition.name])
            values = {
                name: value
                for name in definition.__struct_fields__
                if (value := getattr(definition, name)) is not UNSET and name not in REFERRING
            }
            if isinstance(definition, Campaign | ActionPage):
                values["organisation_id"] = await _known(
                    connection, "organisations", definition.organisation, "organisation"
                )
            if isinstance(definition, ActionPage):
                values["campaign_id"] = await _known(connection, "campaigns", definition.campaign, "campaign")
            made = await define(connection, TABLES[type(definition)], definition.name, values)
        return "made" if made else "there"

    async def submit(self, actions: Sequence[Action]) -> list[Submitted | DecodeError]:
        """Store and process *actions* in one transaction; the error of a wrong one is returned in its place.

        Raises:
            RowRefused: one of them cannot be stored; none is.
            DatabaseError: it could not be done; none is stored.
        """
        async with self._database.begin() as connection:
            batch = Batch(connection, self._now())
            return await batch.submit(actions)


class Batch:
    """Some actions on their way into the records, in one transaction."""

    def __init__(self, connection: "Connection", at: datetime) -> None:
        self._connection = connection
        self._at = at
        self._pages: dict[str, Page] = {}
        self._known: dict[str, Stored] = {}  # by submission
        self._references: dict[Contact, str] = {}  # by organisation and address

    async def submit(self, actions: Sequence[Action]) -> list[Submitted | DecodeError]:
        """Do it all, with the locks of a kind taken at once, in the order submission, address, contact."""
        self._pages = await submitting.pages(self._connection, {action.action_page for action in actions})
        names = {name for action in actions for name in (action.submission, *action.links) if name}
        await hold(self._connection, "submission", names)
        self._known = await submitting.submitted(self._connection, names)
        results: dict[int, Submitted | DecodeError] = {}
        fresh: dict[int, Action] = {}
        again: dict[int, Action] = {}
        first: set[str] = set()
        for place, action in enumerate(actions):
            if action.action_page not in self._pages:
                results[place] = DecodeError("its actionPage does not exist: define it first")
            elif action.submission in self._known or action.submission in first:
                again[place] = action
            else:
                fresh[place] = action
                first |= {action.submission} if action.submission else set()
        stored = await self._store(list(fresh.values()))
        results |= zip(fresh, stored, strict=True)
        for action, one in zip(fresh.values(), stored, strict=True):
            if action.submission:
                page = self._pages[action.action_page].id
                known = Stored(one.action_id, one.supporter_id, one.contact_ref, page)
                self._known[action.submission] = known
        results |= {place: self._repeated(action) for place, action in again.items()}
        return [results[place] for place in range(len(actions))]

    def _repeated(self, action: Action) -> Submitted | DecodeError:
        """Return the action that was submitted by this name before, if it is this one."""
        known = self._known[str(action.submission)]
        if known.page_id != self._pages[action.action_page].id:
            return DecodeError(
                "its submission is that of an action on another page: give it a name of its own"
            )
        return Submitted(known.id, known.supporter_id, known.contact_ref, None)

    async def _store(self, actions: list[Action]) -> list[Submitted]:
        contacts = await self._contacts(actions)
        supporters = await self._supporters(actions, contacts)
        rows = [self._action(one, who) for one, who in zip(actions, supporters, strict=True)]
        ids = await submitting.add_actions(self._connection, rows)
        for one, who in zip(actions, supporters, strict=True):
            if who is not None and one.links:
                await submitting.link(self._connection, who, self._pages[one.action_page], one.links)
        work = await Work.begin(self._connection, {who for who in supporters if who is not None})
        await work.finish(self._at)
        statuses = {case.action_id: case.action_status for case in work.cases}
        return [
            Submitted(id_, who, contact[1] if contact and who else None, statuses.get(id_, "new"))
            for id_, who, contact in zip(ids, supporters, contacts, strict=True)
        ]

    async def _contacts(self, actions: list[Action]) -> list[Contact | None]:
        """Find or make the contact reference of each, and take the locks of all of them."""
        addresses = {
            (self._pages[one.action_page].organisation_id, one.email)
            for one in actions
            if one.email and one.contact_ref is None
        }
        await hold(self._connection, "address", [f"{number} {email}" for number, email in addresses])
        if addresses:
            self._references = await submitting.references(self._connection, addresses)
        found: list[Contact | None] = []
        for one in actions:
            page = self._pages[one.action_page]
            reference = one.contact_ref
            if reference is None and one.email:
                address = (page.organisation_id, one.email)
                reference = self._references.setdefault(address, secrets.token_urlsafe(REFERENCE))
            found.append(None if reference is None else (page.campaign_id, reference))
        await hold(self._connection, "contact", [contact_lock(*one) for one in found if one])
        return found

    async def _supporters(self, actions: list[Action], contacts: list[Contact | None]) -> list[int | None]:
        """Add the supporters who bring their personal data; find the others, who must be known."""
        new = [
            (place, self._supporter(one, contact), self._contact(one))
            for place, (one, contact) in enumerate(zip(actions, contacts, strict=True))
            if contact is not None and one.personal
        ]
        ids = await submitting.add_supporters(
            self._connection, [supporter for _, supporter, _ in new], [contact for *_, contact in new]
        )
        owners: list[int | None] = [None] * len(actions)
        for (place, *_), id_ in zip(new, ids, strict=True):
            owners[place] = id_
        named = {
            place: (self._pages[one.action_page].organisation_id, *contact)
            for place, (one, contact) in enumerate(zip(actions, contacts, strict=True))
            if contact is not None and owners[place] is None
        }
        if named:
            latest = await submitting.latest(self._connection, named.values())
            for place, whom in named.items():
                owners[place] = latest.get(whom)
        return owners

    def _supporter(self, action: Action, contact: Contact) -> dict[str, Any]:
        page = self._pages[action.action_page]
        privacy = action.privacy
        return {
            "organisation_id": page.organisation_id,
            "campaign_id": page.campaign_id,
            "action_page_id": page.id,
            "contact_ref": contact[1],
            "with_consent": privacy.with_consent,
            "opt_in": privacy.opt_in,
            "given_at": privacy.given_at or (self._at if privacy.with_consent else None),
            "created_at": action.created_at or self._at,
        }

    def _contact(self, action: Action) -> dict[str, Any]:
        page = self._pages[action.action_page]
        personal = action.personal
        clear = msgspec.json.encode(personal)
        box = sealed(clear, page.public_key) if page.public_key else None
        return {
            "email": action.email,
            "first_name": personal.get("firstName"),
            "area": personal.get("area"),
            "payload": box.payload if box else clear.decode(),
            "nonce": box.nonce if box else None,
            "encrypt_key": box.encrypt_key if box else None,
            "sign_key": box.sign_key if box else None,
        }

    def _action(self, action: Action, supporter_id: int | None) -> dict[str, Any]:
        page = self._pages[action.action_page]
        return {
            "supporter_id": supporter_id,
            "organisation_id": page.organisation_id,
            "campaign_id": page.campaign_id,
            "action_page_id": page.id,
            "action_type": action.action_type,
            "testing": action.testing,
            "custom_fields": action.custom_fields,
            "donation": action.donation,
            "tracking": action.tracking,
            "submission": action.submission,
            "created_at": action.created_at or self._at,
        }


TABLES: dict[type[Definition], str] = {
    Organisation: "organisations",
    Campaign: "campaigns",
    ActionPage: "action_pages",
}
REFERRING = ("name", "organisation", "campaign")


async def _known(connection: "Connection", kind: str, name: str, what: str) -> int:
    found = await identify(connection, kind, name)
    if found is None:
        raise DecodeError(f"its {what} does not exist: define it first")
    return found
