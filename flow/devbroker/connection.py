"""A connection: octets in, octets out; its channels, and its end."""

from collections.abc import Callable
from typing import Any

from pamqp.commands import Channel as ChannelMethods
from pamqp.commands import Connection as ConnectionMethods

from flow.devbroker import wire
from flow.devbroker.channel import Channel
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal, Hangup, Malformed, Refusal, octets
from flow.devbroker.handshake import Handshake, House
from flow.devbroker.line import Confirming

FULL = 1 << 20  # octets waiting to be sent, above which nothing more is delivered
CLOSE_WAIT = 5.0  # seconds that a client has to agree with the end


class Connection:
    """One client. It knows no socket: `feed` takes octets, `take` gives them, *wake* tells of news.

    Its state is greeting, handshake, running, closing (told, and not answered yet) or gone.
    """

    def __init__(self, house: House, wake: Callable[[], None], drop: Callable[[], None]) -> None:
        """*wake* is called when there is something to send or to end, *drop* ends the socket at once."""
        self.faults = house.faults
        self.channels: dict[int, Channel] = {}
        self.ended = False  # nothing more is read; what was written is sent
        self.published = False
        self.state = "greeting"
        self.waiting = 0  # octets written and not sent
        self._clock = house.clock
        self._wake = wake
        self._drop = drop
        self._agreed = Handshake(house)
        self._rest, self._out = b"", list[bytes]()
        self._confirming: list[Confirming] = []

    @property
    def agreed(self) -> Handshake:
        """What the client and the broker agreed on."""
        return self._agreed

    @property
    def writable(self) -> bool:
        """Whether it takes more deliveries at this time."""
        return self.waiting < FULL

    @property
    def wants_cancels(self) -> bool:
        """Whether the client understands basic.cancel from the broker."""
        return "consumer_cancel_notify" in self._agreed.capabilities

    def write(self, frames: bytes) -> None:
        """Send *frames* with the next burst."""
        if not self._out:
            self._wake()
        self._out.append(frames)
        self.waiting += len(frames)

    def take(self) -> bytes:
        """Return what is to be sent now."""
        frames, self._out = b"".join(self._out), []
        return frames

    def sent(self, count: int) -> None:
        """Let deliveries go on when *count* octets are with the network."""
        was_full = not self.writable
        self.waiting -= count
        if was_full and self.writable:
            for channel in list(self.channels.values()):
                channel.wake()

    def confirm_later(self, channel: Confirming) -> None:
        """Answer what *channel* publishes at the end of the burst."""
        self._confirming.append(channel)

    def feed(self, chunk: bytes) -> None:
        """Take what the client sent, and do it."""
        try:
            self._cut(self._rest + chunk if self._rest else chunk)
            if self._confirming:
                self._confirm()
        except Hangup:
            self._drop()
            self.lost()
        except ConnectionRefusal as refusal:
            self._rest = b""
            self._refuse(refusal)

    def doom(self, error: Exception) -> None:
        """Let it fail with *error* when the present burst of frames is done."""

        def meet() -> None:
            if isinstance(error, ConnectionRefusal):
                self._refuse(error)
            else:
                self._drop()
                self.lost()

        self._clock.at(self._clock.now(), meet)

    def lost(self) -> None:
        """Give back what the client held, as the connection has ended."""
        was, self.state = self.state, "gone"
        self.ended = True
        self._wake()
        if was == "running":
            self._release()

    def cancel_consumers(self, queue: str | None) -> None:
        """Cancel the consumers of *queue* (None: of all), as when the queue is gone."""
        for channel in self.channels.values():
            for consumer in list(channel.consumers.values()):
                if queue in (None, consumer.queue.name):
                    consumer.queue.remove(consumer)
                    channel.dismiss(consumer)

    def tell_blocked(self, reason: str | None) -> None:
        """Tell the client that the broker is blocked for *reason*, or (None) no more."""
        if self.state == "running" and "connection.blocked" in self._agreed.capabilities:
            method = ConnectionMethods.Unblocked() if reason is None else ConnectionMethods.Blocked(reason)
            self._answer(method)

    def _cut(self, buffer: bytes) -> None:
        """Cut *buffer* into frames and do what they say; keep what is not whole."""
        at, end = 0, len(buffer)
        if self.state == "greeting":
            if end < len(wire.GREETING) and wire.GREETING.startswith(buffer):
                self._rest = buffer
                return
            self._greet(buffer)
            at = len(wire.GREETING)
        longest = self._agreed.frame_max - wire.OVERHEAD
        most = longest + wire.TOLERANCE
        while end - at >= wire.OVERHEAD and not self.ended:
            kind, number, size = wire.head_of.unpack_from(buffer, at)
            if size > most:
                raise Malformed(f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{longest}}}")
            last = at + 7 + size
            if last >= end:
                break
            content = buffer[at + 7 : last]
            if buffer[last] != wire.END:
                why = f"{{invalid_frame_end_marker,{buffer[last]}}}"
                raise Malformed(f"type {kind}, all octets = {octets(content)}: {why}")
            at = last + 1
            self._frame(kind, number, content)
        self._rest = buffer[at:]

    def _greet(self, buffer: bytes) -> None:
        """Answer the protocol header; to any other the one that would be understood, and the end."""
        if buffer.startswith(wire.GREETING):
            self.state = "handshake"
            self._answer(self._agreed.start())
        else:
            self.write(wire.GREETING)
            self.lost()

    def _frame(self, kind: int, number: int, content: bytes) -> None:
        if number and self.state == "running" and wire.METHOD <= kind <= wire.BODY:
            self._on_channel(kind, number, content)
        elif self.state == "closing" and (number or kind != wire.METHOD):
            pass
        elif kind == wire.HEARTBEAT and not content:
            if number:
                raise ConnectionRefusal(505, "type 8, all octets = <<>>")
        elif not wire.METHOD <= kind <= wire.BODY:
            raise Malformed(f"type {kind}, all octets = {octets(content)}: unknown_frame")
        elif number:
            raise Hangup  # a channel before the connection is open
        elif kind != wire.METHOD:
            raise ConnectionRefusal(505, "expected method frame, got non method frame instead")
        else:
            self._on_connection(content)

    def _on_channel(self, kind: int, number: int, content: bytes) -> None:
        channel = self.channels.get(number)
        try:
            if kind == wire.METHOD and content[:2] == b"\x00\x14":
                self._channel_method(number, channel, wire.read_method(content))
            elif channel is None:
                raise ConnectionRefusal(504, "expected 'channel.open'")
            elif not channel.closing:
                channel.frame(kind, content)
        except ConnectionRefusal as refusal:
            self._refuse(refusal, *place_of(kind, content, channel))
        except ChannelRefusal as refusal:
            if channel is not None:
                channel.closing = True
                channel.release()
                place = place_of(kind, content, channel)
                self._answer(ChannelMethods.Close(refusal.code, refusal.text, *place), number)

    def _channel_method(self, number: int, channel: Channel | None, method: Any) -> None:
        """Open or close a channel."""
        if channel is not None and not channel.closing:
            channel.incoming.check_none()
        if isinstance(method, ChannelMethods.Open):
            self._open_channel(number)
        elif channel is None:
            if not isinstance(method, ChannelMethods.CloseOk):
                raise ConnectionRefusal(504, "expected 'channel.open'")
        elif isinstance(method, ChannelMethods.Close):
            del self.channels[number]
            channel.release()
            self._answer(ChannelMethods.CloseOk(), number)
        elif isinstance(method, ChannelMethods.CloseOk):
            if channel.closing:
                del self.channels[number]
        elif channel.closing:
            pass
        elif isinstance(method, ChannelMethods.Flow):
            if not method.active:
                raise ConnectionRefusal(540, "active=false")
            self._answer(ChannelMethods.FlowOk(True), number)
        else:
            raise ConnectionRefusal(503, "unimplemented method")

    def _open_channel(self, number: int) -> None:
        if number in self.channels:
            raise ConnectionRefusal(504, "second 'channel.open' seen")
        most = self._agreed.channel_max
        if len(self.channels) >= most:
            told = f"number of channels opened ({most}) has reached the negotiated channel_max ({most})"
            self._refuse(ConnectionRefusal(530, told))
            return
        self.channels[number] = Channel(self, number)
        self._answer(ChannelMethods.OpenOk(), number)

    def _on_connection(self, content: bytes) -> None:
        """Take a method of channel 0: the handshake, and the end."""
        place = place_of(wire.METHOD, content, None)
        try:
            method = wire.read_method(content)
            if isinstance(method, ConnectionMethods.CloseOk) and self.state == "closing":
                self.lost()
            elif isinstance(method, ConnectionMethods.Close):
                if self.state == "running":
                    self._release()
                self.state = "closing"
                self._answer(ConnectionMethods.CloseOk())
                self.lost()
            elif self.state == "handshake":
                self._shake_hands(method)
            elif self.state == "running":
                raise ConnectionRefusal(504, "unexpected method in connection state running")
        except ConnectionRefusal as refusal:
            self._refuse(refusal, *(place if refusal.code != 403 else (0, 0)))

    def _shake_hands(self, method: Any) -> None:
        answer = self._agreed.take(method)
        if answer is not None:
            self._answer(answer)
        if self._agreed.done:
            self.state = "running"
            if self.faults.blocked is not None:
                self.tell_blocked(self.faults.blocked)

    def _refuse(self, refusal: Refusal, class_id: int = 0, method_id: int = 0) -> None:
        """Tell the client why it must go, and wait some time for it to agree."""
        if self.state in ("closing", "gone"):
            self.lost()  # it goes on talking nonsense
            return
        if self.state == "running":
            self._release()
        self.state = "closing"
        self._answer(ConnectionMethods.Close(refusal.code, refusal.text, class_id, method_id))
        self._clock.at(self._clock.now() + CLOSE_WAIT, self.lost)

    def _release(self) -> None:
        """End all channels, and the queues that belong to this connection alone."""
        channels, self.channels = list(self.channels.values()), {}
        for channel in channels:
            channel.release()
        vhost = self._agreed.vhost
        for queue in [queue for queue in vhost.queues.values() if queue.owner is self]:
            vhost.delete_queue(queue)

    def _confirm(self) -> None:
        confirming, self._confirming = self._confirming, []
        for channel in confirming:
            channel.confirm()

    def _answer(self, method: Any, channel: int = 0) -> None:
        self.write(wire.method_frame(method, channel))


def place_of(kind: int, content: bytes, channel: Channel | None) -> tuple[int, int]:
    """Return the class and the number of the method that is to blame, as far as there is one."""
    if channel is not None and channel.incoming.begun:
        return 60, 40
    if kind != wire.METHOD or len(content) < 4:
        return 0, 0
    number = wire.number_of.unpack_from(content)[0]
    return number >> 16, number & 0xFFFF
