"""The links in mails and messages by which people accept or reject, and the tokens that sign some of them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args
from urllib.parse import quote, urlencode, urlsplit

from flow.errors import ConfigError

if TYPE_CHECKING:
    from itsdangerous import TimestampSigner

Verb: TypeAlias = Literal["accept", "reject"]
VERBS: tuple[Verb, ...] = get_args(Verb)

SECRET = "FLOW_LINK_SECRET"  # the variable that holds the secret, or several
VALID = 30 * 86_400  # seconds that a moderator's link works
SHORTEST = 32  # characters of a secret that signs
PURPOSE = b"flow.moderation"  # what else the secret signs is not mistaken for this


class Links:
    """Makes links to `flow serve`."""

    def __init__(self, base: str, secret: str = "") -> None:
        """Take the URL under which `flow serve` is reached, and the *secret* that signs moderators' links.

        Raises:
            ConfigError: the URL is none, or a secret is too short.
        """
        parts = urlsplit(base)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ConfigError("the URL of flow serve must begin with https:// and have no query")
        self._base = base.rstrip("/")
        self._tokens = Tokens(secret) if secret else None

    def supporter(
        self, action_id: int, verb: Verb, contact_ref: str, *, doi: bool = False, redirect: str | None = None
    ) -> str:
        """Return the link by which a supporter confirms or disowns the action.

        *doi* notes with the confirmation that the address wants mail (double opt-in). *redirect* is where the
        browser goes afterwards; `flow serve` must allow its host.
        """
        query = {"doi": "1"} if doi else {}
        if redirect is not None:
            query["redir"] = redirect
        path = f"/link/s/{action_id}/{verb}/{quote(contact_ref, safe='')}"
        return f"{self._base}{path}{'?' if query else ''}{urlencode(query)}"

    def moderator(self, action_id: int, verb: Verb) -> str:
        """Return the link by which a moderator accepts or rejects the action, for 30 days.

        Raises:
            ConfigError: there is no secret to sign it.
        """
        if self._tokens is None:
            raise ConfigError(
                f"links for moderators need the secret that flow serve verifies them with: set {SECRET}"
            )
        return f"{self._base}/link/a/{action_id}/{verb}/{self._tokens.sign(action_id)}"


class Tokens:
    """Signs action ids for a time."""

    def __init__(self, secret: str, valid: int = VALID) -> None:
        """Sign with *secret*; what was signed counts for *valid* seconds.

        Several secrets are separated by white space: the first signs, and what any of them has signed counts.

        Raises:
            ConfigError: a secret is too short, or itsdangerous is not installed.
        """
        secrets = secret.split()
        if min(map(len, secrets), default=0) < SHORTEST:
            raise ConfigError(
                f"the secret that signs links must have at least {SHORTEST} characters; white space "
                "separates several, each so long"
            )
        self._signer = signer(secrets)
        self._valid = valid

    def sign(self, action_id: int) -> str:
        """Return a token for *action_id*."""
        return self._signer.sign(str(action_id)).decode().partition(".")[2]

    def check(self, action_id: int, token: str) -> Literal["good", "expired", "wrong"]:
        """Tell whether *token* was signed for *action_id*, in time."""
        from itsdangerous import BadSignature

        try:
            _, signed_at = self._signer.unsign(f"{action_id}.{token}", return_timestamp=True)
        except BadSignature:
            return "wrong"
        # The age is not left to `unsign`: what a clock that is ahead has signed would be too old for it.
        age = self._signer.get_timestamp() - signed_at.timestamp()
        return "expired" if age > self._valid else "good"


def signer(secrets: Sequence[str]) -> "TimestampSigner":
    """Return what signs with the first of *secrets* for this purpose alone, and knows the others.

    Raises:
        ConfigError: itsdangerous is not installed.
    """
    try:
        from itsdangerous import TimestampSigner
    except ModuleNotFoundError:
        raise ConfigError("itsdangerous is needed to sign links: install proca-flow[serve]") from None
    from hashlib import sha256

    return TimestampSigner(secrets[::-1], salt=PURPOSE, digest_method=sha256)
