"""The address of the broker: parsed with sentences of our own, shown without its password."""

import ipaddress
import logging
import os
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from yarl import URL

from flow.errors import CertificateRejected, ConfigError
from flow.options import suggestion, variable

FORM = "amqps://USER:PASSWORD@HOST/VHOST"
PORTS = {"amqp": 5672, "amqps": 5671}
VARIABLES = ("FLOW_AMQP_URL", "AMQP_URL", "PROCA_URL", "PROCA_USERNAME", "PROCA_PASSWORD")
FILES = ("cafile", "certfile", "keyfile")

log = logging.getLogger("flow")


@dataclass(frozen=True, kw_only=True)
class BrokerUrl:
    """Where the broker is, who we are there, and how its certificate is verified.

    `str()` and `repr()` mask the password. A path that is missing or a single slash means the virtual host
    "/", as in every common client; any other slash in a virtual host is written %2F.
    """

    host: str
    port: int
    vhost: str = "/"
    user: str
    password: str = field(repr=False)
    tls: bool = False
    cafile: Path | None = None
    """The authorities that may have signed the broker's certificate; None: those of the system."""
    certfile: Path | None = None
    """Our own certificate, for brokers that ask for one."""
    keyfile: Path | None = None
    alternatives: tuple["BrokerUrl", ...] = ()
    """Where else the broker is, in the order in which these are tried: the nodes of a cluster."""
    read: "Callable[[], BrokerUrl] | None" = field(default=None, repr=False, compare=False)
    """Reads it again; None: it cannot have changed."""

    @classmethod
    def parse(cls, text: str, *, user: str = "", password: str = "") -> "BrokerUrl":
        """Read a URL like amqps://USER:PASSWORD@HOST/VHOST?cafile=FILE; loopback needs no login.

        *user* and *password* fill in what the URL leaves out. Further URLs may follow after white space: they
        are tried in their order when the first is not reached, at each connecting.

        Raises:
            ConfigError: it is wrong; the sentence says where, and never quotes the password.
        """
        text, *others = re.split(r"\s+(?=amqps?://)", text.strip())
        parts = split(text)
        host, port = host_and_port(parts)
        alternatives = tuple(cls.parse(one, user=user, password=password) for one in others)
        user, password = login(parts, host, user, password)
        return cls(
            alternatives=alternatives,
            host=host,
            port=port,
            vhost=vhost(parts.path),
            user=user,
            password=password,
            tls=parts.scheme == "amqps",
            read=None,
            **files(parts),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> "BrokerUrl":
        """Read FLOW_AMQP_URL or AMQP_URL, or else PROCA_URL with PROCA_USERNAME and PROCA_PASSWORD.

        Each may be NAME_FILE. Such files are read again at each connecting, for passwords change.

        Raises:
            ConfigError: none of them is set, or what they say is wrong.
        """
        names = [one for name in VARIABLES for one in (name, f"{name}_FILE")]
        kept = {name: environment[name] for name in names if environment.get(name)}
        url = named(kept)
        return replace(url, read=partial(named, kept)) if any(one.endswith("_FILE") for one in kept) else url

    def again(self) -> "BrokerUrl":
        """Return what the files say now from which the address came, or else itself. Never raises.

        What cannot be used, perhaps because it is being written, changes nothing.
        """
        if self.read is None:
            return self
        try:
            return replace(self.read(), read=self.read)
        except ConfigError as error:
            log.warning("%s: the address of the broker stays", error)
            return self

    def full(self, *, name: str, heartbeat: int) -> str:
        """Return the URL with the password, for the client library only; *heartbeat* in seconds."""
        url = URL.build(
            scheme="amqps" if self.tls else "amqp",
            user=self.user,
            password=self.password,
            host=self.host,
            port=self.port,
            query={"heartbeat": str(heartbeat), "name": name},
        )
        return str(url)

    def on(self, name: str) -> "BrokerUrl":
        """Return the same address with the virtual host *name*."""
        return replace(self, vhost=name, alternatives=tuple(one.on(name) for one in self.alternatives))

    @property
    def place(self) -> str:
        """The host and the port, as they are named in sentences."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @property
    def in_the_clear(self) -> bool:
        """Whether login and messages would cross a network without TLS."""
        return not self.tls and not is_loopback(self.host)

    def context(self) -> ssl.SSLContext:
        """Build what verifies the broker's certificate and name: TLS 1.2 at least. Reads files.

        Raises:
            CertificateRejected: a named file holds no certificate or key, or cannot be read.
        """
        try:
            context = ssl.create_default_context(ssl.Purpose.SERVER_AUTH, cafile=self.cafile)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            if self.certfile:
                context.load_cert_chain(self.certfile, self.keyfile, password=no_passphrase)
        except (OSError, ValueError) as error:  # SSLError is an OSError
            named = ", ".join(str(path) for path in (self.cafile, self.certfile, self.keyfile) if path)
            raise CertificateRejected(
                f"The TLS files {named} cannot be used ({type(error).__name__}): give PEM without passphrase"
            ) from None
        return context

    def __str__(self) -> str:
        """Show it with the password masked."""
        scheme = "amqps" if self.tls else "amqp"
        where = "" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:***@{self.place}/{where}"


def named(environment: Mapping[str, str]) -> BrokerUrl:
    """Return the address that the variables of *environment* name, as `BrokerUrl.from_environment` says."""
    url = variable(environment, "FLOW_AMQP_URL") or variable(environment, "AMQP_URL")
    if url:
        return BrokerUrl.parse(url)
    url = variable(environment, "PROCA_URL")
    user = variable(environment, "PROCA_USERNAME")
    if not url:
        said = "PROCA_USERNAME is set, but no broker is" if user else "No broker is named"
        raise ConfigError(f"{said}: set AMQP_URL or PROCA_URL to {FORM}")
    return BrokerUrl.parse(url, user=user, password=variable(environment, "PROCA_PASSWORD"))


def split(text: str) -> SplitResult:
    """Cut the URL at its marks; *text* may end in white space, as secrets in files do."""
    text = text.strip()
    if not text:
        raise ConfigError(f"The broker URL is empty: write {FORM}")
    if re.search(r"[\s\x00-\x1f\x7f]", text):
        raise ConfigError("The broker URL has white space in it: remove it, or write it as %20")
    scheme, marked, rest = text.partition("://")
    if not marked or scheme.lower() not in PORTS:
        got = f", not {scheme}://" if marked and re.fullmatch("[A-Za-z]{1,10}", scheme) else ""
        raise ConfigError(f"The broker URL must begin with amqp:// or amqps://{got}: write {FORM}")
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    if "@" in rest and "@" not in authority:
        raise ConfigError("The login of the broker URL has a / ? or # in it: write %2F, %3F or %23 for it")
    try:
        parts = urlsplit(text)
    except ValueError:
        raise ConfigError(f"The host of the broker URL cannot be read: write {FORM}") from None
    if parts.fragment:
        raise ConfigError("The broker URL has a # in it: write %23 for it")
    return parts


def decoded(text: str, what: str) -> str:
    """Undo percent-encoding, strictly."""
    if re.search("%(?![0-9A-Fa-f]{2})", text):
        raise ConfigError(f"The {what} of the broker URL has a % in it: write %25 for it")
    try:
        return unquote(text, errors="strict")
    except UnicodeDecodeError:
        raise ConfigError(f"The {what} of the broker URL is not percent-encoded UTF-8") from None


def host_and_port(parts: SplitResult) -> tuple[str, int]:
    """Return the host and the port, 5672 or 5671 when none is given."""
    try:
        port = parts.port
    except ValueError:
        raise ConfigError("The port of the broker URL must be a number from 1 to 65535") from None
    if port == 0:
        raise ConfigError("The port of the broker URL must be a number from 1 to 65535, got 0")
    host = decoded(parts.hostname or "", "host")
    if not host:
        raise ConfigError(f"The broker URL names no host: write {FORM}")
    if not re.fullmatch(r"[\w.-]+|[0-9A-Fa-f:.]+(%\w+)?", host):
        raise ConfigError(f"The host of the broker URL is no host name: write {FORM}")
    return host, port or PORTS[parts.scheme]


def login(parts: SplitResult, host: str, user: str, password: str) -> tuple[str, str]:
    """Return user name and password; *user* and *password* stand in for what the URL leaves out."""
    own = decoded(parts.username or "", "user name"), decoded(parts.password or "", "password")
    if own[0] and user and own[0] != user:
        raise ConfigError(
            f"The broker URL says user {own[0]} and PROCA_USERNAME says {user}: give one of them"
        )
    user, password = own[0] or user, own[1] or password
    if is_loopback(host) and user in {"", "guest"}:
        return user or "guest", password or "guest"
    if not user:
        raise ConfigError(f"The broker URL names no user for {host}: write {FORM}")
    if not password:
        raise ConfigError(f"The broker URL has no password for user {user} at {host}: write {FORM}")
    return user, password


def vhost(path: str) -> str:
    """Return the virtual host that a path names; "//" is a common way to write "/"."""
    name = path[1:]
    if name in {"", "/"}:
        return "/"
    if "/" in name:
        raise ConfigError("The virtual host of the broker URL has a / in it: write %2F for it")
    name = decoded(name, "virtual host")
    if len(name.encode()) > 255:
        raise ConfigError(f"The virtual host of the broker URL must fit 255 bytes, got {len(name.encode())}")
    return name


def files(parts: SplitResult) -> dict[str, Path]:
    """Return the TLS files that the parameters name; there are no other parameters."""
    found: dict[str, Path] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "no_verify_ssl":
            raise ConfigError(
                "The broker URL says no_verify_ssl, but certificates are always verified: "
                "name the authority with cafile=FILE"
            )
        if name not in FILES:
            raise ConfigError(f"The broker URL has no parameter {name}{suggestion(name, FILES)}")
        if name in found:
            raise ConfigError(f"The broker URL has the parameter {name} twice")
        path = Path(value).expanduser()
        if not value or not path.is_file() or not os.access(path, os.R_OK):
            raise ConfigError(f"{name} of the broker URL must be a readable file, got {value or 'nothing'}")
        found[name] = path
    if found and parts.scheme != "amqps":
        raise ConfigError(f"{next(iter(found))} of the broker URL needs amqps://, got amqp://")
    if "keyfile" in found and "certfile" not in found:
        raise ConfigError("keyfile of the broker URL needs certfile as well")
    return found


def is_loopback(host: str) -> bool:
    """Whether *host* is this machine by definition."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def no_passphrase() -> str:
    """Answer the question for a passphrase with none, instead of asking on the terminal."""
    return ""
