"""Encrypted contacts are opened with a store of keys; the boxes are made here with PyNaCl."""

import copy
import json
import logging
import pickle
import sys
import traceback
from base64 import urlsafe_b64encode
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nacl.public import Box, PrivateKey, PublicKey

from flow.codec import Codec
from flow.crypto import BOXES, KeyStore, decoded
from flow.errors import ConfigError
from flow.outcome import Reject, Retry
from flow.schema import ActionMessage, Contact, EventMessage, PersonalInfo, Supporter
from flow.settings import Settings, load
from tests.bodies import changed, codec, sample
from tests.examples import examples
from tests.messages import MemoryOrigin

RECIPIENT, SENDER, STRANGER = (PrivateKey(bytes([number]) * 32) for number in (1, 2, 3))
CANARY = "canary@example.org"
PERSON = {"firstName": "Ada", "lastName": "Waters", "email": CANARY}
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def text(raw: Any, *, padded: bool = False) -> str:
    whole = urlsafe_b64encode(bytes(raw)).decode()
    return whole if padded else whole.rstrip("=")


def store_text(*keys: PrivateKey, padded: bool = False) -> str:
    entries = {text(key.public_key, padded=padded): {"private": text(key, padded=padded)} for key in keys}
    return json.dumps(entries)


def boxed(
    clear: Any, *, recipient: PublicKey = RECIPIENT.public_key, padded: bool = False, number: int | None = 3
) -> dict[str, Any]:
    """Return the `personalInfo` that holds *clear* for *recipient*."""
    raw = clear if isinstance(clear, bytes) else json.dumps(clear).encode()
    sealed = Box(SENDER, recipient).encrypt(raw)
    return {
        "payload": text(sealed.ciphertext, padded=padded),
        "nonce": text(sealed.nonce, padded=padded),
        "encryptKey": {"id": number, "public": text(recipient, padded=padded)},
        "signKey": {"id": 4, "public": text(SENDER.public_key, padded=padded)},
    }


def read(body: Any) -> Any:
    delivery = MemoryOrigin().message(body)
    codec((ActionMessage, EventMessage)).decode(delivery)
    return delivery.body


def action(info: dict[str, Any]) -> ActionMessage:
    body = read(changed("action_encrypted", "personalInfo", info))
    assert isinstance(body, ActionMessage)
    return body


def old_action(info: dict[str, Any]) -> ActionMessage:
    whole = json.loads(sample("action_old_encrypted"))
    whole["contact"] |= {
        "payload": info["payload"],
        "nonce": info["nonce"],
        "publicKey": info["encryptKey"]["public"],
        "signKey": info["signKey"]["public"],
    }
    body = read(whole)
    assert isinstance(body, ActionMessage)
    return body


@pytest.fixture
def store() -> KeyStore:
    return KeyStore.parse(store_text(RECIPIENT))


def refused(store: KeyStore, body: ActionMessage) -> Retry | Reject:
    with pytest.raises((Retry, Reject)) as caught:
        store.opened(body)
    assert caught.value.__context__ is None  # the frames of what failed hold keys and clear text
    return caught.value


def shown(error: BaseException) -> str:
    """Return the traceback of *error* as reporters write it, with the locals of every frame."""
    whole = traceback.TracebackException.from_exception(error, capture_locals=True)
    ours = [frame for frame in whole.stack if "/flow/" in frame.filename]
    return "".join(f"{frame.name} {frame.locals}" for frame in ours) + str(error)


def test_an_encrypted_contact_is_opened_and_merged_over_the_clear_one(store: KeyStore) -> None:
    body = action(boxed({**PERSON, "contactRef": "forged"}))

    opened = store.opened(body)

    assert opened.contact == Contact(
        contact_ref="fingerprint-7", area="AT", first_name="Ada", last_name="Waters", email=CANARY
    )
    assert opened.personal_info is None
    assert msgspec.structs.replace(opened, contact=body.contact, personal_info=body.personal_info) == body


