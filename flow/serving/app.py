"""The links as an ASGI application: what is asked, who may ask it, and what is answered."""

import hmac
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias
from urllib.parse import urlsplit

import anyio

from flow.endpoint import missing
from flow.errors import ConfigError, DatabaseError
from flow.links import VERBS, Tokens, Verb
from flow.records.linked import Linked
from flow.serving.desk import Decided, Desk
from flow.serving.limiter import AddressLimiter
from flow.serving.pages import headers, page
from flow.serving.texts import language_of, negotiated
from flow.serving.tokens import ApiTokens

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

PACE = 0.25  # seconds that every answer takes at least, so that its time does not tell a right reference
LARGEST_ID = 2**63 - 1

log = logging.getLogger("flow")

Who: TypeAlias = Literal["supporter", "moderator", "program"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `flow serve` was told."""

    tokens: ApiTokens
    """By which programs are known."""
    moderation: Tokens | None = None
    """Which moderators' links are good; None: none is."""
    redirect_hosts: frozenset[str] = frozenset()
    """Where a browser may be sent afterwards."""
    requests: int = 60
    """How many requests an address has in a minute."""
    pace: float = PACE
    """Seconds that every answer takes at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that may be answered: what is decided, by whom."""

    found: Linked
    verb: Verb
    who: Who
    moderating: bool

    @property
    def page(self) -> str:
        """The page that asks a person."""
        return f"moderate_{self.verb}" if self.moderating else self.verb


class Refused(Exception):
    """The request is not answered with what it asked for, but with the page *name*."""

    def __init__(self, name: str, status: int, **headers: str) -> None:
        super().__init__(name)
        self.name = name
        self.status = status
        self.headers = headers


class Callbacks:
    """Answers the links of supporters, moderators and programs."""

    def __init__(self, desk: Desk, policy: Policy) -> None:
        """Decide at the *desk* as the *policy* allows."""
        self._desk = desk
        self._policy = policy
        self._limiter = AddressLimiter(policy.requests, 60.0)
        self._headers = headers(policy.redirect_hosts)

    async def supporter(self, request: "Request") -> "Response":
        """Answer a supporter's link, whose reference is the contact's."""
        return await self._answer(request, moderating=False)

    async def moderator(self, request: "Request") -> "Response":
        """Answer a moderator's link, whose reference is a signed token; a program needs none."""
        return await self._answer(request, moderating=True)

    async def lost(self, request: "Request", _: Exception) -> "Response":
        """Answer what is no link, such as one that was cut off in a mail."""
        from starlette.responses import JSONResponse

        if "application/json" in request.headers.get("accept", ""):
            return JSONResponse({"error": "not_found"}, 404, self._headers)
        language = negotiated(request.headers.get("accept-language", ""))
        response = self._page(language, "not_found", status=404)
        response.headers.update(self._headers)
        return response

    async def _answer(self, request: "Request", *, moderating: bool) -> "Response":
        """Answer, no sooner than the pace."""
        from starlette.responses import JSONResponse

        deadline = anyio.current_time() + self._policy.pace
        json = "application/json" in request.headers.get("accept", "")
        language = negotiated(request.headers.get("accept-language", ""))
        try:
            asked = await self._asked(request, moderating)
            language = language_of(asked.found.locale)
            if request.method == "POST" or (asked.who == "program" and json):
                decided = await self._decide(asked, request)
                response = self._told(asked, decided, request, json)
            else:
                response = self._page(language, asked.page, asked.found)
        except Refused as refused:
            if json:
                response = JSONResponse({"error": refused.name}, refused.status)
            else:
                response = self._page(language, refused.name, status=refused.status)
            response.headers.update(refused.headers)
        except DatabaseError as error:
            log.error("a link could not be answered: %s", error)
            response = (
                JSONResponse({"error": "away"}, 503) if json else self._page(language, "away", status=503)
            )
            response.headers["retry-after"] = "60"
        response.headers.update(self._headers)
        await anyio.sleep_until(deadline)
        return response

    async def _asked(self, request: "Request", moderating: bool) -> Asked:
        """Return what is asked, by somebody who may.

        Raises:
            Refused: nobody may know more than that it does not work.
        """
        organisation = self._program(request)
        if organisation is None:
            self._limit(request)
        values = request.path_params
        number, verb = str(values["action_id"]), values["verb"]
        action_id = int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else -1
        known = 0 <= action_id <= LARGEST_ID and verb in VERBS
        found = await self._desk.find(action_id if known else 0)
        good = self._moderates(values, action_id, organisation) if moderating else right(values, found)
        if organisation is not None and (found is None or found.organisation != organisation):
            good = False
        if not (good and known) or found is None:
            raise Refused("not_found", 404)
        who: Who = "program" if organisation is not None else "moderator" if moderating else "supporter"
        return Asked(found=found, verb=verb, who=who, moderating=moderating)

    def _program(self, request: "Request") -> str | None:
        """Return the organisation whose program asks, or None without a token.

        Raises:
            Refused: the token is wrong.
        """
        given = request.headers.get("authorization")
        if given is None:
            return None
        organisation = self._policy.tokens.organisation(given)
        if organisation is None:
            self._limit(request)
            raise Refused("unauthorized", 401, **{"www-authenticate": "Bearer"})
        return organisation

    def _limit(self, request: "Request") -> None:
        delay = self._limiter.delay(request.client.host if request.client else "", time.monotonic())
        if delay > 0:
            raise Refused("busy", 429, **{"retry-after": str(math.ceil(delay))})

    def _moderates(self, values: Any, action_id: int, organisation: str | None) -> bool:
        """Tell whether the link is a moderator's, or its program's.

        Raises:
            Refused: it was, and has expired.
        """
        token, moderation = values.get("reference", ""), self._policy.moderation
        if not token:
            return organisation is not None
        verdict = "wrong" if moderation is None else moderation.check(action_id, token)
        if verdict == "expired":
            raise Refused("expired", 410)
        return verdict == "good"

    async def _decide(self, asked: Asked, request: "Request") -> Decided:
        if asked.moderating:
            return await self._desk.decide_action(asked.found, asked.verb)
        doi = asked.verb == "accept" and request.query_params.get("doi") == "1"
        return await self._desk.decide_supporter(asked.found, asked.verb, doi=doi)

    def _told(self, asked: Asked, decided: Decided, request: "Request", json: bool) -> "Response":
        """Return what was decided: for programs as JSON, for people as a page, or where they go next."""
        from starlette.responses import JSONResponse, RedirectResponse

        if json:
            told = {
                "actionId": asked.found.action_id,
                "supporter": decided.supporter,
                "action": decided.action,
                "agreed": decided.agreed,
            }
            return JSONResponse(told, 200 if decided.agreed else 409)
        target = self._redirect(request.query_params.get("redir"))
        if target is not None and decided.agreed:
            return RedirectResponse(target, 303)
        name = f"{asked.verb}ed" if decided.agreed else "late"
        return self._page(language_of(asked.found.locale), name, status=200 if decided.agreed else 409)

    def _redirect(self, target: str | None) -> str | None:
        """Return *target* if a browser may be sent there; what is decided counts all the same."""
        if target is None:
            return None
        try:
            parts = urlsplit(target)
            host, port = parts.hostname, parts.port
        except ValueError:
            return None
        plain = target.isprintable() and target.isascii() and "\\" not in target and parts.username is None
        if parts.scheme == "https" and plain and port is None and host in self._policy.redirect_hosts:
            return target
        log.warning("a link asked for a redirection to a host that --redirect-host does not list")
        return None

    def _page(
        self, language: str, name: str, asking: Linked | None = None, *, status: int = 200
    ) -> "Response":
        """Return the page called *name*; one that is *asking* about an action has a button."""
        from starlette.responses import HTMLResponse

        if asking is None:
            return HTMLResponse(page(language, name), status)
        shown = page(language, name, button=True, campaign=asking.campaign, action=asking.action_id)
        return HTMLResponse(shown, status)


def right(values: Any, found: Linked | None) -> bool:
    """Tell whether the reference in the link is the supporter's; it takes as long for each."""
    reference = str(values.get("reference", "")).encode("utf-8", "surrogateescape")
    known = (found.contact_ref or "" if found else "").encode()
    return hmac.compare_digest(reference, known) and known != b""


def application(
    desk: Desk, policy: Policy, ready: Callable[[], Awaitable[str | None]], proxies: Collection[str] = ()
) -> Any:
    """Return the callbacks as an ASGI application.

    *ready* returns why they cannot be answered now, or None. *proxies* are the addresses whose
    X-Forwarded-For is believed.

    Raises:
        ConfigError: Starlette or uvicorn is not installed.
    """
    try:
        from starlette.applications import Starlette
        from starlette.responses import PlainTextResponse
        from starlette.routing import Route
        from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
    except ImportError as error:
        raise ConfigError(missing(error, "serve")) from error

    async def livez(request: "Request") -> "Response":
        return PlainTextResponse("ok\n")

    async def readyz(request: "Request") -> "Response":
        reason = await ready()
        return PlainTextResponse(f"{reason or 'ok'}\n", 200 if reason is None else 503)

    callbacks = Callbacks(desk, policy)
    link, methods = "{action_id}/{verb}", ["GET", "POST"]
    app: Any = Starlette(
        routes=[
            Route(f"/link/s/{link}/{{reference}}", callbacks.supporter, methods=methods),
            Route(f"/link/a/{link}/{{reference}}", callbacks.moderator, methods=methods),
            Route(f"/link/a/{link}", callbacks.moderator, methods=methods),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        exception_handlers={404: callbacks.lost},
    )
    return ProxyHeadersMiddleware(app, trusted_hosts=list(proxies)) if proxies else app
