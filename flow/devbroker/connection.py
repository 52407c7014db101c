"""A connection: octets in, octets out; the handshake, the channels and the end."""

from collections.abc import Callable
from typing import Any, Protocol

from pamqp.commands import Channel as ChannelMethods
from pamqp.commands import Connection as ConnectionMethods

from flow.devbroker import tables, wire
from flow.devbroker.accounts import Account
from flow.devbroker.channel import Channel
from flow.devbroker.clock import Clock
from flow.devbroker.errors import ChannelRefusal, ConnectionRefusal, Hangup, Malformed, Refusal, octets
from flow.devbroker.faults import Faults
from flow.devbroker.vhost import VirtualHost

CHANNELS = 2047
FULL = 1 << 20  # octets waiting to be sent, above which nothing more is delivered
CLOSE_WAIT = 5.0  # seconds that a client has to agree with the end
CAPABILITIES = ("publisher_confirms", "basic.nack", "consumer_cancel_notify", "connection.blocked")
MORE_CAPABILITIES = ("authentication_failure_close", "per_consumer_qos")
LOGIN_REFUSED = "Login was refused using authentication mechanism PLAIN. For details see the broker logfile."


class House(Protocol):
    """The broker of a connection."""

    clock: Clock
    faults: Faults
    heartbeat: int

    def vhost(self, name: str) -> VirtualHost | None:
        """Return the virtual host called *name*, or None."""

    def log_in(self, user: str, password: str) -> Account | None:
        """Return the account, or None when it may not in."""