def test_the_older_form_is_opened_too(store: KeyStore) -> None:
    opened = store.opened(old_action(boxed(PERSON)))

    assert (opened.contact.contact_ref, opened.contact.last_name) == ("fingerprint-7", "Waters")
    assert opened.personal_info is None


def test_what_is_not_encrypted_is_returned_as_it_is(store: KeyStore) -> None:
    for name in ("action", "email_status", "campaign_updated"):
        body = read(sample(name))

        assert store.opened(body) is body
        assert KeyStore().opened(body) is body


def test_the_supporter_of_an_event_is_opened(store: KeyStore) -> None:
    supporter = {"contact": None, "privacy": None, "personalInfo": boxed({**PERSON, "contactRef": "r"})}
    event = read(changed("email_status", "supporter", supporter))
    assert isinstance(event, EventMessage)

    opened = store.opened(event)

    assert opened.supporter == Supporter(
        contact=Contact(contact_ref="r", first_name="Ada", last_name="Waters", email=CANARY)
    )
    assert event.supporter is not None
    assert store.opened(event.supporter) == opened.supporter


def test_a_subclass_gets_its_own_fields_out_of_the_box(store: KeyStore) -> None:
    class Person(Contact, frozen=True, kw_only=True):
        shoe_size: int | None = None

    class Signed(ActionMessage, frozen=True, kw_only=True):
        contact: Person

    delivery = MemoryOrigin().message(
        changed("action_encrypted", "personalInfo", boxed({**PERSON, "shoeSize": 43}))
    )
    Codec((Signed,)).decode(delivery)

    assert store.opened(delivery.body).contact.shoe_size == 43


@given(
    person=st.dictionaries(
        st.sampled_from(["firstName", "lastName", "email", "phone", "unknownField"]), TEXTS | st.none()
    ),
    padded=st.booleans(),
    old=st.booleans(),
    others=st.integers(0, 3),
)
@settings(max_examples=examples(100), deadline=None)
def test_what_a_sender_boxes_is_what_is_read(
    person: dict[str, str | None], padded: bool, old: bool, others: int
) -> None:
    keys = [*(PrivateKey(bytes([50 + number]) * 32) for number in range(others)), RECIPIENT]
    store = KeyStore.parse(store_text(*keys, padded=not padded))
    body = (old_action if old else action)(boxed(person, padded=padded))

    contact = store.opened(body).contact

    before = msgspec.to_builtins(body.contact)
    known = {name: value for name, value in person.items() if name in before}
    assert msgspec.to_builtins(contact) == {**before, **known}


@given(place=st.integers(0, 10_000), bit=st.integers(0, 7), part=st.sampled_from(["payload", "nonce"]))
@settings(max_examples=examples(100), deadline=None)
def test_a_box_that_was_tampered_with_stays_closed(place: int, bit: int, part: str) -> None:
    info = boxed(PERSON)
    raw = bytearray(decoded(info[part]) or b"")
    raw[place % len(raw)] ^= 1 << bit

    verdict = refused(KeyStore.parse(store_text(RECIPIENT)), action({**info, part: text(raw)}))

    assert isinstance(verdict, Retry)
    assert verdict.reason == ("the contact cannot be decrypted with key 3: it was altered, or is for another")


@pytest.mark.parametrize(
    "changes",
    [
        {"payload": ""},
        {"payload": "c2hvcnQ"},
        {"payload": "not base64!"},
        {"payload": "Łódź"},
        {"payload": "A"},
        {"nonce": ""},
        {"nonce": text(23 * b"n")},
        {"nonce": text(25 * b"n")},
        {"signKey": {"public": text(STRANGER.public_key)}},
        {"signKey": {"public": text(31 * b"s")}},
        {"signKey": {"public": ""}},
        {"signKey": {"public": text(bytes(32))}},  # a point with which there is no common secret
    ],
    ids=repr,
)
def test_what_cannot_be_decrypted_is_retried_with_the_name_of_its_key(
    store: KeyStore, changes: dict[str, Any]
) -> None:
    verdict = refused(store, action(boxed(PERSON) | changes))

    assert isinstance(verdict, Retry)
    assert "decrypted with key 3:" in verdict.reason


