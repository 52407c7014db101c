"""Opening encrypted contacts: a store of keys, and the NaCl boxes that they open."""

import functools
import re
from base64 import b64decode
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import msgspec

from flow.codec import depth, tried
from flow.errors import ConfigError
from flow.outcome import Reject, Retry
from flow.reasons import malformed, unfit
from flow.schema import ActionMessage, Contact, EventMessage, PersonalInfo, Supporter
from flow.tolerance import amender

if TYPE_CHECKING:
    from nacl.public import Box, PrivateKey

W = TypeVar("W", bound=ActionMessage | EventMessage | Supporter)

KEY = 32  # bytes, of a private and of a public key
NONCE = 24  # bytes
DEEPEST = 100  # levels of lists and objects in a clear text
BOXES = 256  # pairs of keys that are remembered: making a box costs more than opening one
SHOWN = 12  # characters of a public key in a reason

amending = functools.cache(amender)


class KeyStore:
    """Private keys by their public ones; opens contacts and shows no key.

    An empty store opens nothing: every encrypted contact is a `Retry` that names its key.
    """

    __slots__ = ("_boxes", "_keys")

    def __init__(self, keys: "Mapping[bytes, PrivateKey] | None" = None) -> None:
        """Take the private keys by their 32 raw public bytes; `parse` makes them from a text."""
        self._keys = dict(keys or {})
        self._boxes: dict[tuple[bytes, bytes], Box] = {}

    @classmethod
    def parse(cls, text: str, where: str = "the key store") -> "KeyStore":
        """Read the JSON object `{PUBLIC: {"private": PRIVATE}}`; keys are base64url, padded or not.

        *where* says in errors where *text* comes from.

        Raises:
            ConfigError: it is none, a key is wrong or missing, or PyNaCl is not installed; no private key is
                in the text, nor in the locals of its traceback.
        """
        keys, problem = _parsed(text)
        del text
        if problem:
            raise ConfigError(f"{where} {problem}")
        return cls(keys)

    def __repr__(self) -> str:
        return f"<KeyStore: {len(self._keys)} keys>"

    def __copy__(self) -> "KeyStore":
        return self

    def __deepcopy__(self, memo: object) -> "KeyStore":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a KeyStore is not pickled: hand on the name of its file instead")

    def opened(self, body: W) -> W:
        """Return *body* with its contact complete, and `personal_info` None; itself if nothing is encrypted.

        Takes an `ActionMessage`, an `EventMessage` (whose supporter is opened) or a `Supporter`.

        Raises:
            Retry: the store has not the key, or the contact cannot be decrypted with it.
            Reject: what was decrypted is no contact.
        """
        if isinstance(body, EventMessage):
            supporter = body.supporter and self.opened(body.supporter)
            return body if supporter is body.supporter else _replaced(body, supporter=supporter)
        if body.personal_info is None:
            return body
        contact = self.open_contact(body.contact, body.personal_info)
        return _replaced(body, contact=contact, personal_info=None)

    def open_contact(self, contact: Contact | None, encrypted: PersonalInfo) -> Contact:
        """Return *contact* with the decrypted personal data merged over it; its `contact_ref` stays.

        Raises:
            Retry: the store has not the key, or *encrypted* cannot be decrypted with it.
            Reject: what was decrypted is no contact.
        """
        name = named(encrypted)
        private = self._keys.get(decoded(encrypted.encrypt_key.public, KEY) or b"")
        if private is None:
            why = ": the key store has no such key" if self._keys else ""
            raise Retry(f"the contact is encrypted for key {name} and cannot be opened{why}")
        clear = self._decrypted(private, encrypted)
        if clear is None:
            raise Retry(f"the contact cannot be decrypted with key {name}: it was altered, or is for another")
        merged, reason = _merged(contact, clear)
        if merged is None:
            raise Reject(f"what was decrypted with key {name} is no contact: {reason}")
        return merged

    def _decrypted(self, private: "PrivateKey", encrypted: PersonalInfo) -> bytes | None:
        """Return the clear text, or None: errors of PyNaCl stay here, for their frames hold keys."""
        sender = decoded(encrypted.sign_key.public, KEY)
        nonce = decoded(encrypted.nonce, NONCE)
        payload = decoded(encrypted.payload)
        if sender is None or nonce is None or payload is None:
            return None
        box = self._box(private, sender)
        return None if box is None else tried(box.decrypt, payload, nonce)[0]

    def _box(self, private: "PrivateKey", sender: bytes) -> "Box | None":
        from nacl.public import Box, PublicKey

        pair = bytes(private.public_key), sender
        box = self._boxes.get(pair)
        if box is None:
            box, _ = tried(Box, private, PublicKey(sender))
            if box is not None:  # None: a sender's key with which there is no secret
                if len(self._boxes) >= BOXES:
                    self._boxes.clear()
                self._boxes[pair] = box
        return box


