"""A target that speaks JSON over HTTP; whatever goes wrong becomes a verdict in words of our own."""

import logging
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from functools import cache
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import msgspec

from flow.errors import ConfigError
from flow.outcome import Reject, Retry, Unavailable, Verdict
from flow.settings import Secret

if TYPE_CHECKING:
    import httpx2

T = TypeVar("T")
CONNECT = 5.0  # seconds; then the target counts as away
LARGEST = 16 << 20  # bytes of an answer
LONGEST = 3600.0  # seconds of a Retry-After that are waited for
LOOPBACK = ("localhost", "127.0.0.1", "::1")

log = logging.getLogger(__name__)


class HttpTarget:
    """One HTTP service; `async with` opens and closes its connections.

    Redirections are not followed, and neither proxies nor a `.netrc` of the environment are used. What the
    service answers is never repeated in a reason: it may quote what it was sent.
    """

    def __init__(
        self,
        name: str,
        url: str,
        token: Secret | None = None,
        *,
        timeout: float = 30.0,
        cafile: str | None = None,
    ) -> None:
        """Take the *name* for reasons ("the CRM"), the *url* under which all paths are, and a bearer *token*.

        *timeout* is in seconds, for one call from connecting to the last byte of the answer. *cafile* names
        certificates of authorities to trust instead of the machine's.

        Raises:
            ConfigError: url or cafile are wrong, or httpx2 is not installed.
        """
        self.name = name
        self.timeout = timeout
        self._http = client(name, url, token, timeout, cafile)

    async def __aenter__(self) -> "HttpTarget":
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def call(
        self,
        method: str,
        path: str,
        answer: type[T],
        *,
        body: object = None,
        params: Mapping[str, str | int] | None = None,
        headers: Mapping[str, str] | None = None,
        alone: bool = False,
    ) -> T:
        """Send *body* as JSON and return the answer read as *answer*, a type that msgspec knows.

        *alone* says that the body is about one message only, so that a refusal of the body condemns it.

        Raises:
            Unavailable: the target is away, overloaded, refuses the token, or is not at this address.
            Retry: the call broke off, took too long, or the answer cannot be read; it may have had effect.
            Reject: the target refuses the body (400, 413, 422) and it is *alone*; else that is a Retry.
        """
        content = None if body is None else msgspec.json.encode(body)
        sent = {"Content-Type": "application/json", **(headers or {})}
        call = {"content": content, "params": params, "headers": sent}
        async with exchange(self.name, self._http, self.timeout, method, path, **call) as response:
            if not response.is_success:
                raise self._refused(response, alone)
            text = await self._text(response)
        try:
            return msgspec.json.decode(text, type=answer)
        except (ValueError, RecursionError):
            raise Retry(f"the answer of {self.name} cannot be read") from None

    def _refused(self, response: "httpx2.Response", alone: bool) -> Verdict:
        status = response.status_code
        said = f"{self.name} answered {status}"
        match status:
            case 400 | 413 | 422:  # a bad one among many is found at its last attempts, which are made alone
                return Reject(said) if alone else Retry(said)
            case 401 | 403:
                return Unavailable(f"{self.name} refuses the token ({status})")
            case 429 | 503:
                return Unavailable(said, retry_after(response))
            case _ if status == 408 or status >= 500:
                return Retry(said)
        return Unavailable(f"{said}: is the address right?")

    async def _text(self, response: "httpx2.Response") -> bytes:
        text = bytearray()
        async for part in response.aiter_bytes():
            text += part
            if len(text) > LARGEST:
                raise Retry(f"{self.name} answered more than {LARGEST >> 20} MiB")
        return bytes(text)


