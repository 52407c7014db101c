"""Takes deliveries out of the byte stream before aiormq sees them, and writes their settling into it."""

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from struct import unpack_from
from typing import Any, cast

from aiormq.connection import TransportFactory
from aiormq.exceptions import AMQPConnectionError, AMQPError
from yarl import URL

from flow.broker.deliveries import Deliveries, Inbox
from flow.broker.frames import AROUND, LARGEST, METHOD, BrokenStream, FrameCutter
from flow.broker.settling import Settler
from flow.message import Message

HEARTBEAT_FRAME = b"\x08\0\0\0\0\0\0\xce"
FEED_AFTER = 1.0  # seconds without a frame for aiormq, after which arriving bytes become a heartbeat
UNSENT_TIMEOUT = 4000  # milliseconds until bytes that the peer's machine does not take end the connection
TLS = {"ssl_handshake_timeout": 5, "ssl_shutdown_timeout": 2}  # seconds; shutdown is 30 by default
TUNE, CLOSE = b"\0\x0a\0\x1e", b"\0\x0a\0\x32"  # class and method

Receive = Callable[[list[Message[Any]]], None]
Ended = Callable[[Exception | None], None]


class SilentBroker(AMQPError):
    """The broker said nothing for too long, or stopped in the middle of a delivery."""

    reason = "%s"


class TapProtocol(asyncio.StreamReaderProtocol):
    """Stands between the socket and aiormq's reader.

    Frames are cut from the first byte on. The deliveries of tapped channels are put together here and handed
    to *receive*, all those of one read at once; every other frame goes on to the reader, whole and in order.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        loop: asyncio.AbstractEventLoop,
        *,
        receive: Receive,
        ended: Ended,
        max_body: int,
    ) -> None:
        """Call *ended* once, with the error if there was one, when the connection can carry nothing more."""
        super().__init__(reader, loop=loop)
        self.transport: asyncio.Transport | None = None
        self.error: Exception | None = None
        """Why the connection was ended from here."""
        self.reply: tuple[int, str] | None = None
        """The code and the words with which the broker closed the connection, if it did."""
        self.last_byte_at = loop.time()
        """When something was last read, in seconds of the loop's clock."""
        self._reader = reader
        self._time = loop.time
        self._call_soon = loop.call_soon
        self._call_at = loop.call_at
        self._receive = receive
        self._ended: Ended | None = ended
        self._max_body = max_body
        self._cutter = FrameCutter(self._hand_on)
        self._cutter.routes[0] = self._look
        self._inbox = Inbox()
        self._tapped: dict[int, Deliveries] = {}  # by channel
        self._handed_on_at = self.last_byte_at
        self._watchdog: asyncio.TimerHandle | None = None

    def tap(self, channel: int) -> Settler:
        """Take the deliveries of *channel* from now on, which must only consume; return what settles them."""
        settler = Settler(channel, self.write, self._call_soon)
        deliveries = Deliveries(
            channel, settler, self._inbox, max_body=self._max_body, max_frame=self._cutter.limit
        )
        self._tapped[channel] = deliveries
        self._cutter.routes[channel] = deliveries.take
        if self._ended is None:
            settler.end()
        return settler

    def untap(self, channel: int) -> None:
        """Leave the frames of *channel*, which is closed, to aiormq again."""
        self._tapped.pop(channel, None)
        self._cutter.routes.pop(channel, None)

    def watch(self, silence: float) -> None:
        """End the connection after *silence* seconds without a byte, or within an unfinished delivery."""
        if self._ended is not None:
            self._watchdog = self._call_at(self._progress_at() + silence, self._check, silence)

    def write(self, frames: bytes) -> None:
        """Write whole frames; nothing happens when the connection has ended. Never raises."""
        if self.transport is not None and not self.transport.is_closing():
            with suppress(OSError, RuntimeError):
                self.transport.write(frames)

    def fail(self, error: Exception) -> None:
        """End the connection at once because of *error*, which all who wait for an answer get."""
        if self.error is None and self.transport is not None:
            self.error = error
            self._reader.set_exception(error)
            self._end(error)
            self.abort()

    def abort(self) -> None:
        """End the connection at once; what is written and not sent yet is thrown away."""
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport from the moment it exists."""
        self.transport = cast("asyncio.Transport", transport)
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Sort what was read."""
        if self.error is not None:
            return
        inbox = self._inbox
        inbox.now = self.last_byte_at = now = self._time()
        try:
            self._cutter.feed(data)
        except BrokenStream as error:
            self.fail(error)
            return
        if inbox.messages:
            messages, inbox.messages = inbox.messages, []
            self._receive(messages)
        # Deliveries keep the broker from sending heartbeats, and aiormq from seeing any sign of life.
        if self._tapped and now - self._handed_on_at >= FEED_AFTER:
            self._hand_on(HEARTBEAT_FRAME)

    def eof_received(self) -> bool:
        """Close the connection, as the broker has closed its side: without TLS it would stay half open."""
        super().eof_received()
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the connection has ended, whoever ended it."""
        if self._watchdog is not None:
            self._watchdog.cancel()
        self._end(exc)
        super().connection_lost(exc)

    def _hand_on(self, frames: bytes) -> None:
        """Give whole frames to aiormq."""
        self._handed_on_at = self.last_byte_at
        super().data_received(frames)

    def _look(self, data: bytes, kind: int, start: int, end: int) -> int:
        """Look at a frame of channel 0, which is for aiormq."""
        if kind == METHOD:
            method = data[start : start + 4]
            if method == TUNE and end - start >= 10:
                (size,) = unpack_from(">I", data, start + 6)
                self._cutter.limit = size - AROUND if size else LARGEST
            elif method == CLOSE:
                self.reply = close_reply(data[start + 4 : end])
                self._end_channels()
        return 0

    def _end_channels(self) -> None:
        for deliveries in self._tapped.values():
            deliveries.end()

    def _end(self, error: Exception | None) -> None:
        self._end_channels()
        ended, self._ended = self._ended, None
        if ended is not None:
            ended(error)

    def _progress_at(self) -> float:
        """Return when the broker last did what it has to do, in seconds of the loop's clock."""
        if self._cutter.unfinished:
            return self.last_byte_at
        return min(
            (one.touched_at for one in self._tapped.values() if one.unfinished), default=self.last_byte_at
        )

    def _check(self, silence: float) -> None:
        """Look whether the time is over; what came while the loop stood still was read before."""
        since, now = self._progress_at(), self._time()
        if now < since + silence:
            self._watchdog = self._call_at(since + silence, self._check, silence)
        elif since == self.last_byte_at:
            self.fail(SilentBroker(f"The broker has been silent for {now - since:.1f} s"))
        else:
            self.fail(SilentBroker(f"The broker stopped within a delivery {now - since:.1f} s ago"))