@pytest.mark.parametrize("public", [text(STRANGER.public_key), "", "x", "Łódź", text(bytes(32))])
def test_an_unknown_key_is_retried(store: KeyStore, public: str) -> None:
    verdict = refused(store, action(boxed(PERSON) | {"encryptKey": {"id": 3, "public": public}}))

    assert isinstance(verdict, Retry)
    assert verdict.reason == (
        "the contact is encrypted for key 3 and cannot be opened: the key store has no such key"
    )


def test_an_empty_store_opens_nothing_and_says_so() -> None:
    verdict = refused(KeyStore(), action(boxed(PERSON)))

    assert isinstance(verdict, Retry)
    assert verdict.reason == "the contact is encrypted for key 3 and cannot be opened"


def test_a_key_without_a_number_is_named_by_its_beginning() -> None:
    named = refused(KeyStore(), old_action(boxed(PERSON)))
    odd = refused(KeyStore(), action(boxed(PERSON) | {"encryptKey": {"public": CANARY}}))

    assert text(RECIPIENT.public_key)[:12] in named.reason
    assert text(RECIPIENT.public_key)[:13] not in named.reason
    assert odd.reason == ("the contact is encrypted for key with an unprintable name and cannot be opened")


@pytest.mark.parametrize(
    ("clear", "reason"),
    [
        (b"canary@example.org", "not JSON: wrong character at byte 0"),
        (b"", "not JSON: it ends too early"),
        (b"\xff", "invalid UTF-8"),
        (b'["canary@example.org"]', "not an object"),
        (b"null", "not an object"),
        ({"email": ["canary@example.org"]}, "email is not text"),
        (b'{"x":' + b"[" * 5000 + b"]" * 5000 + b"}", "nested deeper than 100 levels"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_a_clear_text_that_is_no_contact_is_parked(store: KeyStore, clear: Any, reason: str) -> None:
    verdict = refused(store, action(boxed(clear)))

    assert isinstance(verdict, Reject)
    assert verdict.reason == f"what was decrypted with key 3 is no contact: {reason}"


def test_a_supporter_of_whom_nothing_is_clear_must_have_a_reference_in_the_box(store: KeyStore) -> None:
    info = msgspec.convert(boxed(PERSON), PersonalInfo)

    with pytest.raises(Reject, match=r"is no contact: contactRef is missing$"):
        store.open_contact(None, info)


def test_the_memory_for_senders_is_bounded(store: KeyStore) -> None:
    for number in range(BOXES + 10):
        public = text(number.to_bytes(2, "big") + 30 * b"k")
        refused(store, action(boxed(PERSON) | {"signKey": {"public": public}}))

    assert len(store._boxes) <= BOXES
    assert store.opened(action(boxed(PERSON))).contact.email == CANARY


BEGINNING = text(RECIPIENT.public_key)[:12]
PUBLIC, PRIVATE = text(RECIPIENT.public_key), text(RECIPIENT)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("x" + PRIVATE, "is not JSON: wrong character at byte 0"),
        ("{", "is not JSON: it ends too early"),
        ("[]", 'must be a JSON object like {"PUBLIC": {"private": "PRIVATE"}}'),
        ("{}", "holds no key"),
        ({PUBLIC: PRIVATE}, f'must hold "private" for {BEGINNING}…, 32 bytes in base64url'),
        ({PUBLIC: {}}, f'must hold "private" for {BEGINNING}…, 32 bytes in base64url'),
        ({PUBLIC: {"private": 7}}, f'must hold "private" for {BEGINNING}…, 32 bytes in base64url'),
        ({PUBLIC: {"private": PRIVATE[:-4]}}, f'must hold "private" for {BEGINNING}…, 32 bytes in base64url'),
        ({PUBLIC: {"private": 2 * PRIVATE}}, f'must hold "private" for {BEGINNING}…, 32 bytes in base64url'),
        (
            {PUBLIC: {"private": text(STRANGER)}},
            f"holds a private key for {BEGINNING}… that belongs to another public key",
        ),
        (
            {PRIVATE: {"private": PUBLIC}},
            "has the private key, number 1, in the place of its public key",
        ),
        (
            {PUBLIC: {"private": PRIVATE}, PRIVATE + PRIVATE: {}},
            "holds a public key, number 2, that is not 32 bytes in base64url",
        ),
    ],
)
def test_a_wrong_key_store_is_told_in_one_sentence_before_anything_starts(
    tmp_path: Path, content: Any, problem: str
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    path.chmod(0o600)

    with pytest.raises(ConfigError) as caught:
        load(Opening, {"OPENING_KEYS_FILE": str(path)})

    assert str(caught.value) == f"Opening: the key store {path} of OPENING_KEYS_FILE {problem}"
    for secret in (PRIVATE, text(STRANGER), PRIVATE[:12]):
        assert secret not in shown(caught.value)
    assert caught.value.__context__ is None


class Opening(Settings):
    """Settings of a pipeline that opens contacts."""

    prefix: ClassVar = "OPENING"
    keys: KeyStore = KeyStore()


@pytest.mark.parametrize("name", ["missing.json", "."])
def test_a_key_store_that_cannot_be_read_is_told_by_its_variable(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match=r"^Opening: OPENING_KEYS_FILE names a file that cannot be read"):
        load(Opening, {"OPENING_KEYS_FILE": str(tmp_path / name)})


def test_a_key_store_set_by_mistake_in_place_of_its_file_is_not_shown() -> None:
    with pytest.raises(ConfigError) as caught:
        load(Opening, {"OPENING_KEYS_FILE": store_text(RECIPIENT)})

    assert PRIVATE not in shown(caught.value)


def test_a_key_store_comes_from_its_file_or_from_the_variable_itself(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    path.write_text(store_text(RECIPIENT, STRANGER) + "\n")

    for environment in (
        {"OPENING_KEYS_FILE": str(path)},
        {"OPENING_KEYS": store_text(RECIPIENT, STRANGER)},
    ):
        keys = load(Opening, environment).keys

        assert repr(keys) == "<KeyStore: 2 keys>"
        assert keys.opened(action(boxed(PERSON))).contact.email == CANARY


@pytest.mark.parametrize(("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True)])
def test_a_key_store_that_others_may_read_is_warned_of(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int, warned: bool
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(store_text(RECIPIENT))
    path.chmod(mode)

    load(Opening, {"OPENING_KEYS_FILE": str(path)})

    sentence = f"everybody on this machine may read the key store {path}: chmod o-rwx it"
    assert [record.getMessage() for record in caplog.records] == [sentence] * warned


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nacl.public", None)  # as if it were not installed

    with pytest.raises(ConfigError, match=r"needs PyNaCl to be used: install proca-flow\[crypto\]$"):
        KeyStore.parse(store_text(RECIPIENT))


def test_nothing_shows_a_key(store: KeyStore, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    opening = Opening(keys=store)
    store.opened(action(boxed(PERSON)))
    logging.getLogger("flow").warning("%s %r", store, opening)

    said = [repr(store), str(store), f"{store}", repr(opening), caplog.text]

    assert copy.deepcopy(store) is store
    assert copy.copy(store) is store
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(store)
    with pytest.raises(TypeError):
        msgspec.json.encode(store)
    for secret in (PRIVATE, PRIVATE[:12], repr(bytes(RECIPIENT)), bytes(RECIPIENT).hex(), CANARY):
        assert secret not in " ".join(said)


def test_no_traceback_shows_a_key_or_a_person(store: KeyStore) -> None:
    for body in (
        action(boxed(PERSON) | {"payload": text(bytes(64))}),
        action(boxed(PERSON) | {"signKey": {"public": text(bytes(32))}}),
        action(boxed(PERSON, recipient=STRANGER.public_key)),
    ):
        said = shown(refused(store, body))

        assert "opened" in said
        for secret in (PRIVATE, repr(bytes(RECIPIENT)), bytes(RECIPIENT).hex(), CANARY):
            assert secret not in said
