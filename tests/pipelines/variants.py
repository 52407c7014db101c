"""Messages as servers send them, and every way in which they are known to differ."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from tests.bodies import SAMPLES, sample

EVERY = sorted(path.stem for path in SAMPLES.glob("*.json"))
ACTIONS = ["action", "action_encrypted", "action_old", "action_old_encrypted"]
EVENTS = ["campaign_updated", "confirm_created", "email_status"]
IDS = ["ids", "ids_supporter"]

NAMES = {
    "arabic": "عبد الرّحمن",
    "chinese": "王小明 𠮷野",
    "emoji": "Zoë 👩🏽‍🚒 🌊",
    "combining": "Z\u0323\u0307oe\u0301 Łukas\u0301z",
    "right to left marks": "\u202eadA\u202c \u200fאדה\u200f",
    "controls": "Ada\u0000\u0007\r\nBcc: eve@example.org",
    "long": "Ada 王 " * 8_000,  # what SQS takes at most is 256 KiB
}
WHOLE = {
    "schema",
    "stage",
    "eventType",
    "name",
    "locale",
    "actionType",
    "createdAt",
    "contactRef",
    "ref",
    "email",
}
WHOLE |= {
    "thankYouTemplate",
    "withConsent",
    "emailStatus",
    "payload",
    "nonce",
    "public",
    "publicKey",
    "signKey",
}
"""What a message cannot be without, or what decides what becomes of it."""


@dataclass(frozen=True)
class Case:
    """One message."""

    kind: str
    """Its sample."""
    variant: str
    number: int
    """The id of its action, which no other has."""
    body: dict[str, Any]
    raw: bytes

    def __str__(self) -> str:
        return f"{self.kind}, {self.variant}"


def everything(part: Any) -> Iterable[dict[str, Any]]:
    """Yield every object in *part* but the answers of forms, which have no fields of their own."""
    if isinstance(part, dict):
        yield part
        for name, value in part.items():
            if name not in ("customFields", "fields"):
                yield from everything(value)
    elif isinstance(part, list):
        for one in part:
            yield from everything(one)


def nulls(body: dict[str, Any]) -> None:
    for part in everything(body):
        for name, value in part.items():
            if name not in WHOLE and not isinstance(value, dict | int):
                part[name] = None
    for action in actions(body):
        action |= {"testing": None, "donation": {"amount": None, "payload": {"deep": {"null": None}}}}
        action["customFields"] = None
    for contact in contacts(body):
        contact |= {"lastName": None, "address": dict.fromkeys(("street", "region", "country"))}
    body["tracking"] = dict.fromkeys(("source", "medium", "campaign", "content", "location"))


def unknown(body: dict[str, Any]) -> None:
    for part in list(everything(body)):
        part["fieldOfTomorrow"] = {"deep": [1, None, {"ź": []}], "schema": "proca:action:99"}


def texts(body: dict[str, Any]) -> None:
    for part in everything(body):
        for name, value in part.items():
            if name.lower().endswith("id") and isinstance(value, int):
                part[name] = str(value)


def bare(body: dict[str, Any]) -> None:
    """Leave out the organisation and all that is null anyway; `proca:ids:1` is nothing without it."""
    if "contact" in body or "eventType" in body:
        for name in ("org", "orgId", "tracking"):
            body.pop(name, None)
    for name in [name for name, value in body.items() if value is None]:
        del body[name]


def lists(body: dict[str, Any]) -> None:
    answers = {
        "empty": [],
        "years": [1, 2.5],
        "mixed": ["a", 1],
        "ratio": -0.0,
        "large": 2**53,
        "": "",
        "no": False,
    }
    for action in actions(body):
        action["fields" if "fields" in action else "customFields"] = {**answers, "ответ": ["да", "нет 🌊"]}


def called(name: str) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        for contact in contacts(body):
            contact["firstName"] = name
            if "lastName" in contact:
                contact["lastName"] = name
        for action in actions(body):
            action["fields" if "fields" in action else "customFields"] = {name[:100]: name}
        if "campaign" in body:
            body["campaign"]["title"] = name[:200]

    return change


VARIANTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "as it is": lambda body: None,
    "nested nulls": nulls,
    "unknown fields": unknown,
    "ids as texts": texts,
    "without organisation": bare,
    "lists": lists,
    **{name: called(text) for name, text in NAMES.items()},
}


def actions(body: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return [body["action"]] if "action" in body else []


def contacts(body: dict[str, Any]) -> Iterable[dict[str, Any]]:
    return [part["contact"] for part in (body, body.get("supporter") or {}) if part.get("contact")]


def cases(*, stages: Iterable[str] = ()) -> list[Case]:
    """Return every variant of every sample; its *stages* take turns when they are given."""
    found = []
    turns = list(stages)
    for number, (kind, variant) in enumerate(((k, v) for k in EVERY for v in VARIANTS), 1000):
        body = json.loads(sample(kind))
        for contact in contacts(body):
            old = kind == "action_old"
            clear = json.loads(contact["payload"]) if old else {}
            if "email" in contact:
                contact["email"] = address(number)
            if old:
                contact["payload"] = clear | {"email": address(number)}
        if "actionId" in body:
            body["actionId"] = number
        if turns and "stage" in body:
            body["stage"] = turns[number % len(turns)]
        VARIANTS[variant](body)
        for contact in contacts(body):
            if isinstance(contact.get("payload"), dict):
                inner = contact["payload"] | {"firstName": contact["firstName"]}
                contact["payload"] = json.dumps(inner)
        found.append(Case(kind, variant, number, body, json.dumps(body, ensure_ascii=False).encode()))
    return found


def address(number: int) -> str:
    return f"supporter+{number}@example.org"
