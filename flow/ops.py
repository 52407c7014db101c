"""The ops endpoints: metrics, health and a page of links, served inside the process that consumes."""

import asyncio
import errno
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

import anyio

from flow.errors import ConfigError
from flow.histogram import Histogram
from flow.looplag import LoopLag

if TYPE_CHECKING:
    import uvicorn
    from starlette.applications import Starlette
    from starlette.requests import Request
    from starlette.responses import Response

HOST = "127.0.0.1"
PORT = 9300
GRACE = 1.0  # seconds that an answer may still take once the endpoints stop
FRESH = {"cache-control": "no-store"}
LATE = 10.0  # seconds: a loop later than that misses its heartbeats
PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>flow</title>
<h1>flow</h1>
<ul>
<li><a href="/metrics">/metrics</a>: numbers for Prometheus
<li><a href="/livez">/livez</a>: whether the process works; restart it if not
<li><a href="/readyz">/readyz</a>: whether it is connected and consumes
<li><a href="/healthz">/healthz</a>: the states behind both
</ul>
</html>
"""


class Health(Protocol):
    """What the endpoints ask about the run; the answers are quick and never raise."""

    def live(self) -> str | None:
        """Return why the process should be restarted, or None; an absent broker is no reason."""

    def ready(self) -> str | None:
        """Return why it does not consume now, or None."""

    def state(self) -> Mapping[str, Any]:
        """Return the state of each pipeline by its name: words and numbers, no hosts, versions or ids."""

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        """Return the metrics in the format that the *accept* header asks for, and their content type."""


class Ops:
    """Serves the ops endpoints for as long as its context is open.

    Signals stay with whoever handles them. Leaving the context lets answers in progress finish for a second,
    then closes every connection; it takes less than 2 seconds.
    """

    def __init__(self, host: str, port: int, health: Health) -> None:
        """Make the server for *host* and *port* (0: any free one); nothing is opened yet.

        Raises:
            ConfigError: the port is no port, or the libraries for HTTP are not installed.
        """
        if not 0 <= port <= 65535:
            raise ConfigError(f"--ops-port must be between 0 (any free port) and 65535, got {port}")
        self.lag = LoopLag()
        self._host = host
        self._port = port
        self._server = quiet_server(application(health, self.lag))
        self._socket: socket.socket | None = None

    @property
    def address(self) -> str:
        """The URL of the endpoints without a path, such as `http://127.0.0.1:9300`.

        Raises:
            RuntimeError: nothing is served.
        """
        if self._socket is None:
            raise RuntimeError("the ops endpoints have an address only while they are served")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        """Listen and serve.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        # The socket is ours, because uvicorn ends the process when it cannot open one. From here on the
        # kernel accepts connections, so nobody needs to wait for the server to start.
        self._socket = await listening(self._host, self._port)
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._server.serve, [self._socket], name="ops endpoints")
        self.lag.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Stop serving."""
        self._server.should_exit = True
        last_call = asyncio.get_running_loop().call_later(GRACE, self._abort)
        try:
            # The error goes on by itself; the task group would wrap it in an exception group.
            await self._tasks.__aexit__(None, None, None)
        finally:
            last_call.cancel()
            self.lag.stop()
            self._abort()

    def _abort(self) -> None:
        """Close what is still open: answers that nobody reads, or everything after a cancellation."""
        for connection in list(self._server.server_state.connections):
            connection.transport.abort()
        for server in getattr(self._server, "servers", ()):  # set when it starts
            server.close()
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def application(health: Health, lag: LoopLag) -> "Starlette":
    """Return the endpoints as an ASGI application."""
    try:
        from starlette.applications import Starlette
        from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
        from starlette.routing import Route
    except ImportError as error:
        raise ConfigError(missing(error)) from error

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
        states = {"live": live, "ready": health.ready() is None, "pipelines": health.state()}
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


def quiet_server(app: "Starlette") -> "uvicorn.Server":
    """Return a server that leaves signals alone and logs its own failures only."""
    try:
        import uvicorn
    except ImportError as error:
        raise ConfigError(missing(error)) from error

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # uvicorn would swallow SIGTERM until it has stopped, and then raise it again

    return Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            workers=1,
            timeout_graceful_shutdown=2,
        )
    )


def missing(error: ImportError) -> str:
    """Say which extra brings what could not be imported."""
    return (
        f"the ops endpoints need {error.name}, which is not installed: "
        "pip install 'proca-flow[ops]', or go without them with --no-ops"
    )


async def listening(host: str, port: int) -> socket.socket:
    """Return a socket that listens on *host* and *port*.

    Raises:
        ConfigError: it cannot.
    """
    loop = asyncio.get_running_loop()
    try:
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address, family=family)
    except OSError as error:
        raise ConfigError(refusal(error, host, port)) from error


def refusal(error: OSError, host: str, port: int) -> str:
    """Say why *host* and *port* cannot be listened on, and what to do."""
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} on {host} is taken: choose another with --ops-port (0: any free one), "
            "or go without metrics and health with --no-ops"
        )
    if error.errno == errno.EACCES:
        return f"port {port} may not be used by this account: choose one above 1023 with --ops-port"
    return (
        f"cannot listen on {host} port {port} ({error.strerror}): choose an address of this machine with "
        "--ops-host, or go without metrics and health with --no-ops"
    )
