"""Delivers signatures to a CRM: one bulk call per action page and organisation, as docs/crm-api.md says."""

import hashlib
import re
import time
from collections.abc import AsyncIterator, Callable, Hashable, Mapping
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Literal

import anyio
import msgspec

from flow import Batch, Batching, Message, Pipeline, Reject, Retries, Retry, Secret, Settings, Skip, schema
from flow.crypto import KeyStore
from flow.schema import ActionMessage, EventMessage, Privacy
from flow.targets.http import HttpTarget, address, authorities

Mode = Literal["all", "with_consent", "opt_in", "double_opt_in"]
WANTED: Mapping[Mode, Callable[[Privacy], bool]] = {
    "all": lambda privacy: True,
    "with_consent": lambda privacy: privacy.with_consent,
    "opt_in": lambda privacy: privacy.opt_in is True,
    "double_opt_in": lambda privacy: privacy.email_status == "double_opt_in",
}
SUBSCRIBE = {"double_opt_in": True, "bounce": False, "blocked": False, "spam": False, "unsub": False}
CAMPAIGN_KEPT = 600.0  # seconds; the news that a campaign changed may have gone to another worker


class CrmSettings(Settings):
    """Where the CRM is and whom it gets: CRM_URL, CRM_TOKEN (or CRM_TOKEN_FILE), CRM_MODE and so on."""

    prefix: ClassVar = "CRM"
    url: str
    token: Secret
    mode: Mode = "all"
    timeout: float = 30.0  # seconds for one call
    cafile: str | None = None  # authorities to trust instead of the machine's
    keys: KeyStore = KeyStore()  # CRM_KEYS_FILE: opens encrypted contacts
    test_url: str | None = None  # where test actions go; None: they are skipped
    test_token: Secret | None = None

    def __post_init__(self) -> None:
        address("the CRM", self.url)  # refuses what is wrong before anything starts
        address("the test CRM", self.test_url or self.url)
        authorities("the CRM", self.cafile)


