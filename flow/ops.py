"""The ops endpoints: metrics, health and a page of links, served inside the process that does the work."""

from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from flow.endpoint import Endpoint, missing
from flow.errors import ConfigError
from flow.histogram import Histogram
from flow.looplag import LoopLag

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

WITHOUT = ", or go without metrics and health with --no-ops"
FRESH = {"cache-control": "no-store"}
LATE = 10.0  # seconds: a loop later than that misses its heartbeats
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>flow</title>
<h1>flow</h1>
<ul>
<li><a href="/metrics">/metrics</a>: numbers for Prometheus
<li><a href="/livez">/livez</a>: whether the process works; restart it if not
<li><a href="/readyz">/readyz</a>: whether it is connected and does its work
<li><a href="/healthz">/healthz</a>: the states behind both
</ul>
</html>
"""


class Health(Protocol):
    """What the endpoints ask about the run; the answers are quick and never raise."""

    def live(self) -> str | None:
        """Return why the process should be restarted, or None; an absent broker is no reason."""

    def ready(self) -> str | None:
        """Return why it does not do its work now, or None."""

    def state(self) -> Mapping[str, Any]:
        """Return the state of each part by its name: words and numbers, no hosts, versions or ids."""

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        """Return the metrics in the format that the *accept* header asks for, and their content type."""


class Ops:
    """Serves the ops endpoints for as long as its context is open."""

    def __init__(self, host: str, port: int, health: Health, *, of: str = "pipelines") -> None:
        """Make the server for *host* and *port* (0: any free one); nothing is opened yet.

        *of* is how the parts are called whose state *health* returns.

        Raises:
            ConfigError: the port is no port, or the libraries for HTTP are not installed.
        """
        self.lag = LoopLag()
        app = application(health, self.lag, of)
        self._endpoint = Endpoint(app, host, port, options="--ops", extra="ops", without=WITHOUT)

    @property
    def address(self) -> str:
        """The URL of the endpoints without a path, such as `http://127.0.0.1:9300`.

        Raises:
            RuntimeError: nothing is served.
        """
        return self._endpoint.address

    async def __aenter__(self) -> Self:
        """Listen and serve.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        await self._endpoint.__aenter__()
        self.lag.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop serving."""
        try:
            await self._endpoint.__aexit__(kind, error, traceback)
        finally:
            self.lag.stop()


def application(health: Health, lag: LoopLag, of: str = "pipelines") -> "Starlette":
    """Return the endpoints as an ASGI application; *of* is how the parts are called."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise ConfigError(missing(error, "ops", WITHOUT)) from error

    # All of them are coroutine functions: others run in threads, where the numbers change while being read.
    async def page(request: "Request") -> "Response":
        return HTMLResponse(PAGE)

    async def numbers(request: "Request") -> "Response":
        body, content_type = health.exposition(request.headers.get("accept", ""), lag.histogram)
        return Response(body, headers={"content-type": content_type})

    async def livez(request: "Request") -> "Response":
        return verdict(alive(health, lag))

    async def readyz(request: "Request") -> "Response":
        return verdict(health.ready())

    async def healthz(request: "Request") -> "Response":
        live = alive(health, lag) is None
        states = {"live": live, "ready": health.ready() is None, of: health.state()}
        return JSONResponse(states, 200 if live else 503, headers=FRESH)

    def verdict(reason: str | None) -> "Response":
        if reason is None:
            return PlainTextResponse("ok\n", headers=FRESH)
        return PlainTextResponse(" ".join(reason.split()) + "\n", 503, headers=FRESH)

    endpoints = {"/": page, "/metrics": numbers, "/livez": livez, "/readyz": readyz, "/healthz": healthz}
    return Starlette(routes=[Route(path, endpoint) for path, endpoint in endpoints.items()])


def alive(health: Health, lag: LoopLag) -> str | None:
    """Return why the process should be restarted, or None."""
    if lag.last > LATE:
        return f"the event loop is {lag.last:.1f} s late: something blocks it"
    return health.live()
