"""Calls that reach only the addresses they may: the name is resolved once, checked, and then connected to.

Against requests forged through somebody's URL or DNS server (SSRF): what is checked is what is called.
"""

import socket
import ssl
from collections.abc import Awaitable, Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import TypeAlias

import anyio
import httpx2

from flow.outcome import Unavailable
from flow.targets.http import CONNECT

Resolve: TypeAlias = Callable[[str, int], Awaitable[list[str]]]
"""Takes a host and a port; returns addresses, or raises OSError."""

KEPT = 30.0  # seconds for which checked addresses are used again

LOCAL = [ip_network(one) for one in ("127.0.0.0/8", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16")]
LOCAL += [ip_network(one) for one in ("::1/128", "fc00::/7")]
GLOBAL = ip_network("2000::/3")  # outside of it: mapped, translated (NAT64), link-local, multicast and so on
RESERVED = [
    ip_network(one)
    for one in (
        "192.0.0.0/24",  # protocols, and the metadata of one cloud
        "192.88.99.0/24",  # 6to4 relays
        "168.63.129.16/32",  # the metadata of another cloud
        "fd00:ec2::254/128",  # and of a third
        "2001::/23",  # Teredo and other protocols
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation
    )
]


def public(ip: IPv4Address | IPv6Address) -> bool:
    """Tell whether *ip* is of the public internet and hides no other address."""
    if any(ip in network for network in RESERVED):
        return False
    if isinstance(ip, IPv6Address):
        return ip in GLOBAL and ip.is_global
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def local(ip: IPv4Address | IPv6Address) -> bool:
    """Tell whether *ip* is of this machine or of a private network; never the metadata of a cloud."""
    return any(ip in network for network in LOCAL) and not any(ip in network for network in RESERVED)


def refusal(name: str, found: str, scheme: str, *, private: bool) -> str | None:
    """Return why the address *found* must not be called, or None; *private* ones only if they may."""
    try:
        ip = ip_address(found)
    except ValueError:
        return f"the host of {name} has an address that is none"
    if private and local(ip):
        return None
    if not public(ip):
        return f"the host of {name} is at {ip}, and only public addresses may be called"
    return None if scheme == "https" else f"the URL of {name} must begin with https://"


async def resolved(host: str, port: int) -> list[str]:
    """Return the addresses of *host* as the machine resolves it.

    Raises:
        OSError: there are none.
    """
    found = await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


class PinnedTransport(httpx2.AsyncHTTPTransport):
    """A transport that connects to checked addresses only; TLS still verifies the name of the host."""

    def __init__(
        self, name: str, *, private: bool, context: ssl.SSLContext | None, resolve: Resolve = resolved
    ) -> None:
        """Take the *name* for reasons, whether *private* addresses may be called, and who *resolves*.

        *context* verifies certificates; None: as the authorities of the machine say.
        """
        super().__init__(verify=context or True, trust_env=False)
        self._name = name
        self._private = private
        self._resolve = resolve
        self._known: dict[tuple[str, str, int], tuple[float, list[str]]] = {}

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send *request* to the first of the checked addresses that takes a connection.

        Raises:
            Unavailable: an address must not be called.
            TransportError: of httpx2.
        """
        url = request.url
        failure: httpx2.TransportError = httpx2.ConnectError("its host has no address")
        for address in await self.addresses(url):
            pinned = httpx2.Request(
                request.method,
                url.copy_with(host=address),
                headers=request.headers,  # with the name of the host
                stream=request.stream,
                extensions={**request.extensions, "sni_hostname": url.raw_host.decode("ascii")},
            )
            try:
                return await super().handle_async_request(pinned)
            except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
                failure = error
        self._known.clear()
        raise failure

    async def addresses(self, url: httpx2.URL) -> list[str]:
        """Return the addresses of the host of *url*, all of them checked.

        Raises:
            Unavailable: one of them must not be called.
            TransportError: there are none.
        """
        host, port = url.raw_host.decode("ascii"), url.port or (443 if url.scheme == "https" else 80)
        until, known = self._known.get((url.scheme, host, port), (0.0, []))
        if anyio.current_time() < until:
            return known
        try:
            with anyio.fail_after(CONNECT):
                found = await self._resolve(host, port)
        except TimeoutError:
            raise httpx2.ConnectTimeout("its name is not resolved in time") from None
        except (OSError, UnicodeError):
            raise httpx2.ConnectError("its name cannot be resolved") from None
        for one in found:
            reason = refusal(self._name, one, url.scheme, private=self._private)
            if reason is not None:
                raise Unavailable(reason)
        self._known[url.scheme, host, port] = anyio.current_time() + KEPT, found
        return found
