"""The tokens by which programs of organisations are known."""

import hmac
import re
from collections.abc import Mapping

from flow.errors import ConfigError
from flow.settings import Secret

SHORTEST = 32  # characters of a token


class ApiTokens:
    """Which organisation a token belongs to; several may belong to one, so that they can be changed."""

    def __init__(self, tokens: Mapping[str, str]) -> None:
        """Take the organisations by their tokens."""
        self._tokens = [(token.encode(), organisation) for token, organisation in tokens.items()]

    @classmethod
    def parse(cls, secret: Secret | None) -> "ApiTokens":
        """Read lines of `ORGANISATION TOKEN`; empty lines and lines that begin with # are left out.

        Raises:
            ConfigError: a line is none, a token is too short or belongs to two; no token is in the text.
        """
        tokens: dict[str, str] = {}
        for number, line in enumerate((secret.reveal() if secret else "").splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            organisation, _, token = line.strip().partition(" ")
            token = token.strip()
            if len(token) < SHORTEST or not re.fullmatch(r"[\x21-\x7e]+", token):
                raise ConfigError(
                    f"line {number} of the API tokens must be the name of an organisation, a space, and a "
                    f"token of at least {SHORTEST} characters without spaces"
                )
            if tokens.setdefault(token, organisation) != organisation:
                raise ConfigError(f"line {number} of the API tokens gives the token of another organisation")
        return cls(tokens)

    def organisation(self, authorization: str) -> str | None:
        """Return whose token an Authorization header holds, or None; it takes as long for each."""
        kind, _, token = authorization.partition(" ")
        given = token.strip().encode("utf-8", "surrogateescape")
        found = None
        for known, organisation in self._tokens:
            if hmac.compare_digest(known, given):
                found = organisation
        return found if kind.lower() == "bearer" else None
