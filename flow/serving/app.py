"""The links as an ASGI application: what is answered, and in which form."""

import logging
from collections.abc import Collection
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import anyio

from flow.endpoint import missing
from flow.errors import ConfigError, DatabaseError
from flow.records.linked import Linked
from flow.serving.admission import Admission, Asked, Policy, Refused
from flow.serving.desk import Decided, Desk
from flow.serving.numbers import Result, ServingNumbers
from flow.serving.pages import headers, page
from flow.serving.texts import language_of, negotiated

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

log = logging.getLogger("flow")


class Callbacks:
    """Answers the links of supporters, moderators and programs."""

    def __init__(self, desk: Desk, policy: Policy, numbers: ServingNumbers) -> None:
        """Decide at the *desk* as the *policy* allows, and count in *numbers*."""
        self._desk = desk
        self._policy = policy
        self._numbers = numbers
        self._admission = Admission(desk, policy)
        self._headers = headers(policy.redirect_hosts)

    async def supporter(self, request: "Request") -> "Response":
        """Answer a supporter's link, whose reference is the contact's."""
        return await self._answer(request, moderating=False)

    async def moderator(self, request: "Request") -> "Response":
        """Answer a moderator's link, whose reference is a signed token; a program needs none."""
        return await self._answer(request, moderating=True)

    async def lost(self, request: "Request", _: Exception) -> "Response":
        """Answer what is no link, such as one that was cut off in a mail."""
        self._numbers.link_requests["not_found"] += 1
        response = self._refusal(request, "not_found", 404)
        response.headers.update(self._headers)
        return response

    async def _answer(self, request: "Request", *, moderating: bool) -> "Response":
        """Answer, no sooner than the pace, and count it."""
        began = anyio.current_time()
        result: Result = "failed"  # by an error that nobody foresaw
        try:
            result, response = await self._answered(request, moderating)
        finally:
            self._numbers.link_requests[result] += 1
            self._numbers.link_seconds.observe(anyio.current_time() - began)
        response.headers.update(self._headers)
        await anyio.sleep_until(began + self._policy.pace)
        return response

    async def _answered(self, request: "Request", moderating: bool) -> tuple[Result, "Response"]:
        """Return what came of a request, and its answer."""
        asked = None
        try:
            asked = await self._admission.asked(request, moderating)
            if decides(asked, request):
                decided = await self._decide(asked, request)
                return "decided" if decided.agreed else "late", self._told(asked, decided, request)
            return "page", self._page(language_of(asked.found.locale), asked.page, asked.found)
        except Refused as refused:
            name, status, more = refused.name, refused.status, refused.headers
        except DatabaseError as error:
            log.error("a link could not be answered: %s", error)
            name, status, more = "away", 503, {"retry-after": "60"}
        response = self._refusal(request, name, status, asked)
        response.headers.update(more)
        return name, response

    def _refusal(
        self, request: "Request", name: Result, status: int, asked: Asked | None = None
    ) -> "Response":
        """Return the answer to what cannot be answered, in the words of whoever asks."""
        from starlette.responses import JSONResponse

        if accepts_json(request):
            return JSONResponse({"error": name}, status)
        wished = negotiated(request.headers.get("accept-language", ""))
        return self._page(language_of(asked.found.locale) if asked else wished, name, status=status)

    async def _decide(self, asked: Asked, request: "Request") -> Decided:
        """Decide, and count it.

        Raises:
            Refused: there is nothing to decide.
        """
        if asked.moderating:
            decided = await self._desk.decide_action(asked.found, asked.verb)
        else:
            doi = asked.verb == "accept" and request.query_params.get("doi") == "1"
            decided = await self._desk.decide_supporter(asked.found, asked.verb, doi=doi)
        if decided is None:
            raise Refused("not_found", 404)
        self._numbers.link_decisions[asked.who, asked.verb, decided.outcome] += 1
        return decided

    def _told(self, asked: Asked, decided: Decided, request: "Request") -> "Response":
        """Return what was decided: for programs as JSON, for people as a page, or where they go next."""
        from starlette.responses import JSONResponse, RedirectResponse

        if accepts_json(request):
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
        plain = target.isprintable() and target.isascii() and " " not in target and "\\" not in target
        known = host in self._policy.redirect_hosts and port is None and parts.username is None
        if parts.scheme == "https" and plain and known:
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


def decides(asked: Asked, request: "Request") -> bool:
    """Tell whether the request decides: a button was pressed, or a program asks; a HEAD only looks."""
    return request.method == "POST" or (
        request.method == "GET" and asked.who == "program" and accepts_json(request)
    )


def accepts_json(request: "Request") -> bool:
    """Tell whether a program asks, which reads no pages."""
    return "application/json" in request.headers.get("accept", "")


def application(desk: Desk, policy: Policy, numbers: ServingNumbers, proxies: Collection[str] = ()) -> Any:
    """Return the callbacks as an ASGI application, which counts in *numbers*.

    *proxies* are the addresses whose X-Forwarded-For is believed.

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

    async def readyz(request: "Request") -> "Response":  # anybody may ask: why not, the ops endpoints tell
        ready = numbers.database_up
        return PlainTextResponse("ok\n" if ready else "not ready\n", 200 if ready else 503)

    callbacks = Callbacks(desk, policy, numbers)
    link, methods = "{action_id}/{verb}", ["GET", "POST"]
    app: Any = Starlette(
        routes=[
            Route(f"/link/s/{link}/{{reference:path}}", callbacks.supporter, methods=methods),
            Route(f"/link/a/{link}/{{reference:path}}", callbacks.moderator, methods=methods),
            Route(f"/link/a/{link}", callbacks.moderator, methods=methods),
            Route("/livez", livez),
            Route("/readyz", readyz),
        ],
        exception_handlers={404: callbacks.lost},
    )
    app.router.redirect_slashes = False  # it would lead to http://, for the proxy alone knows of TLS
    return ProxyHeadersMiddleware(app, trusted_hosts=list(proxies)) if proxies else app
