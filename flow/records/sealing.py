"""Closing personal data for an organisation, which alone can open it."""

from base64 import urlsafe_b64encode
from dataclasses import dataclass, field

from flow.crypto import KEY, decoded
from flow.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sealed:
    """A NaCl box, all in base64url, as the columns of a contact and `personalInfo` have it."""

    payload: str = field(repr=False)
    nonce: str
    encrypt_key: str
    sign_key: str


def sealed(clear: bytes, public_key: str) -> Sealed:
    """Close *clear* for the owner of *public_key*, with a sender's key that is used once and forgotten.

    Raises:
        ConfigError: PyNaCl is not installed, or the key is none.
    """
    try:
        from nacl.public import Box, PrivateKey, PublicKey
    except ModuleNotFoundError:
        raise ConfigError(
            "An organisation with a public key needs PyNaCl: install proca-flow[crypto]"
        ) from None
    raw = decoded(public_key, KEY)
    if raw is None:
        raise ConfigError(f"The public key of the organisation is not {KEY} bytes in base64url")
    sender = PrivateKey.generate()
    box = Box(sender, PublicKey(raw)).encrypt(clear)
    return Sealed(_text(box.ciphertext), _text(box.nonce), public_key, _text(bytes(sender.public_key)))


def _text(raw: bytes) -> str:
    return urlsafe_b64encode(raw).rstrip(b"=").decode()