@asynccontextmanager
async def exchange(
    name: str, http: "httpx2.AsyncClient", timeout: float, method: str, url: str, **call: Any
) -> "AsyncIterator[httpx2.Response]":
    """Make one call of *timeout* seconds in all, and yield the answer, of which nothing is read yet.

    Raises:
        Unavailable: *name* is away: nothing was sent.
        Retry: the call broke off or took too long; it may have had effect.
    """
    import httpx2

    sent = False

    async def trace(event: str, _: object) -> None:
        nonlocal sent
        sent = sent or event.startswith("http11.send_request")

    try:
        with anyio.fail_after(timeout):  # in all; httpx2 would count from each byte to the next
            async with http.stream(method, url, extensions={"trace": trace}, **call) as response:
                yield response
    except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
        why = str(error) or type(error).__name__
        raise Unavailable(f"{name} cannot be reached: {why}") from None
    except (httpx2.HTTPError, TimeoutError) as error:
        if not sent:
            raise Unavailable(f"{name} cannot be reached: {type(error).__name__}") from None
        raise Retry(f"the call to {name} broke off ({type(error).__name__})") from None


def client(
    name: str, url: str, token: Secret | None, timeout: float, cafile: str | None
) -> "httpx2.AsyncClient":
    """Return a client for everything under *url*, for calls of *timeout* seconds in all.

    Raises:
        ConfigError: url or *cafile* are wrong, or httpx2 is not installed.
    """
    parsed = address(name, url)
    if token is not None and parsed.scheme == "http" and parsed.host not in LOOPBACK:
        log.warning("the token for %s travels unencrypted: its URL begins with http://", name)
    headers = {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
    verify = authorities(name, cafile) or usual_authorities()
    return bare_client(timeout, base_url=parsed, headers=headers, verify=verify)


def bare_client(timeout: float, **options: Any) -> "httpx2.AsyncClient":
    """Return a client that takes nothing from the environment, follows nothing and keeps no cookies.

    Connecting has a third of *timeout* for TCP and as much for TLS: that ends before the call does.
    """
    import httpx2

    limits = httpx2.Timeout(None, connect=min(CONNECT, timeout / 3))
    cookies = CookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return httpx2.AsyncClient(timeout=limits, cookies=cookies, trust_env=False, **options)


def address(name: str, url: str) -> "httpx2.URL":
    """Return *url* taken apart; *name* is for the error.

    Raises:
        ConfigError: it is none, holds a secret, or httpx2 is not installed.
    """
    try:
        import httpx2
    except ModuleNotFoundError:
        raise ConfigError(f"httpx2 is needed to call {name}: install proca-flow[http]") from None
    try:
        parsed = httpx2.URL(url)
    except httpx2.InvalidURL:
        parsed = httpx2.URL("")
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(f"the URL of {name} must begin with https:// or http:// and a host")
    if parsed.userinfo or parsed.query:
        raise ConfigError(
            f"the URL of {name} must hold no user, password or query; a token has its own setting"
        )
    return parsed


def authorities(name: str, cafile: str | None) -> ssl.SSLContext | None:
    """Return what trusts the certificates in *cafile*; None: without one.

    Raises:
        ConfigError: it holds none.
    """
    if cafile is None:
        return None
    try:
        return ssl.create_default_context(cafile=cafile)
    except OSError as error:
        why = "no certificate is in it" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigError(f"the file of authorities for {name} cannot be read ({why})") from None


@cache
def usual_authorities() -> ssl.SSLContext:
    """Return what trusts the authorities that everybody trusts; they are read once, for that takes long."""
    import httpx2

    return httpx2.create_ssl_context(trust_env=False)


def retry_after(response: "httpx2.Response") -> float | None:
    """Return the seconds after which *response* asks to be called again, an hour at most, or None."""
    return seconds(response.headers.get("Retry-After", ""), datetime.now(UTC))


def seconds(text: str, now: datetime) -> float | None:
    """Return a Retry-After, a number or an HTTP date, in seconds from *now*: 0 to 3600; else None."""
    if text.isdecimal():
        return min(float(text), LONGEST)
    try:
        date = parsedate_to_datetime(text)
    except (ValueError, OverflowError):
        return None
    aware = date if date.tzinfo else date.replace(tzinfo=UTC)  # "-0000" says: UTC, from nowhere in particular
    return min(max(0.0, (aware - now).total_seconds()), LONGEST)
