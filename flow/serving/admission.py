"""Who may ask what: wrong links, wrong tokens and haste are turned away."""

import hmac
import math
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from flow.links import VERBS, Tokens, Verb
from flow.records.linked import Linked
from flow.serving.desk import Desk
from flow.serving.limiter import AddressLimiter
from flow.serving.numbers import Result, Who
from flow.serving.tokens import ApiTokens

if TYPE_CHECKING:
    from starlette.requests import Request

PACE = 0.25  # seconds that every answer takes at least, so that its time does not tell a right reference
LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What `flow serve` was told."""

    tokens: ApiTokens
    """By which programs are known."""
    moderation: Tokens | None = None
    """Which moderators' links are good; None: none is."""
    redirect_hosts: frozenset[str] = frozenset()
    """Where a browser may be sent afterwards."""
    requests: int = 60
    """How many requests an address has in a minute."""
    pace: float = PACE
    """Seconds that every answer takes at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One request that may be answered: what is decided, by whom."""

    found: Linked
    verb: Verb
    who: Who
    moderating: bool

    @property
    def page(self) -> str:
        """The page that asks a person."""
        return f"moderate_{self.verb}" if self.moderating else self.verb


class Refused(Exception):
    """The request is not answered with what it asked for, but with the page *name*."""

    def __init__(self, name: Result, status: int, **headers: str) -> None:
        super().__init__(name)
        self.name: Result = name
        self.status = status
        self.headers = headers


class Admission:
    """Lets requests through that may be answered."""

    def __init__(self, desk: Desk, policy: Policy) -> None:
        """Look links up at the *desk*, as the *policy* allows."""
        self._desk = desk
        self._policy = policy
        self._limiter = AddressLimiter(policy.requests, 60.0)

    async def asked(self, request: "Request", moderating: bool) -> Asked:
        """Return what is asked, by somebody who may.

        Raises:
            Refused: nobody may know more than that it does not work.
        """
        organisation = self._program(request)
        if organisation is None:
            self._limit(request)
        values = request.path_params
        number, verb = str(values["action_id"]), values["verb"]
        action_id = int(number) if number.isascii() and number.isdecimal() and len(number) < 20 else -1
        known = 0 <= action_id <= LARGEST_ID and verb in VERBS
        found = await self._desk.find(action_id if known else 0)
        good = self._moderates(values, action_id, organisation) if moderating else right(values, found)
        if organisation is not None and (found is None or found.organisation != organisation):
            good = False
        if not (good and known) or found is None:
            raise Refused("not_found", 404)
        who: Who = "program" if organisation is not None else "moderator" if moderating else "supporter"
        return Asked(found=found, verb=verb, who=who, moderating=moderating)

    def _program(self, request: "Request") -> str | None:
        """Return the organisation whose program asks, or None without a bearer token.

        Raises:
            Refused: the token is wrong.
        """
        given = request.headers.get("authorization", "")
        if not given.lower().startswith("bearer "):  # another kind is for a proxy
            return None
        organisation = self._policy.tokens.organisation(given)
        if organisation is None:
            self._limit(request)
            raise Refused("unauthorized", 401, **{"www-authenticate": "Bearer"})
        return organisation

    def _limit(self, request: "Request") -> None:
        delay = self._limiter.delay(request.client.host if request.client else "", time.monotonic())
        if delay > 0:
            raise Refused("busy", 429, **{"retry-after": str(math.ceil(delay))})

    def _moderates(self, values: Any, action_id: int, organisation: str | None) -> bool:
        """Tell whether the link is a moderator's, or its program's.

        Raises:
            Refused: it was, and has expired.
        """
        token, moderation = values.get("reference", ""), self._policy.moderation
        if not token:
            return organisation is not None
        verdict = "wrong" if moderation is None else moderation.check(action_id, token)
        if verdict == "expired":
            raise Refused("expired", 410)
        return verdict == "good"


def right(values: Any, found: Linked | None) -> bool:
    """Tell whether the reference in the link is the supporter's; it takes as long for each."""
    reference = str(values.get("reference", "")).encode("utf-8", "surrogateescape")
    known = (found.contact_ref or "" if found else "").encode()
    return hmac.compare_digest(reference, known) and known != b""
