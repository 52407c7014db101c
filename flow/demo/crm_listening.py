"""How the demonstration CRM listens: a socket that can refuse everybody, and a server that an event ends."""

import contextlib
import errno
import socket
from collections.abc import Iterator

import anyio
import anyio.lowlevel
import uvicorn

from flow.errors import ConfigError


class Server(uvicorn.Server):
    """Uvicorn without its signal handlers and polling: an event says that it listens, another ends it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = anyio.Event()
        self.stopping = anyio.Event()
        self.stopped = anyio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process."""
        yield

    async def main_loop(self) -> None:
        """Serve until `stopping`."""
        self.ready.set()
        await self.on_tick(0)
        await self.stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen no more, and reset every connection."""
        for server in self.servers:
            server.close()
        for one in sockets or []:
            one.close()
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        while self.server_state.tasks:
            await anyio.lowlevel.checkpoint()
        self.stopped.set()


def bound(port: int) -> socket.socket:
    """Return a socket bound to *port* of 127.0.0.1 that does not listen yet: connections are refused.

    Raises:
        ConfigError: the port is taken, or not for this account.
    """
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError as error:
        made.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
        raise ConfigError(
            f"port {port} on 127.0.0.1 {why}: choose another with --port (0: any free one)"
        ) from error
    return made
