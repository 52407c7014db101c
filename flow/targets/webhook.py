"""A target that gets each message as a signed POST, and how its receiver verifies that."""

import hmac
import time
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING

import anyio

from flow.errors import ConfigError
from flow.options import seconds
from flow.outcome import Reject, Retry, Unavailable, Verdict
from flow.settings import Secret, Settings
from flow.targets.http import address, authorities, bare_client, exchange, retry_after

if TYPE_CHECKING:
    import httpx2

    from flow.targets.pinned import Resolve

ID, TIMESTAMP, SIGNATURE = "Flow-Id", "Flow-Timestamp", "Flow-Signature"
VERSION = "v1"
PORTS = (443, 8443)
SHORTEST = 16  # characters of a secret
TOLERANCE = 300  # seconds between the clocks of sender and receiver
MOST = 16  # signatures that are looked at
READ = 64 << 10  # bytes of an answer that are read so that its connection can be used again
LINGER = 1.0  # seconds for that


class CallSettings(Settings):
    """How a webhook is called, wherever it is."""

    timeout: float = 10.0  # seconds for one call
    port: int | None = None  # allowed beside 443 and 8443
    allow_private: bool = False  # also this machine and private networks, over http too
    cafile: str | None = None  # authorities to trust instead of the machine's

    def called(self, name: str, url: str, secrets: Secret) -> "WebhookTarget":
        """Return the webhook at *url*, not opened yet; *name* and *secrets* as a `WebhookTarget` takes them.

        Raises:
            ConfigError: a value is wrong.
        """
        return WebhookTarget(
            name,
            url,
            secrets,
            timeout=self.timeout,
            port=self.port,
            allow_private=self.allow_private,
            cafile=self.cafile,
        )


class WebhookTarget:
    """One receiver of signed POSTs; `async with` opens and closes its connections.

    Only https, on known ports, to public addresses that were checked: the host is resolved once for a
    connection. Redirections are not followed; proxies, cookies and a `.netrc` are not used. What the receiver
    answers beyond its status and `Retry-After` is read by nobody.
    """

    def __init__(
        self,
        name: str,
        url: str,
        secrets: Secret,
        *,
        timeout: float = 10.0,
        port: int | None = None,
        allow_private: bool = False,
        cafile: str | None = None,
        resolve: "Resolve | None" = None,
    ) -> None:
        """Take the *name* for reasons ("the webhook"), the *url*, and *secrets* separated by white space.

        Every secret signs, so that a receiver may change from one to the next. *timeout* is in seconds, for
        one call in all. *port* is allowed beside 443 and 8443. *allow_private* also allows this machine and
        private networks, over http too. *cafile* names certificates of authorities to trust instead of the
        machine's. *resolve* replaces the resolving of names.

        Raises:
            ConfigError: url, secrets, timeout or cafile are wrong, or httpx2 is not installed.
        """
        parsed = address(name, url)
        from flow.targets.pinned import PinnedTransport, resolved

        allowed = (*PORTS, port)
        if parsed.scheme != "https" and not allow_private:
            raise ConfigError(f"the URL of {name} must begin with https://")
        if (parsed.port or (443 if parsed.scheme == "https" else 80)) not in allowed:
            raise ConfigError(
                f"the port in the URL of {name} must be 443, 8443 or the one allowed beside them"
            )
        if min((len(one) for one in keys(secrets)), default=0) < SHORTEST:
            raise ConfigError(f"each secret of {name} must have at least {SHORTEST} characters")
        seconds(f"the timeout of {name}", timeout)
        self.name = name
        self.timeout = timeout
        self._url = parsed
        self._secrets = secrets
        self._transport = PinnedTransport(
            name, private=allow_private, context=authorities(name, cafile), resolve=resolve or resolved
        )
        self._http = bare_client(timeout, transport=self._transport, headers={"User-Agent": "proca-flow"})

    async def __aenter__(self) -> "WebhookTarget":
        """Open it.

        Raises:
            ConfigError: the host has an address that must not be called; one that is not found may come.
        """
        import httpx2

        try:
            await self._transport.addresses(self._url)
        except Unavailable as refused:
            raise ConfigError(refused.reason) from None
        except httpx2.TransportError:
            pass
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self._http.__aexit__(kind, error, traceback)

    async def send(self, identifier: str, body: bytes) -> None:
        """Send *body* under *identifier*, which must be the same at every attempt and hold no dot.

        Raises:
            Unavailable: the receiver is away, overloaded, refuses the signature, or is not at this address.
            Retry: the call broke off or failed; it may have had effect.
            Reject: the receiver refuses this body (413, 422).
        """
        timestamp = str(int(time.time()))
        headers = {
            "Content-Type": "application/json",
            "Accept-Encoding": "identity",
            ID: identifier,
            TIMESTAMP: timestamp,
            SIGNATURE: ",".join(signatures(keys(self._secrets), identifier, timestamp, body)),
        }
        call = {"content": body, "headers": headers}
        taken = False  # the status says so: what goes wrong after it makes nothing undelivered
        try:
            async with exchange(
                self.name, self._http, self.timeout, "POST", str(self._url), **call
            ) as response:
                refused = verdict(self.name, response)
                if refused is not None:
                    raise refused
                taken = True
                await finish(response)
        except Retry:
            if not taken:
                raise


