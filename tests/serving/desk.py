"""A desk in memory, which decides as the records do, and its callbacks over a real port."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2

from flow.endpoint import Endpoint
from flow.errors import DatabaseError
from flow.links import Links, Tokens, Verb
from flow.records.linked import Linked
from flow.serving.app import Policy, application
from flow.serving.desk import Decided
from flow.serving.tokens import ApiTokens
from flow.settings import Secret

SECRET = "the-secret-that-signs-links-to-us"
ACME, OTHER = "acme-token-0123456789abcdef0123456", "other-token-0123456789abcdef012345"
REF = "vMk3-contact_ref"


class MemoryDesk:
    """One signature, number 7, of acme."""

    def __init__(self, locale: str = "de_AT") -> None:
        self.found = Linked(
            action_id=7, contact_ref=REF, organisation="acme", locale=locale, campaign='Save <b>"bees"</b>'
        )
        self.statuses = {"supporter": "confirming", "action": "new"}
        self.calls: list[tuple[Any, ...]] = []
        self.down: type[DatabaseError] | None = None

    async def find(self, action_id: int) -> Linked | None:
        if self.down:
            raise self.down("the database is away")
        return self.found if action_id == 7 else None

    async def decide_supporter(self, action: Linked, verb: Verb, *, doi: bool) -> Decided:
        self.calls.append(("supporter", action.action_id, verb, doi))
        return self._decide("supporter", verb)

    async def decide_action(self, action: Linked, verb: Verb) -> Decided:
        self.calls.append(("action", action.action_id, verb))
        return self._decide("action", verb)

    def _decide(self, what: str, verb: Verb) -> Decided:
        if self.statuses[what] in ("new", "confirming"):
            self.statuses[what] = f"{verb}ed"
        return Decided(
            supporter=self.statuses["supporter"],
            action=self.statuses["action"],
            agreed=self.statuses[what] == f"{verb}ed",
        )


class Browser:
    """Asks one server, as a person's browser or as a program."""

    def __init__(self, desk: MemoryDesk, client: httpx2.AsyncClient, base: str) -> None:
        self.desk = desk
        self.base = base
        self.links = Links(base, SECRET)
        self._client = client

    async def get(self, url: str, **headers: str) -> httpx2.Response:
        return await self._ask("GET", url, headers)

    async def post(self, url: str, **headers: str) -> httpx2.Response:
        return await self._ask("POST", url, headers)

    async def act(self, url: str, token: str = ACME) -> httpx2.Response:
        """Ask as a program with a token."""
        return await self.get(url, accept="application/json", authorization=f"Bearer {token}")

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

    async def ready() -> str | None:
        return "the database is away" if desk.down else None

    app = application(desk, whole, ready, proxies)
    async with (
        Endpoint(app, "127.0.0.1", 0, options="--", extra="serve") as endpoint,
        httpx2.AsyncClient(trust_env=False, verify=False) as client,
    ):
        yield Browser(desk, client, endpoint.address)
