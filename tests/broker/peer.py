"""A broker of few words on loopback: shakes hands as AMQP asks, then does what a test tells it."""

import asyncio
import ssl
from contextlib import suppress
from typing import Any

import pamqp.frame
from pamqp.commands import Basic, Channel, Connection, Queue

from tests.broker.wire import frame


class Peer:
    """Listens while the context lasts; `send` writes to the connection that was made last."""

    def __init__(
        self, tls: ssl.SSLContext | None = None, *, frame_max: int = 131_072, mute: bool = False
    ) -> None:
        """Answer nothing at all when *mute*."""
        self.port = 0
        self.mute = mute
        self.received: list[tuple[int, Any]] = []  # channel and method
        self.connections: list[asyncio.StreamWriter] = []
        self.ended = 0  # connections whose other side has gone
        self._tls = tls
        self._frame_max = frame_max

    async def __aenter__(self) -> "Peer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        for connection in self.connections:
            connection.transport.abort()
        self._server.close()
        await self._server.wait_closed()

    @property
    def url(self) -> str:
        scheme = "amqp" if self._tls is None else "amqps"
        return f"{scheme}://guest:guest@127.0.0.1:{self.port}/?heartbeat=60"

    def send(self, *frames: bytes) -> None:
        self.connections[-1].write(b"".join(frames))

    def methods(self, kind: type[Any]) -> list[Any]:
        return [method for _, method in self.received if isinstance(method, kind)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.append(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            await self._converse(reader, writer)
        self.ended += 1
        writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.readexactly(8)
        assert hello == b"AMQP\0\0\x09\x01"
        if not self.mute:
            self.send(frame(Connection.Start(server_properties={"capabilities": {"basic.nack": True}}), 0))
        while True:
            head = await reader.readexactly(7)
            rest = await reader.readexactly(int.from_bytes(head[3:], "big") + 1)
            _, channel, method = pamqp.frame.unmarshal(head + rest)
            self.received.append((channel, method))
            answer = None if self.mute else self._answer(method)
            if answer is not None:
                self.send(frame(answer, channel))

    def _answer(self, method: Any) -> Any:
        if isinstance(method, Connection.StartOk):
            return Connection.Tune(100, self._frame_max, 60)
        if isinstance(method, Basic.Consume):
            return Basic.ConsumeOk(method.consumer_tag)
        if isinstance(method, Basic.Cancel):
            return Basic.CancelOk(method.consumer_tag)
        if isinstance(method, Queue.Declare):
            return Queue.DeclareOk(method.queue, 0, 0)
        answers = {
            Connection.Open: Connection.OpenOk,
            Connection.Close: Connection.CloseOk,
            Channel.Open: Channel.OpenOk,
            Channel.Close: Channel.CloseOk,
            Basic.Qos: Basic.QosOk,
        }
        return answers[type(method)]() if type(method) in answers else None
