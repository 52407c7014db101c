"""The management API of RabbitMQ, as far as flow reads it; nothing is changed through it."""

from collections.abc import Mapping
from types import TracebackType
from typing import Any
from urllib.parse import quote

import msgspec

from flow.errors import AccessDenied, ConfigError, ConnectionLost, FlowError, NotFound

VARIABLE = "FLOW_MANAGEMENT_URL"
TIMEOUT = 10.0  # seconds for one answer


class ManagementApi:
    """Reads what the API tells; `async with` closes its connections."""

    def __init__(self, url: str) -> None:
        """Take an address like https://USER:PASSWORD@HOST:15671.

        Raises:
            ConfigError: it is none, or httpx2 is not installed; the sentence never quotes it.
        """
        try:
            import httpx2
        except ModuleNotFoundError:
            raise ConfigError(f"httpx2 is needed for {VARIABLE}: install proca-flow[http]") from None
        try:
            parsed = httpx2.URL(url.strip().rstrip("/"))
        except httpx2.InvalidURL:
            parsed = httpx2.URL("")
        if parsed.scheme not in ("http", "https") or not parsed.host or parsed.query or parsed.fragment:
            raise ConfigError(f"{VARIABLE} must be like https://USER:PASSWORD@HOST:15671")
        self.place = parsed.netloc.decode("ascii")
        """Host and port, without the login."""
        self._http = httpx2.AsyncClient(
            base_url=parsed.copy_with(userinfo=b""),
            auth=(parsed.username, parsed.password),
            timeout=TIMEOUT,
            trust_env=False,
        )

    async def __aenter__(self) -> "ManagementApi":
        await self._http.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._http.__aexit__(kind, error, trace)

    async def get(self, *path: str) -> Any:
        """Return what the API tells under *path*, whose parts may hold any letter.

        Raises:
            NotFound: there is no such thing.
            AccessDenied: the login is wrong, or may not see this.
            ConnectionLost: the API was not reached, or its answer cannot be read.
        """
        import httpx2

        where = "/".join(quote(part, safe="") for part in path)
        try:
            response = await self._http.get(f"api/{where}")
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            why = type(error).__name__
            raise ConnectionLost(f"the management API at {self.place} cannot be reached ({why})") from None
        if not response.is_success:
            raise self._refused(response.status_code)
        try:
            return msgspec.json.decode(response.content)
        except (ValueError, RecursionError):
            raise ConnectionLost(
                f"what answers at {self.place} is no management API: check the port"
            ) from None

    def _refused(self, status: int) -> FlowError:
        match status:
            case 404:
                return NotFound(f"the management API at {self.place} knows nothing of it")
            case 401 | 403:
                return AccessDenied(
                    f"the management API at {self.place} refuses the login: check it; "
                    "its tag must be management at least"
                )
        return ConnectionLost(f"the management API at {self.place} answered {status}")


def table(value: Any) -> Mapping[str, Any]:
    """Return *value* if it is an object; the API writes an empty one as a list at times."""
    return value if isinstance(value, dict) else {}