class TapTransportFactory(TransportFactory):
    """Opens the connection of one `aiormq.connect`, with a tap in it."""

    def __init__(self, receive: Receive, ended: Ended, *, max_body: int = 1 << 20) -> None:
        """Hand deliveries to *receive* and tell *ended* when the connection has; *max_body* is in bytes."""
        self._receive = receive
        self._ended = ended
        self._max_body = max_body
        self._protocol: TapProtocol | None = None

    @property
    def protocol(self) -> TapProtocol:
        """The tap of the connection, once `create` was called."""
        assert self._protocol is not None
        return self._protocol

    @property
    def reached(self) -> bool:
        """Whether somebody accepted the connection."""
        return self._protocol is not None and self._protocol.transport is not None

    @property
    def ended(self) -> bool:
        """Whether the connection can carry nothing more."""
        protocol = self._protocol
        return protocol is not None and (protocol.transport is None or protocol.transport.is_closing())

    @property
    def reply(self) -> tuple[int, str] | None:
        """The code and the words with which the broker closed the connection, if it did."""
        return None if self._protocol is None else self._protocol.reply

    def abort(self) -> None:
        """End the connection at once, at whatever stage it is."""
        if self._protocol is not None:
            self._protocol.abort()

    async def create(self, url: URL, **kwargs: Any) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Connect to *url*, with TLS when its scheme says so; called by aiormq.

        Raises:
            AMQPConnectionError: nobody is there, or the certificate was refused; the cause says what it was.
        """
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=kwargs.pop("limit", 1 << 20), loop=loop)
        provider = kwargs.pop("ssl_context_provider", None)
        protocol = self._protocol = TapProtocol(
            reader, loop, receive=self._receive, ended=self._ended, max_body=self._max_body
        )
        try:
            if url.scheme == "amqps":
                kwargs |= TLS | {"ssl": await provider.get_context()}
            transport, _ = await loop.create_connection(
                lambda: protocol, str(url.host), int(url.port or 0), **kwargs
            )
            bound_unsent(transport)
        except BaseException as error:
            protocol.abort()
            if isinstance(error, OSError):  # what TLS raises is one, too
                raise AMQPConnectionError(*error.args) from error
            raise
        return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


def close_reply(arguments: bytes) -> tuple[int, str]:
    """Return the code and the words of a Connection.Close."""
    text = arguments[3 : 3 + arguments[2]] if len(arguments) > 2 else b""
    return int.from_bytes(arguments[:2], "big"), text.decode("utf-8", "replace")


def bound_unsent(transport: asyncio.BaseTransport) -> None:
    """Let the connection fail when the peer's machine takes nothing for 4 s, where the system can do so."""
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None:
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, option, UNSENT_TIMEOUT)