def verdict(name: str, response: "httpx2.Response") -> Verdict | None:
    """Return what the status of *response* means for the message, or None: delivered."""
    status = response.status_code
    said = f"{name} answered {status}"
    match status:
        case _ if response.is_success:
            return None
        case 401 | 403:
            return Unavailable(f"{name} refuses the signature ({status})")
        case 410:
            return Unavailable(f"{said}: it is gone for good, so change the address or stop this pipeline")
        case _ if status in (404, 405) or 300 <= status < 400:
            return Unavailable(f"{said}: is the address right?")
        case 429 | 503:
            return Unavailable(said, retry_after(response))
        case 413 | 422:
            return Reject(said)
    # 400 too: some receivers answer so to a signature that they do not know, and that is mended soon.
    return Retry(said)


async def finish(response: "httpx2.Response") -> None:
    """Read the rest of a short answer, so that its connection can be used again; others are cut off."""
    size = 0
    with anyio.move_on_after(LINGER):
        async for part in response.aiter_raw():
            size += len(part)
            if size > READ:
                return


def keys(secrets: Secret) -> list[str]:
    """Return the secrets, separated by white space in the text."""
    return secrets.reveal().split()


def signatures(secrets: Iterable[str], identifier: str, timestamp: str, body: bytes) -> Iterator[str]:
    """Yield for each secret what is signed with it: `v1=` and a HMAC-SHA256 in hexadecimal digits."""
    for secret in secrets:
        digest = hmac.new(secret.encode(), f"{identifier}.{timestamp}.".encode(), "sha256")
        digest.update(body)
        yield f"{VERSION}={digest.hexdigest()}"


def verify(
    secrets: str | Iterable[str],
    headers: Mapping[str, str],
    body: bytes,
    now: float | None = None,
    *,
    tolerance: float = TOLERANCE,
) -> bool:
    """Tell a receiver whether *body* was sent by somebody who knows one of *secrets*, just now.

    *body* is every byte as received. *now* is in unix seconds, defaults to the clock, and may differ by
    *tolerance* seconds. The same `Flow-Id` may still come again: apply each only once.
    """
    found = {name.lower(): value for name, value in headers.items()}
    identifier, timestamp = found.get(ID.lower(), ""), found.get(TIMESTAMP.lower(), "")
    sent = [one.strip().encode() for one in found.get(SIGNATURE.lower(), "").split(",", MOST)[:MOST]]
    if not identifier or not timestamp.isascii() or not timestamp.isdecimal() or len(timestamp) > MOST:
        return False
    if abs((time.time() if now is None else now) - int(timestamp)) > tolerance:
        return False
    known = [one for one in ([secrets] if isinstance(secrets, str) else secrets) if one]
    wanted = [one.encode() for one in signatures(known, identifier, timestamp, body)]
    return any(hmac.compare_digest(one, another) for one in wanted for another in sent)
