"""The broker on a TCP port."""

import logging
from contextlib import AsyncExitStack, suppress
from types import TracebackType
from urllib.parse import quote

import anyio
from anyio.abc import SocketAttribute, SocketStream, TaskGroup

from flow.devbroker import wire
from flow.devbroker.accounts import Account
from flow.devbroker.clock import Clock
from flow.devbroker.connection import FULL, Connection
from flow.devbroker.faults import Faults
from flow.devbroker.message import Message
from flow.devbroker.vhost import VirtualHost, Watcher

CHUNK = 1 << 18  # octets read at once
MOST = 4 * FULL  # octets waiting to be sent, above which nothing more is read
STARTING = ("greeting", "handshake")
HANDSHAKE = 10.0  # seconds until a client must have opened its connection
log = logging.getLogger(__name__)
GONE = (TimeoutError, anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError, OSError)


class DevBroker:
    """An AMQP 0-9-1 broker in memory: `async with DevBroker() as broker: ... broker.url()`.

    guest/guest may do everything; nothing is kept when it ends.
    """

    def __init__(self, *, host: str = "127.0.0.1", port: int = 0, heartbeat: int = 60) -> None:
        """Listen at *host* and *port* (0: a free one) from the start on.

        *heartbeat* is the number of seconds proposed to clients.
        """
        self.host = host
        self.port = port
        self.heartbeat = heartbeat
        self.clock = Clock()
        self.connections: set[Connection] = set()
        self.faults = Faults(self.connections, self.clock)
        self.accounts = {"guest": Account("guest", "guest", everywhere=True)}
        self._vhosts = {"/": VirtualHost("/", self.clock)}
        self._running = AsyncExitStack()

    def url(self, vhost: str = "/", *, user: str = "guest", password: str = "guest") -> str:
        """Return the AMQP URL of *vhost* for an account."""
        login = f"{quote(user, safe='')}:{quote(password, safe='')}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"amqp://{login}@{host}:{self.port}/{quote(vhost, safe='')}"

    def add_vhost(self, name: str) -> None:
        """Make a virtual host."""
        self._vhosts.setdefault(name, VirtualHost(name, self.clock))

    def delete_vhost(self, name: str) -> None:
        """Remove a virtual host with everything in it; its connections are dropped."""
        removed = self._vhosts.pop(name, None)
        if removed is None:
            return
        for connection in list(self.connections):
            if connection.state == "running" and connection.agreed.vhost is removed:
                connection.lost()
        removed.delete()

    def add_user(self, name: str, password: str) -> None:
        """Make an account that may not do anything yet."""
        self.accounts[name] = Account(name, password)

    def permit(self, user: str, vhost: str, configure: str, write: str, read: str) -> None:
        """Set what *user* may do in *vhost*: three regular expressions over names."""
        self.accounts[user].permissions[vhost] = (configure, write, read)

    def vhost(self, name: str) -> VirtualHost | None:
        """Return the virtual host called *name*, or None."""
        return self._vhosts.get(name)

    def log_in(self, user: str, password: str) -> Account | None:
        """Return the account, or None when it may not in."""
        account = self.accounts.get(user)
        return account if account is not None and account.password == password else None

    def lengths(self, vhost: str = "/") -> dict[str, int]:
        """Return how many messages are ready, by queue."""
        return {name: len(queue) for name, queue in self._vhosts[vhost].queues.items()}

    def messages(self, queue: str, vhost: str = "/") -> list[Message]:
        """Return what is ready in *queue*, in the order in which it would be delivered; it stays there."""
        return list(self._vhosts[vhost].queues[queue])

    def watch(self, watcher: Watcher | None, vhost: str = "/") -> None:
        """Call *watcher* with queue, message and ack, reject, requeue or return for all that is settled.

        And with duplicate for what a fault delivers twice.
        """
        self._vhosts[vhost].watcher = watcher

    async def __aenter__(self) -> "DevBroker":
        async with AsyncExitStack() as stack:
            listener = await anyio.create_tcp_listener(local_host=self.host, local_port=self.port)
            await stack.enter_async_context(listener)
            self.port = listener.extra(SocketAttribute.local_port)
            group = await stack.enter_async_context(anyio.create_task_group())
            stack.callback(group.cancel_scope.cancel)
            group.start_soon(self.clock.run)
            group.start_soon(listener.serve, self._serve)
            self._running = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._running.__aexit__(kind, error, trace)

    async def _serve(self, stream: SocketStream) -> None:
        """Talk to one client until it goes."""
        talk = Talk(self, stream)
        self.connections.add(talk.connection)
        try:
            await talk.run()
        finally:
            self.connections.discard(talk.connection)
            talk.connection.lost()


class Talk:
    """One socket, and the connection that it carries."""

    def __init__(self, broker: DevBroker, stream: SocketStream) -> None:
        self.connection = Connection(broker, self._wake, self._drop)
        self._faults = broker.faults
        self._stream = stream
        self._news = anyio.Event()
        self._scope = anyio.CancelScope()
        self._heard = anyio.current_time()
        self._beating = False
        self._sent = anyio.Event()
        self._listening = True

    async def run(self) -> None:
        """Read and write until one side ends it."""
        with self._scope, suppress(*GONE):
            async with self._stream, anyio.create_task_group() as group:
                group.start_soon(self._write)
                await self._read(group)
        self.connection.lost()

    def _wake(self) -> None:
        self._news.set()

    def _drop(self) -> None:
        self._scope.cancel()

    async def _read(self, group: TaskGroup) -> None:
        connection, faults = self.connection, self._faults
        late = self._heard + HANDSHAKE
        with suppress(*GONE):
            while not connection.ended:
                patience = late - anyio.current_time() if connection.state in STARTING else None
                with anyio.fail_after(patience):
                    chunk = await self._stream.receive(CHUNK)
                await faults.reading.wait()
                await self._answers_sent()
                if connection.published:
                    await faults.unblocked.wait()
                self._heard = anyio.current_time()
                try:
                    connection.feed(chunk)
                except Exception:
                    log.exception("The broker failed; this is a defect of it")
                    self._drop()
                if connection.agreed.heartbeat and not self._beating:
                    self._beating = True
                    group.start_soon(self._beat, connection.agreed.heartbeat)
        connection.lost()

    async def _write(self) -> None:
        with suppress(*GONE):
            while True:
                await self._news.wait()
                self._news = anyio.Event()
                frames = self.connection.take()
                if frames:
                    await self._send(frames)
                    self.connection.sent(len(frames))
                    self._sent.set()
                if self.connection.ended and not self._news.is_set():
                    break
        self._drop()

    async def _answers_sent(self) -> None:
        """Wait as long as the client reads so little that answers would pile up."""
        while self.connection.waiting >= MOST:
            self._sent = anyio.Event()
            self._listening = False
            await self._sent.wait()
        self._listening = True

    async def _send(self, frames: bytes) -> None:
        size = self._faults.segment
        if size is None:
            await self._stream.send(frames)
            return
        for begin in range(0, len(frames), size):
            await self._stream.send(frames[begin : begin + size])

    async def _beat(self, heartbeat: int) -> None:
        """Send heartbeats, and drop a client that is silent for two of them."""
        while True:
            await anyio.sleep(heartbeat / 2)
            self.connection.write(wire.HEARTBEAT_FRAME)
            deaf = not (self._listening and self._faults.reading.is_set())
            if not deaf and anyio.current_time() - self._heard > 2 * heartbeat:
                self._drop()
