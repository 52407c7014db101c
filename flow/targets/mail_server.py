"""Where mail is handed in: what is known of the server before the first connection."""

import re
import ssl
from dataclasses import dataclass
from typing import Literal

from flow.errors import ConfigError
from flow.options import seconds
from flow.settings import Secret

Security = Literal["starttls", "tls", "none"]
PORTS = {"starttls": 587, "tls": 465, "none": 25}
LOOPBACK = ("localhost", "127.0.0.1", "::1")
LONGEST = 20.0  # seconds of a timeout: a connection and a mail then take 10 times as long, at most
GREETING = re.compile(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Za-z.:]{2,60}\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class MailServer:
    """Where mail is handed in; nothing is known of it before the first connection."""

    host: str
    port: int | None = None
    """None: 587 with STARTTLS, 465 with TLS, 25 without either."""
    security: Security = "starttls"
    """`starttls` and `tls` verify the certificate; a server that does not offer it gets no mail."""
    user: str | None = None
    password: Secret | None = None
    timeout: float = LONGEST
    """Seconds for each command, 20 at most; five times that for the reply to a whole mail."""
    cafile: str | None = None
    """Certificates of authorities to trust instead of the machine's."""
    helo: str | None = None
    """How this machine calls itself to the server; None: by its own full name."""

    def __post_init__(self) -> None:
        """Check what can be known now.

        Raises:
            ConfigError: a value is wrong, aiosmtplib is not there, or the password would travel in the clear.
        """
        try:
            import aiosmtplib  # noqa: F401
        except ModuleNotFoundError:
            raise ConfigError("aiosmtplib is needed to send mail: install proca-flow[mail]") from None
        seconds("the timeout of the mail server", self.timeout)
        if self.timeout > LONGEST:
            raise ConfigError(
                f"the timeout of the mail server must be at most {LONGEST:g} s: a batch must end"
            )
        if not self.host or not self.host.isprintable() or " " in self.host:
            raise ConfigError("the mail server must be the name of a host, without a port")
        if self.helo is not None and not GREETING.fullmatch(self.helo):
            raise ConfigError("MAIL_HELO must be the name of a host, like mail.example.org")
        if self.port is not None and not 0 < self.port < 65536:
            raise ConfigError(f"the port of the mail server must be from 1 to 65535, got {self.port}")
        if (self.user is None) != (self.password is None):
            raise ConfigError("the mail server needs both a user and a password, or neither")
        if self.password is not None and self.security == "none" and self.host not in LOOPBACK:
            raise ConfigError("the password of the mail server would travel unencrypted: use starttls or tls")
        self.context()

    def context(self) -> ssl.SSLContext | None:
        """Return what verifies certificates; None without encryption.

        Raises:
            ConfigError: the file of authorities cannot be used.
        """
        if self.security == "none":
            return None
        try:
            return ssl.create_default_context(cafile=self.cafile)
        except OSError as error:  # an ssl.SSLError is one
            why = error.strerror or type(error).__name__
            raise ConfigError(f"the certificates in {self.cafile} cannot be read: {why}") from None