def named(encrypted: PersonalInfo) -> str:
    """Return what the recipient's key is called in reasons: its number, or else how it begins."""
    key = encrypted.encrypt_key
    if key.id is not None:
        return str(key.id)
    beginning = key.public[:SHOWN]
    return beginning if re.fullmatch("[A-Za-z0-9_-]+", beginning) else "with an unprintable name"


def decoded(text: object, size: int | None = None) -> bytes | None:
    """Return the bytes of base64url *text*, padded or not; None if it is none, or not *size* bytes long."""
    if not isinstance(text, str):
        return None
    bare = text.rstrip("=")
    raw, _ = tried(lambda: b64decode(bare + "=" * (-len(bare) % 4), altchars=b"-_", validate=True))
    return raw if size is None or (raw is not None and len(raw) == size) else None


def _parsed(text: str) -> "tuple[dict[bytes, PrivateKey], str]":
    """Return the keys in *text*, and what is wrong with it, or ""."""
    try:
        from nacl.public import PrivateKey
    except ModuleNotFoundError:
        return {}, "needs PyNaCl to be used: install proca-flow[crypto]"
    raw = text.encode(errors="replace")
    entries, error = tried(msgspec.json.decode, raw)
    if error:
        return {}, f"is {malformed(error, raw)}"
    if not isinstance(entries, dict):
        return {}, 'must be a JSON object like {"PUBLIC": {"private": "PRIVATE"}}'
    if not entries:
        return {}, "holds no key"
    keys: dict[bytes, PrivateKey] = {}
    for number, (name, entry) in enumerate(entries.items(), 1):
        public = decoded(name, KEY)
        if public is None:
            return {}, f"holds a public key, number {number}, that is not {KEY} bytes in base64url"
        private = decoded(entry.get("private"), KEY) if isinstance(entry, dict) else None
        if private is None:
            return {}, f'must hold "private" for {name[:SHOWN]}…, {KEY} bytes in base64url'
        key = PrivateKey(private)
        if bytes(PrivateKey(public).public_key) == private:
            return {}, f"has the private key, number {number}, in the place of its public key"
        if bytes(key.public_key) != public:
            return {}, f"holds a private key for {name[:SHOWN]}… that belongs to another public key"
        keys[public] = key
    return keys, ""


def _merged(contact: Contact | None, clear: bytes) -> tuple[Contact | None, str]:
    """Return *contact* with the JSON object *clear* merged over it, or None and why that cannot be read."""
    if depth(clear) > DEEPEST:
        return None, f"nested deeper than {DEEPEST} levels"
    found, error = tried(msgspec.json.decode, clear)
    if error:
        return None, malformed(error, clear)
    if not isinstance(found, dict):
        return None, "not an object"
    kind = Contact if contact is None else type(contact)
    known: dict[str, Any] = {} if contact is None else msgspec.to_builtins(contact)
    whole = {**known, **found}
    if contact is not None:
        whole["contactRef"] = contact.contact_ref  # the campaign server's word, as in contacts that are clear
    merged, error = tried(msgspec.convert, amending(kind)(whole), kind)
    return merged, unfit(error) if error else ""


def _replaced(body: W, **changes: object) -> W:
    return msgspec.structs.replace(body, **changes)