class Item(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the CRM is told: a signature, or what became of the address of somebody who signed."""

    id: str  # the same at every attempt, so that the CRM applies it once
    subscribe: bool | None  # news of an address: whether mail may go there from now on; None: a signature
    contact: schema.Contact
    privacy: Privacy
    action: schema.Action | None
    action_page: schema.ActionPage | None
    action_page_id: int | None
    campaign: schema.Campaign | None
    crm_campaign: str | None = None  # what the CRM calls the campaign
    org_id: int | None
    tracking: schema.Tracking | None

    def __repr__(self) -> str:
        """Name nobody."""
        return f"Item({self.id})"


class Result(msgspec.Struct, rename="camel"):
    """What the CRM says of one item."""

    id: str
    status: str
    reason: str | None = None
    after: float | None = None
    contact_id: str | int | None = None

    @property
    def code(self) -> str:
        """The reason if it is one word like `no_such_country`: more than that may name a person."""
        return f": {self.reason}" if self.reason and re.fullmatch("[a-z_]{1,40}", self.reason) else ""


class Found(msgspec.Struct):
    """A campaign as the CRM knows it."""

    id: str


class Crm(Pipeline[ActionMessage | EventMessage, Item]):
    """Tell a CRM who signed, and what became of their addresses."""

    queue = "acme.crm"
    batching = Batching(size=100, timeout=2.0)
    retries = Retries(attempts=8)
    settings: CrmSettings

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        crm = self.settings
        self.campaigns: dict[Hashable, tuple[str, float]] = {}
        self.lookup = anyio.Lock()
        options: Any = {"timeout": crm.timeout, "cafile": crm.cafile}
        async with (
            HttpTarget("the CRM", crm.url, crm.token, **options) as self.live,
            HttpTarget("the test CRM", crm.test_url or crm.url, crm.test_token, **options) as self.test,
        ):
            yield

    def handle_message(self, message: Message[ActionMessage | EventMessage]) -> Item:
        body = message.body
        if testing(body) and not self.settings.test_url:
            raise Skip("a test action")
        if isinstance(body, EventMessage):
            return self.news(body, message.raw)
        if not WANTED[self.settings.mode](body.privacy or Privacy()):
            raise Skip(f"not wanted: the mode is {self.settings.mode}")
        return item(f"action-{body.action_id}", body, self.settings.keys.opened(body), subscribe=None)

    def news(self, body: EventMessage, raw: bytes) -> Item:
        """Return what an event means to the CRM; news of an address count in every mode."""
        if body.event_type == "campaign_updated":
            self.campaigns.clear()
            raise Skip("campaigns are looked up again")
        privacy = body.supporter and body.supporter.privacy
        subscribe = SUBSCRIBE.get(privacy.email_status or "") if privacy else None
        if body.event_type != "email_status" or body.supporter is None or subscribe is None:
            raise Skip("nothing to tell the CRM")
        supporter = self.settings.keys.opened(body.supporter)
        return item(f"status-{hashlib.sha256(raw).hexdigest()}", body, supporter, subscribe)

    def batch_key(self, message: Message[Item]) -> Hashable:
        one = message.body
        return one.action_page_id, one.org_id, one.campaign and one.campaign.name, testing(one)

    async def handle_batch(self, batch: Batch[Item]) -> None:
        crm = self.test if testing(batch[0].body) else self.live
        campaign = await self.campaign(crm, batch[0].body.campaign)
        items = {one.id: msgspec.structs.replace(one, crm_campaign=campaign) for one in batch.bodies}
        tries = " ".join(f"{message.body.id}/{message.attempt}" for message in batch)
        results = await crm.call(
            "POST",
            "contacts",
            list[Result],
            body=list(items.values()),
            headers={"Idempotency-Key": hashlib.sha256(tries.encode()).hexdigest()},
            alone=len(items) == 1,
        )
        found = {result.id: result for result in results}
        for message in batch:
            result = found.get(message.body.id)
            if result is None:
                batch.retry(message, "the CRM did not say what became of it")
            elif result.status == "invalid":
                batch.reject(message, f"the CRM calls it invalid{result.code}")
            elif result.status != "ok":
                batch.retry(message, f"the CRM does not take it now{result.code}", result.after)
            elif result.contact_id is not None:
                message.target_id = str(result.contact_id)

    async def campaign(self, crm: HttpTarget, campaign: schema.Campaign | None) -> str | None:
        """Return what the CRM calls *campaign*; it is asked once, and again after 10 minutes."""
        if campaign is None:
            return None
        key = crm.name, campaign.name
        async with self.lookup:
            known, since = self.campaigns.get(key, ("", 0.0))
            if not known or time.monotonic() - since > CAMPAIGN_KEPT:
                named = {"name": campaign.name, "externalId": campaign.external_id or ""}
                found = await crm.call("GET", "campaigns", list[Found], params=named)
                if not found:
                    raise Retry("the CRM does not know the campaign")
                known = found[0].id
                self.campaigns[key] = known, time.monotonic()
        return known


def testing(about: ActionMessage | EventMessage | Item) -> bool:
    """Tell whether somebody only tried the form out."""
    return about.action is not None and about.action.testing


def item(
    name: str,
    body: ActionMessage | EventMessage,
    who: ActionMessage | schema.Supporter,
    subscribe: bool | None,
) -> Item:
    """Return what the CRM is told of *who*, under the idempotency key *name*."""
    if who.contact is None:
        raise Reject("it does not say who it is about")
    return Item(
        id=name,
        subscribe=subscribe,
        contact=who.contact,
        privacy=who.privacy or Privacy(),
        action=body.action,
        action_page=body.action_page,
        action_page_id=body.action_page_id,
        campaign=body.campaign,
        org_id=body.org_id,
        tracking=body.tracking,
    )
