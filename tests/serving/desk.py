"""A desk in memory, which decides as the records do, and its callbacks over a real port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx2

from flow.endpoint import Endpoint
from flow.links import Links, Tokens, Verb
from flow.records.linked import Linked
from flow.serving.admission import Policy
from flow.serving.app import application
from flow.serving.desk import Decided, Outcome
from flow.serving.numbers import ServingNumbers
from flow.serving.tokens import ApiTokens
from flow.settings import Secret

SECRET = "the-secret-that-signs-links-to-us"
ACME, OTHER = "acme-token-0123456789abcdef0123456", "other-token-0123456789abcdef012345"
REF = "vMk3-contact_ref"


@dataclass
class Backlog:
    """What is behind the links."""

    down: str | None = None
    published: int = 0
    waiting: int = 0
    refused: int = 0


class MemoryDesk:
    """One signature, number 7, of acme."""

    def __init__(self, locale: str = "de_AT") -> None:
        self.found = Linked(
            action_id=7, contact_ref=REF, organisation="acme", locale=locale, campaign='Save <b>"bees"</b>'
        )
        self.statuses = {"supporter": "confirming", "action": "new"}
        self.calls: list[tuple[Any, ...]] = []
        self.backlog = Backlog()
        self.down: type[Exception] | None = None
        self.empty = False
        """Whether there is nothing to decide: the action has no supporter."""

    async def find(self, action_id: int) -> Linked | None:
        if self.down:
            raise self.down("the database is away")
        return self.found if action_id == 7 else None

    async def decide_supporter(self, action: Linked, verb: Verb, *, doi: bool) -> Decided | None:
        self.calls.append(("supporter", action.action_id, verb, doi))
        return self._decide("supporter", verb)

    async def decide_action(self, action: Linked, verb: Verb) -> Decided | None:
        self.calls.append(("action", action.action_id, verb))
        return self._decide("action", verb)

    def _decide(self, what: str, verb: Verb) -> Decided | None:
        if self.empty:
            return None
        outcome: Outcome = "unchanged" if self.statuses[what] == f"{verb}ed" else "refused"
        if self.statuses[what] in ("new", "confirming"):
            self.statuses[what], outcome = f"{verb}ed", "changed"
        return Decided(supporter=self.statuses["supporter"], action=self.statuses["action"], outcome=outcome)


class Browser:
    """Asks one server, as a person's browser or as a program."""

    def __init__(
        self, desk: MemoryDesk, numbers: ServingNumbers, client: httpx2.AsyncClient, base: str
    ) -> None:
        self.desk = desk
        self.numbers = numbers
        self.base = base
        self.links = Links(base, SECRET)
        self._client = client

    async def get(self, url: str, **headers: str) -> httpx2.Response:
        return await self._ask("GET", url, headers)

    async def post(self, url: str, **headers: str) -> httpx2.Response:
        return await self._ask("POST", url, headers)

    async def act(self, url: str, token: str = ACME, method: str = "GET") -> httpx2.Response:
        """Ask as a program with a token."""
        headers = {"accept": "application/json", "authorization": f"Bearer {token}"}
        return await self._ask(method, url, headers)

    async def _ask(self, method: str, url: str, headers: dict[str, str]) -> httpx2.Response:
        whole = url if url.startswith("http") else self.base + url
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return await self._client.request(method, whole, headers=named)


@asynccontextmanager
async def serving(
    desk: MemoryDesk | None = None, proxies: tuple[str, ...] = (), **policy: Any
) -> AsyncIterator[Browser]:
    """Serve *desk* without a pace, unless *policy* says otherwise."""
    desk = desk or MemoryDesk()
    tokens = ApiTokens.parse(Secret(f"# two\nacme {ACME}\n\nother {OTHER}\n"))
    whole = Policy(**{"tokens": tokens, "moderation": Tokens(SECRET), "pace": 0.0} | policy)
    numbers = ServingNumbers(desk.backlog)
    app = application(desk, whole, numbers, proxies)
    async with (
        Endpoint(app, "127.0.0.1", 0, options="--", extra="serve") as endpoint,
        httpx2.AsyncClient(trust_env=False, verify=False) as client,
    ):
        yield Browser(desk, numbers, client, endpoint.address)
