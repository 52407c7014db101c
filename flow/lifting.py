"""Turning the deprecated `proca:action:1` into `proca:action:2`."""

from collections.abc import Callable
from typing import Any

from flow.errors import DecodeError

SCHEMA = "proca:action:1"


def lift(old: dict[str, Any], parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """Return the `proca:action:2` object that says the same as *old*, a `proca:action:1` object.

    Nothing is checked here that the decoding into an `ActionMessage` checks afterwards: parts of a wrong kind
    are handed on as they are. *parse* reads the JSON text inside `contact.payload`.

    Raises:
        DecodeError: `contact.payload` cannot be read, or is encrypted and its keys are missing.
    """
    lifted = {**old, "schema": "proca:action:2"}
    if isinstance(old.get("action"), dict):
        lifted["action"] = lift_action(old["action"])
    if isinstance(old.get("contact"), dict):
        lifted["contact"], lifted["personalInfo"] = lift_contact(old["contact"], parse)
    if isinstance(old.get("privacy"), dict):
        lifted["privacy"] = lift_privacy(old["privacy"])
    return lifted


def lift_action(action: dict[str, Any]) -> dict[str, Any]:
    """Rename `fields` to `customFields`."""
    return {"customFields": action["fields"], **action} if "fields" in action else action


def lift_privacy(privacy: dict[str, Any]) -> dict[str, Any]:
    """Say `communication` as `optIn`.

    The first version has `privacy` only where a consent was given, and null elsewhere: that is `withConsent`.
    """
    return {"withConsent": True, "optIn": privacy.get("communication"), **privacy}


def lift_contact(
    contact: dict[str, Any], parse: Callable[[bytes], Any]
) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """Return the contact with its payload merged over it, and the payload as `personalInfo` if encrypted."""
    lifted = {name: value for name, value in contact.items() if name != "payload"}
    personal_info = None
    if contact.get("nonce"):
        personal_info = encrypted(contact)
    else:
        lifted.update(clear(contact.get("payload"), parse))
    return {**lifted, "contactRef": contact.get("ref")}, personal_info


def encrypted(contact: dict[str, Any]) -> dict[str, Any]:
    """Return the `personalInfo` of an encrypted contact; the ids of its keys are not known."""
    for name in ("payload", "publicKey", "signKey"):
        if not contact.get(name):
            raise DecodeError(f"contact.{name} is missing, and the contact is encrypted")
    return {
        "payload": contact["payload"],
        "nonce": contact["nonce"],
        "encryptKey": {"public": contact["publicKey"]},
        "signKey": {"public": contact["signKey"]},
    }


def clear(payload: object, parse: Callable[[bytes], Any]) -> dict[str, Any]:
    """Return the personal data of a contact that is not encrypted; none when *payload* is empty."""
    if not payload:
        return {}
    if isinstance(payload, str):
        try:
            payload = parse(payload.encode())
        except DecodeError as error:
            raise DecodeError(f"contact.payload: {error}") from error
    if not isinstance(payload, dict):
        raise DecodeError("contact.payload is not an object")
    return payload
