"""A client of few words: sends the methods it is told to, shows what the broker answers frame by frame."""

from collections import deque
from dataclasses import dataclass
from types import TracebackType
from typing import Any
from urllib.parse import unquote, urlsplit

import anyio
import pamqp.frame
from anyio.abc import SocketStream
from pamqp.body import ContentBody
from pamqp.commands import Basic, Channel, Confirm, Connection, Exchange, Queue
from pamqp.header import ContentHeader, ProtocolHeader
from pamqp.heartbeat import Heartbeat

LONGEST_FRAME = 131_072
PATIENCE = 20.0  # seconds until an answer counts as missing
CAPABILITIES = {
    "authentication_failure_close": True,
    "basic.nack": True,
    "connection.blocked": True,
    "consumer_cancel_notify": True,
    "publisher_confirms": True,
}


@dataclass(frozen=True)
class Content:
    """A message as it came: its method (deliver, return or get-ok), properties and body."""

    method: Any
    properties: Basic.Properties
    body: bytes
    octets: bytes
    """The content header as on the wire."""

    @property
    def headers(self) -> dict[str, Any]:
        return dict(self.properties.headers or {})


class Closed(Exception):
    """The broker closed the channel or the connection; or the socket, and the code is 0 then."""

    def __init__(self, code: int, text: str, method: tuple[int, int] = (0, 0)) -> None:
        super().__init__(f"{code} {text}")
        self.code = code
        self.text = text
        self.method = method


