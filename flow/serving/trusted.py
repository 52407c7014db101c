"""Whom `flow serve` trusts: the hosts to which it sends browsers, and the proxies that tell who asks."""

import re
from collections.abc import Iterable
from ipaddress import ip_network

from flow.errors import ConfigError

LABEL = "[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
HOST = re.compile(rf"(?=.{{1,253}}\Z){LABEL}(?:\.{LABEL})*")


def redirect_hosts(names: Iterable[str]) -> frozenset[str]:
    """Return the hosts called *names*, as they stand in URLs.

    Raises:
        ConfigError: a name is none, such as a URL.
    """
    hosts = frozenset(name.lower() for name in names)
    for host in sorted(hosts):
        if not HOST.fullmatch(host):
            raise ConfigError(
                f"--redirect-host takes a host alone, such as thanks.example.org (an international name as "
                f"xn--…), got {host!r}"
            )
    return hosts


def proxies(addresses: Iterable[str]) -> list[str]:
    """Return the *addresses* and networks of proxies as they are.

    Raises:
        ConfigError: one is neither; a name would never be recognized, and everybody's word would let anybody
            choose the address by which requests are counted.
    """
    several = list(addresses)
    for address in several:
        try:
            ip_network(address)
        except ValueError:
            raise ConfigError(
                f"--trusted-proxy takes an address or a network, such as 127.0.0.1 or 10.0.0.0/8, "
                f"got {address!r}"
            ) from None
    return several
