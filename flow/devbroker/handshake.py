"""From the first octets of a client to its open virtual host."""

from typing import Any, Protocol

from pamqp.commands import Connection
from pamqp.common import FieldTable

from flow.devbroker import tables, wire
from flow.devbroker.accounts import Account
from flow.devbroker.clock import Clock
from flow.devbroker.errors import ConnectionRefusal, Hangup
from flow.devbroker.faults import Faults
from flow.devbroker.vhost import VirtualHost

CHANNELS = 2047
CAPABILITIES = (
    "authentication_failure_close",
    "basic.nack",
    "connection.blocked",
    "consumer_cancel_notify",
    "per_consumer_qos",
    "publisher_confirms",
)
PROPERTIES: FieldTable = {
    "capabilities": {name: True for name in CAPABILITIES},  # noqa: C420 (the type of fromkeys is narrower)
    "information": "A broker in memory for development; nothing is kept.",
    "product": "flow devbroker",
    "version": "3.10.8",  # of the RabbitMQ whose ways it follows
}
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


class Handshake:
    """Takes start-ok, tune-ok and open, in this order; what they agreed on stands in the attributes."""

    account: Account
    vhost: VirtualHost

    def __init__(self, house: House) -> None:
        """Wait for start-ok."""
        self.done = False
        self.frame_max = wire.LARGEST_FRAME
        self.channel_max = CHANNELS
        self.heartbeat = 0  # seconds; 0: none
        self.capabilities: set[str] = set()
        self._house = house
        self._next: type[Any] = Connection.StartOk

    def start(self) -> Connection.Start:
        """Return what the broker begins with."""
        return Connection.Start(server_properties=PROPERTIES, mechanisms="PLAIN")

    def take(self, method: Any) -> Any:
        """Take what the client says, and return the answer.

        Raises:
            ConnectionRefusal: it may not in, or it says something else than is its turn.
            Hangup: as a ConnectionRefusal, but this client would not understand it.
        """
        if not isinstance(method, self._next):
            raise ConnectionRefusal(504, f"unexpected method in connection state {self._next.name}")
        if isinstance(method, Connection.StartOk):
            return self._log_in(method)
        if isinstance(method, Connection.TuneOk):
            return self._tune(method)
        return self._open(method)

    def _log_in(self, method: Any) -> Connection.Tune:
        properties = tables.read_table(method.client_properties)[0]
        capabilities = properties.get("capabilities", b"")
        if capabilities[:1] == b"F":
            able = tables.read_table(capabilities, 1)[0]
            self.capabilities = {name for name, value in able.items() if value == b"t\x01"}
        if method.mechanism != "PLAIN":
            raise ConnectionRefusal(540, f"mechanism {method.mechanism} is not provided, only PLAIN")
        parts = bytes(method.response).decode(errors="replace").split("\0")
        account = self._house.log_in(*parts[1:]) if len(parts) == 3 else None
        if account is None or self._house.faults.refuses_login():
            if "authentication_failure_close" not in self.capabilities:
                raise Hangup
            raise ConnectionRefusal(403, LOGIN_REFUSED)
        self.account = account
        self._next = Connection.TuneOk
        return Connection.Tune(CHANNELS, wire.LARGEST_FRAME, self._house.heartbeat)

    def _tune(self, method: Any) -> None:
        """Take what the client wants of frames, channels and heartbeats; 0 would be without a limit."""
        if not wire.LEAST_FRAME <= method.frame_max <= wire.LARGEST_FRAME:
            raise Hangup
        if not 0 < method.channel_max <= CHANNELS:
            raise Hangup
        self.frame_max, self.channel_max = method.frame_max, method.channel_max
        self.heartbeat = method.heartbeat
        self._next = Connection.Open

    def _open(self, method: Any) -> Connection.OpenOk:
        name = method.virtual_host
        vhost = self._house.vhost(name)
        if vhost is None:
            raise ConnectionRefusal(530, f"vhost {name} not found")
        if not self.account.everywhere and name not in self.account.permissions:
            raise ConnectionRefusal(530, f"access to vhost '{name}' refused for user '{self.account.name}'")
        self.vhost = vhost
        self.done = True
        return Connection.OpenOk()