class Connection:
    """One client. It knows no socket: `feed` takes octets, `take` gives them, `wake` tells of news."""

    account: Account
    vhost: VirtualHost

    def __init__(self, house: House, wake: Callable[[], None], drop: Callable[[], None]) -> None:
        """*wake* is called when there is something to send or to end, *drop* ends the socket at once."""
        self.faults = house.faults
        self.frame_max = wire.LARGEST_FRAME
        self.channels: dict[int, Channel] = {}
        self.heartbeat = 0  # seconds; 0: none
        self.ended = False  # nothing more is read; what was written is sent
        self.published = False
        self._house = house
        self._wake = wake
        self._drop = drop
        self._state = "greeting"
        self._capabilities: set[str] = set()
        self._channel_max = CHANNELS
        self._rest = b""
        self._out: list[bytes] = []
        self._waiting = 0  # octets written and not sent
        self._confirming: list[Channel] = []
        self._doom: Exception | None = None

    @property
    def is_open(self) -> bool:
        """Whether the handshake is over."""
        return self._state not in ("greeting", "login", "tuning", "opening")

    @property
    def writable(self) -> bool:
        """Whether it takes more deliveries at this time."""
        return self._waiting < FULL

    @property
    def wants_cancels(self) -> bool:
        """Whether the client understands basic.cancel from the broker."""
        return "consumer_cancel_notify" in self._capabilities

    def write(self, frames: bytes) -> None:
        """Send *frames* with the next burst."""
        if not self._out:
            self._wake()
        self._out.append(frames)
        self._waiting += len(frames)

    def take(self) -> bytes:
        """Return what is to be sent now."""
        frames, self._out = b"".join(self._out), []
        return frames

    def sent(self, count: int) -> None:
        """Let deliveries go on when *count* octets are with the network."""
        was_full = not self.writable
        self._waiting -= count
        if was_full and self.writable:
            for channel in list(self.channels.values()):
                channel.wake()

    def confirm_later(self, channel: Channel) -> None:
        """Answer what *channel* publishes at the end of the burst."""
        self._confirming.append(channel)
        self.published = True

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
            self._refuse(refusal, 0, 0)

    def doom(self, error: Exception) -> None:
        """Let it fail with *error* when the present burst of frames is done."""
        self._doom = error
        self._house.clock.at(self._house.clock.now(), self._meet_doom)

    def _meet_doom(self) -> None:
        error, self._doom = self._doom, None
        if isinstance(error, ConnectionRefusal):
            self._refuse(error, 0, 0)
        elif error is not None:
            self._drop()
            self.lost()

    def lost(self) -> None:
        """Give back what the client held, as the connection has ended."""
        if self._state == "gone":
            return
        ready = self._state == "running"
        self._state = "gone"
        self.hang_up()
        if ready:
            self._release()

    def hang_up(self) -> None:
        """Read no more; the socket is closed when everything is sent."""
        self.ended = True
        self._wake()

    def cancel_consumers(self, queue: str) -> None:
        """Cancel the consumers of *queue*, as when the queue is gone."""
        for channel in self.channels.values():
            for consumer in list(channel.consumers.values()):
                if consumer.queue.name == queue:
                    consumer.queue.remove(consumer)
                    channel.dismiss(consumer)

    def tell_blocked(self, reason: str | None) -> None:
        """Tell the client that the broker is blocked for *reason*, or (None) no more."""
        if self._state == "running" and "connection.blocked" in self._capabilities:
            method = ConnectionMethods.Unblocked() if reason is None else ConnectionMethods.Blocked(reason)
            self._answer(method)

    def _cut(self, buffer: bytes) -> None:
        """Cut *buffer* into frames and do what they say; keep what is not whole."""
        at = 0
        if self._state == "greeting":
            if len(buffer) < len(wire.GREETING) and wire.GREETING.startswith(buffer):
                self._rest = buffer
                return
            self._greet(buffer)
            at = len(wire.GREETING)
        end = len(buffer)
        while end - at >= wire.OVERHEAD and not self.ended:
            kind, number, size = wire.head_of.unpack_from(buffer, at)
            if size > self.frame_max - wire.OVERHEAD:
                most = self.frame_max - wire.OVERHEAD
                raise Malformed(f"type {kind}, all octets = <<>>: {{frame_too_large,{size},{most}}}")
            begin, at = at + 7, at + wire.OVERHEAD + size
            if at > end:
                at = begin - 7
                break
            content = buffer[begin : at - 1]
            if buffer[at - 1] != wire.END:
                marker = buffer[at - 1]
                raise Malformed(
                    f"type {kind}, all octets = {octets(content)}: {{invalid_frame_end_marker,{marker}}}"
                )
            self._frame(kind, number, content)
        self._rest = buffer[at:]

    def _greet(self, buffer: bytes) -> None:
        """Answer the protocol header; to any other the one that would be understood, and the end."""
        if not buffer.startswith(wire.GREETING):
            self.write(wire.GREETING)
            self.hang_up()
            return
        self._state = "login"
        self._answer(
            ConnectionMethods.Start(
                server_properties={
                    "capabilities": dict.fromkeys((*CAPABILITIES, *MORE_CAPABILITIES), True),
                    "product": "flow devbroker",
                    "version": "3.10.8",  # of the RabbitMQ whose ways it follows
                    "information": "A broker in memory for development; nothing is kept.",
                },
                mechanisms="PLAIN",
            )
        )

    def _frame(self, kind: int, number: int, content: bytes) -> None:
        if kind == wire.HEARTBEAT:
            if content:
                raise Malformed(f"type 8, all octets = {octets(content)}: unknown_frame")
            if number:
                raise ConnectionRefusal(505, "type 8, all octets = <<>>")
        elif kind not in (wire.METHOD, wire.HEADER, wire.BODY):
            raise Malformed(f"type {kind}, all octets = {octets(content)}: unknown_frame")
        elif number and self._state == "running":
            self._on_channel(kind, number, content)
        elif self._state == "closing" and (number or kind != wire.METHOD):
            pass
        elif kind != wire.METHOD:
            raise ConnectionRefusal(505, "expected method frame, got non method frame instead")
        elif not number:
            self._on_connection(content)
        else:
            raise Hangup  # a channel before the connection is open

    def _on_channel(self, kind: int, number: int, content: bytes) -> None:
        channel = self.channels.get(number)
        place = place_of(content) if kind == wire.METHOD else (0, 0)
        if channel is not None and channel.incoming.begun:
            place = (60, 40)
        try:
            if kind == wire.METHOD and content[:2] == b"\x00\x14":
                self._channel_method(number, channel, wire.read_method(content))
            elif channel is None:
                raise ConnectionRefusal(504, "expected 'channel.open'")
            elif channel.closing:
                pass
            elif kind == wire.METHOD:
                channel.method(content)
            elif kind == wire.HEADER:
                channel.header(content)
            else:
                channel.body(content)
        except ChannelRefusal as refusal:
            if channel is not None:
                channel.confirm()
                channel.closing = True
                self._answer(ChannelMethods.Close(refusal.code, refusal.text, *place), number)
                channel.release()
        except ConnectionRefusal as refusal:
            self._refuse(refusal, *place)

    def _channel_method(self, number: int, channel: Channel | None, method: Any) -> None:
        """Open or close a channel."""
        if isinstance(method, ChannelMethods.Open):
            if channel is not None:
                raise ConnectionRefusal(504, "second 'channel.open' seen")
            if len(self.channels) >= self._channel_max:
                most = self._channel_max
                raise ConnectionRefusal(
                    530, f"number of channels opened ({most}) has reached the negotiated channel_max ({most})"
                )
            self.channels[number] = Channel(self, number)
            self._answer(ChannelMethods.OpenOk(""), number)
        elif channel is None:
            if not isinstance(method, ChannelMethods.CloseOk):
                raise ConnectionRefusal(504, "expected 'channel.open'")
        elif isinstance(method, ChannelMethods.Close):
            channel.confirm()
            del self.channels[number]
            if not channel.closing:
                channel.release()
            self._answer(ChannelMethods.CloseOk(), number)
        elif isinstance(method, ChannelMethods.CloseOk):
            if channel.closing:
                del self.channels[number]
        elif isinstance(method, ChannelMethods.Flow) and not channel.closing:
            self._answer(channel.flow(method), number)
        elif not channel.closing:
            raise ConnectionRefusal(503, "unimplemented method")

    def _on_connection(self, content: bytes) -> None:
        """Take a method of channel 0: the handshake, and the end."""
        method = wire.read_method(content)
        if isinstance(method, ConnectionMethods.CloseOk) and self._state == "closing":
            self.lost()
        elif isinstance(method, ConnectionMethods.Close):
            if self._state == "running":
                self._release()
                self._state = "closing"
            self._answer(ConnectionMethods.CloseOk())
            self.lost()
        elif self._state == "closing":
            pass
        elif isinstance(method, ConnectionMethods.StartOk) and self._state == "login":
            self._log_in(method)
        elif isinstance(method, ConnectionMethods.TuneOk) and self._state == "tuning":
            self._tune(method)
        elif isinstance(method, ConnectionMethods.Open) and self._state == "opening":
            self._open(method)
        else:
            state = self._state
            refusal = ConnectionRefusal(504, f"unexpected method in connection state {state}")
            self._refuse(refusal, *place_of(content))

    def _log_in(self, method: Any) -> None:
        properties = tables.read_table(method.client_properties)[0]
        capabilities = properties.get("capabilities", b"")
        if capabilities[:1] == b"F":
            able = tables.read_table(capabilities, 1)[0]
            self._capabilities = {name for name, value in able.items() if value == b"t\x01"}
        if method.mechanism != "PLAIN":
            raise ConnectionRefusal(540, f"mechanism {method.mechanism} is not provided, only PLAIN")
        parts = bytes(method.response).decode(errors="replace").split("\0")
        account = self._house.log_in(*parts[1:]) if len(parts) == 3 else None
        if account is None or self.faults.refuses_login():
            if "authentication_failure_close" not in self._capabilities:
                raise Hangup
            raise ConnectionRefusal(403, LOGIN_REFUSED)
        self.account = account
        self._state = "tuning"
        self._answer(ConnectionMethods.Tune(CHANNELS, wire.LARGEST_FRAME, self._house.heartbeat))

    def _tune(self, method: Any) -> None:
        """Take what the client wants of frames, channels and heartbeats; 0 would be without a limit."""
        if not wire.LEAST_FRAME <= method.frame_max <= wire.LARGEST_FRAME:
            raise Hangup
        if not 0 < method.channel_max <= CHANNELS:
            raise Hangup
        self.frame_max, self._channel_max = method.frame_max, method.channel_max
        self.heartbeat = method.heartbeat
        self._state = "opening"

    def _open(self, method: Any) -> None:
        name = method.virtual_host
        vhost = self._house.vhost(name)
        refusal = None
        if vhost is None:
            refusal = ConnectionRefusal(530, f"vhost {name} not found")
        elif not self.account.everywhere and name not in self.account.permissions:
            refusal = ConnectionRefusal(
                530, f"access to vhost '{name}' refused for user '{self.account.name}'"
            )
        else:
            self.vhost = vhost
        if refusal is not None:
            self._refuse(refusal, 10, 40)
            return
        self._state = "running"
        self._answer(ConnectionMethods.OpenOk())
        if self.faults.blocked is not None:
            self.tell_blocked(self.faults.blocked)

    def _refuse(self, refusal: Refusal, class_id: int, method_id: int) -> None:
        """Tell the client why it must go, and wait some time for it to agree."""
        if self._state in ("closing", "gone"):
            self.lost()  # it goes on talking nonsense
            return
        if self._state == "running":
            self._release()
        self._state = "closing"
        self._answer(ConnectionMethods.Close(refusal.code, refusal.text, class_id, method_id))
        clock = self._house.clock
        clock.at(clock.now() + CLOSE_WAIT, self.lost)

    def _release(self) -> None:
        """End all channels, and the queues that belong to this connection alone."""
        channels, self.channels = list(self.channels.values()), {}
        for channel in channels:
            channel.confirm()
            if not channel.closing:
                channel.release()
        for queue in [queue for queue in self.vhost.queues.values() if queue.owner is self]:
            self.vhost.delete_queue(queue)

    def _confirm(self) -> None:
        confirming, self._confirming = self._confirming, []
        if self.faults.confirms_withheld:
            for channel in confirming:
                channel.withhold()
        elif self.faults.confirm_delay:
            clock = self._house.clock
            for channel in confirming:
                clock.at(clock.now() + self.faults.confirm_delay, channel.confirm)
        else:
            for channel in confirming:
                channel.confirm()

    def _answer(self, method: Any, channel: int = 0) -> None:
        self.write(wire.method_frame(method, channel))


def place_of(content: bytes) -> tuple[int, int]:
    """Return the class and the number of a method, as far as it has them."""
    return divmod(wire.number_of.unpack_from(content)[0], 1 << 16) if len(content) >= 4 else (0, 0)