class Client:
    """One connection. Channel 1 is the usual one; `open` opens others.

    A `channel.close` or `connection.close` from the broker is answered, and raised from whatever waited.
    """

    def __init__(self, stream: SocketStream) -> None:
        self.stream = stream
        self._bytes = b""
        self._waiting: dict[int, deque[Any]] = {}
        self._last = b""
        self._end: Any = None
        self.closed = False
        self.declared: list[Any] = []  # methods that undo what was declared

    @classmethod
    async def connect(cls, url: str, **changes: Any) -> "Client":
        """Open the connection and channel 1; *changes* replace what the tune-ok says, or the login."""
        parts = urlsplit(url)
        client = cls(await anyio.connect_tcp(parts.hostname or "", parts.port or 5672))
        try:
            await client.shake_hands(
                user=changes.get("user", unquote(parts.username or "guest")),
                password=changes.get("password", unquote(parts.password or "guest")),
                vhost=changes.get("vhost", unquote(parts.path[1:]) or "/"),
                tune=changes.get("tune", {}),
                capabilities=changes.get("capabilities", CAPABILITIES),
                mechanism=changes.get("mechanism", "PLAIN"),
            )
            await client.open(1)
        except BaseException:
            await client.stream.aclose()
            raise
        return client

    async def shake_hands(
        self,
        *,
        user: str,
        password: str,
        vhost: str,
        tune: dict[str, int],
        capabilities: dict[str, Any],
        mechanism: str,
    ) -> None:
        await self.stream.send(ProtocolHeader(0, 9, 1).marshal())
        await self.receive(0)
        await self.send(
            Connection.StartOk(
                client_properties={"capabilities": capabilities, "product": "test"},
                mechanism=mechanism,
                response=f"\0{user}\0{password}",
                locale="en_US",
            ),
            channel=0,
        )
        self.tuned = await self.receive(0)
        agreed = {"channel_max": 2047, "frame_max": LONGEST_FRAME, "heartbeat": 0} | tune
        await self.send(Connection.TuneOk(**agreed), Connection.Open(vhost), channel=0)
        await self.receive(0)

    async def open(self, channel: int) -> None:
        await self.call(Channel.Open(), channel=channel)

    async def send(self, *frames: Any, channel: int = 1) -> None:
        """Send all *frames* in one segment."""
        for frame in frames:
            if isinstance(frame, Queue.Declare) and frame.queue and not frame.passive:
                self.declared.append(Queue.Delete(queue=frame.queue))
            elif isinstance(frame, Exchange.Declare) and frame.exchange and not frame.passive:
                self.declared.append(Exchange.Delete(exchange=frame.exchange))
        await self.stream.send(b"".join(pamqp.frame.marshal(frame, channel) for frame in frames))

    async def call(self, method: Any, *, channel: int = 1) -> Any:
        """Send *method* and return the answer."""
        await self.send(method, channel=channel)
        return await self.receive(channel)

    async def receive(self, channel: int = 1) -> Any:
        """Return the next method or message of *channel*.

        Raises:
            Closed: the broker closed the channel, the connection or the socket.
        """
        with anyio.fail_after(PATIENCE):
            while not self._waiting.get(channel):
                if self._end is not None:
                    self._waiting[channel] = deque([self._end])
                else:
                    await self._read()
        frame = self._waiting[channel].popleft()
        if isinstance(frame, Channel.Close | Connection.Close):
            raise Closed(frame.reply_code, frame.reply_text, (frame.class_id, frame.method_id))
        return frame

    async def nothing(self, channel: int = 1) -> bool:
        """Whether the broker has nothing to say on *channel*, by way of a round trip."""
        await self.send(Basic.Qos(), channel=channel)
        return isinstance(await self.receive(channel), Basic.QosOk)

    async def publish(
        self,
        body: bytes,
        key: str,
        *,
        exchange: str = "",
        mandatory: bool = False,
        channel: int = 1,
        **properties: Any,
    ) -> None:
        """Send a message."""
        method = Basic.Publish(exchange=exchange, routing_key=key, mandatory=mandatory)
        header = ContentHeader(0, len(body), Basic.Properties(**properties))
        longest = LONGEST_FRAME - 8
        pieces = [ContentBody(body[at : at + longest]) for at in range(0, len(body), longest)]
        await self.send(method, header, *pieces, channel=channel)

    async def confirmed(self, body: bytes, key: str, **options: Any) -> Any:
        """Publish and return the confirm, or what comes before it."""
        await self.publish(body, key, **options)
        return await self.receive(options.get("channel", 1))

    async def confirm(self, channel: int = 1) -> None:
        await self.call(Confirm.Select(), channel=channel)

    async def declare(self, queue: str = "", *, channel: int = 1, **options: Any) -> Any:
        """Declare a queue; `arguments` and flags are those of queue.declare."""
        return await self.call(Queue.Declare(queue=queue, **options), channel=channel)

    async def exchange(self, name: str, kind: str = "direct", *, channel: int = 1, **options: Any) -> Any:
        return await self.call(
            Exchange.Declare(exchange=name, exchange_type=kind, **options), channel=channel
        )

    async def bind(self, queue: str, exchange: str, key: str = "", *, channel: int = 1) -> Any:
        return await self.call(Queue.Bind(queue=queue, exchange=exchange, routing_key=key), channel=channel)

    async def consume(self, queue: str, tag: str = "", *, channel: int = 1, **options: Any) -> str:
        answer = await self.call(Basic.Consume(queue=queue, consumer_tag=tag, **options), channel=channel)
        return str(answer.consumer_tag)

    async def get(self, queue: str, *, channel: int = 1, no_ack: bool = True) -> Content | None:
        """Take one message; None when the queue is empty."""
        answer = await self.call(Basic.Get(queue=queue, no_ack=no_ack), channel=channel)
        return answer if isinstance(answer, Content) else None

    async def drain(self, queue: str, *, channel: int = 1) -> list[bytes]:
        """Take everything, without acknowledging."""
        found = []
        while (content := await self.get(queue, channel=channel)) is not None:
            found.append(content.body)
        return found

    async def length(self, queue: str, *, channel: int = 1) -> int:
        answer = await self.declare(queue, passive=True, channel=channel)
        return int(answer.message_count)

    async def reach(self, queue: str, count: int, *, channel: int = 1) -> None:
        """Wait until *count* messages are ready in *queue*."""
        with anyio.fail_after(PATIENCE):
            while await self.length(queue, channel=channel) != count:  # noqa: ASYNC110 (the broker tells only when asked)
                await anyio.sleep(0.01)

    async def take(self, queue: str, *, no_ack: bool = True) -> Content:
        """Wait for a message in *queue* and take it."""
        with anyio.fail_after(PATIENCE):
            while (content := await self.get(queue, no_ack=no_ack)) is None:  # noqa: ASYNC110 (the same)
                await anyio.sleep(0.01)
        return content

    async def take_held(self, queue: str) -> Content:
        """Wait for a message in *queue*; it is to be settled."""
        return await self.take(queue, no_ack=False)

    async def close(self) -> None:
        if not self.closed:
            self.closed = True
            await self.send(Connection.Close(200, "bye", 0, 0), channel=0)
            while not isinstance(await self.receive(0), Connection.CloseOk):
                pass
        await self.stream.aclose()

    async def abort(self) -> None:
        """Close the socket without a word."""
        self.closed = True
        await self.stream.aclose()

    async def __aenter__(self) -> "Client":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True), anyio.move_on_after(5):
            try:
                await self.close()
            except (Closed, OSError, anyio.BrokenResourceError, anyio.ClosedResourceError):
                await self.stream.aclose()

    async def frame(self) -> tuple[int, Any]:
        """Return the next frame, as pamqp reads it."""
        while True:
            if len(self._bytes) >= 7:
                length = int.from_bytes(self._bytes[3:7], "big") + 8
                if len(self._bytes) >= length or self._bytes[:4] == b"AMQP":
                    used, channel, frame = pamqp.frame.unmarshal(self._bytes)
                    self._last = self._bytes[:used]
                    self._bytes = self._bytes[used:]
                    return channel, frame
            try:
                self._bytes += await self.stream.receive()
            except (anyio.EndOfStream, anyio.BrokenResourceError, anyio.ClosedResourceError) as error:
                self.closed = True
                raise Closed(0, "the socket") from error

    async def _read(self) -> None:
        channel, frame = await self.frame()
        if isinstance(frame, Heartbeat):
            return
        if isinstance(frame, Basic.Deliver | Basic.Return | Basic.GetOk):
            frame = await self._content(frame)
        if not isinstance(frame, Connection.Close):
            self._waiting.setdefault(channel, deque()).append(frame)
        if isinstance(frame, Channel.Close):
            await self.send(Channel.CloseOk(), channel=channel)
        elif isinstance(frame, Connection.Close):
            self.closed = True
            self._end = frame
            await self.send(Connection.CloseOk(), channel=0)

    async def _content(self, method: Any) -> Content:
        _, header = await self.frame()
        octets = self._last
        body = b""
        while len(body) < header.body_size:
            body += (await self.frame())[1].value
        return Content(method, header.properties, body, octets)
