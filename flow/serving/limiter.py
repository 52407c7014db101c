"""How often one address may ask."""

from ipaddress import IPv6Address, ip_address

from flow.ratelimit import TokenBucket

CROWD = 10_000  # addresses before those that have long been quiet are forgotten


class AddressLimiter:
    """A bucket for each IPv4 address and each /64 of IPv6, which is what one subscriber gets."""

    def __init__(self, limit: int, per: float) -> None:
        """Let *limit* requests of an address through in each *per* seconds."""
        self._limit = limit
        self._per = per
        self._buckets: dict[str, TokenBucket] = {}
        self._crowd = CROWD

    def __len__(self) -> int:
        """Return how many addresses are remembered."""
        return len(self._buckets)

    def delay(self, address: str, now: float) -> float:
        """Let a request through and return 0.0, or return the seconds until the next one is."""
        network = network_of(address)
        bucket = self._buckets.get(network)
        if bucket is None:
            if len(self._buckets) >= self._crowd:
                self._buckets = {key: one for key, one in self._buckets.items() if one.full_at > now}
                self._crowd = max(CROWD, 2 * len(self._buckets))
            bucket = self._buckets[network] = TokenBucket(self._limit, self._per)
        return bucket.delay(1, now)


def network_of(address: str) -> str:
    """Return what is counted together with *address*."""
    try:
        parsed = ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(parsed, IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return parsed.exploded[:19]
    return str(parsed)
