"""Serving HTTP in a process that has other things to do: one socket, no signal handlers, a bounded end."""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio

from flow.errors import ConfigError

if TYPE_CHECKING:
    import uvicorn

GRACE = 1.0  # seconds that an answer may still take once the endpoint stops


class Endpoint:
    """Serves an ASGI application for as long as its context is open.

    Signals stay with whoever handles them. Leaving the context lets answers in progress finish for a second,
    then closes every connection, and another second later cancels what the application still does.
    """

    def __init__(
        self, app: Any, host: str, port: int, *, options: str, extra: str, without: str = ""
    ) -> None:
        """Serve *app* at *host* and *port* (0: any free one); nothing is opened yet.

        *options* is how the options are called that name both, `--ops` for `--ops-host` and `--ops-port`,
        *extra* which extra brings uvicorn, and *without* what else could be done, for errors.

        Raises:
            ConfigError: the port is no port, or uvicorn is not installed.
        """
        if not 0 <= port <= 65535:
            raise ConfigError(f"{options}-port must be between 0 (any free port) and 65535, got {port}")
        self._host = host
        self._port = port
        self._options = options
        self._without = without
        try:
            self._server = quiet_server(app)
        except ImportError as error:
            raise ConfigError(missing(error, extra, without)) from error
        self._socket: socket.socket | None = None

    @property
    def address(self) -> str:
        """The URL of the endpoint without a path, such as `http://127.0.0.1:9300`.

        Raises:
            RuntimeError: nothing is served.
        """
        if self._socket is None:
            raise RuntimeError("an endpoint has an address only while it is served")
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    async def __aenter__(self) -> Self:
        """Listen and serve.

        Raises:
            ConfigError: the address cannot be listened on.
        """
        # The socket is ours, because uvicorn ends the process when it cannot open one. From here on the
        # kernel accepts connections, so nobody needs to wait for the server to start.
        self._socket = await self._listening()
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._server.serve, [self._socket], name="HTTP endpoint")
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

    async def _listening(self) -> socket.socket:
        loop = asyncio.get_running_loop()
        try:
            found = await loop.getaddrinfo(
                self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            family, _, _, _, address = found[0]
            return socket.create_server(address, family=family)
        except OSError as error:
            raise ConfigError(self._refusal(error)) from error

    def _refusal(self, error: OSError) -> str:
        """Say why it cannot be listened, and what to do."""
        host, port, options = self._host, self._port, self._options
        if error.errno == errno.EADDRINUSE:
            return (
                f"port {port} on {host} is taken: choose another with {options}-port (0: any free one)"
                f"{self._without}"
            )
        if error.errno == errno.EACCES:
            return f"port {port} may not be used by this account: choose one above 1023 with {options}-port"
        return (
            f"cannot listen on {host} port {port} ({error.strerror}): choose an address of this machine with "
            f"{options}-host{self._without}"
        )


def quiet_server(app: Any) -> "uvicorn.Server":
    """Return a server that leaves signals alone and logs its own failures only."""
    import uvicorn

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


def missing(error: ImportError, extra: str, without: str = "") -> str:
    """Say which *extra* brings what could not be imported, and *without* what else could be done."""
    return f"serving HTTP needs {error.name}, which is not installed: install proca-flow[{extra}]{without}"
