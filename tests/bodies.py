"""Bodies for the tests of decoding, and two ways to decode them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from flow.codec import Codec
from flow.errors import DecodeError
from flow.message import Message
from flow.schema import ActionMessage, EventMessage, IdsMessage
from tests.messages import MemoryOrigin

SAMPLES = Path(__file__).parent / "samples"

ALL = (ActionMessage, EventMessage, IdsMessage)

NAMES = ["ids_supporter", "action", "action_encrypted", "action_old", "action_old_encrypted"]

NAMES += ["email_status", "campaign_updated", "confirm_created"]

CANARY = "Jane.Canary@example.org"

IDS = '{"actionId":7,"actionPageId":3,"orgId":2%s}'


def sample(name: str) -> bytes:
    """Return the bytes of a message of the campaign server, invented."""
    return (SAMPLES / f"{name}.json").read_bytes()


def decoded(body: Any, types: tuple[Any, ...] = ALL, **limits: int) -> Message[Any]:
    message = MemoryOrigin().message(body.encode() if isinstance(body, str) else body)
    codec(types, **limits).decode(message)
    return message


@cache
def codec(types: tuple[Any, ...], **limits: int) -> Codec:
    """Return a codec, which takes longer to make than to use."""
    return Codec(types, **limits)


def refusal(body: Any, types: tuple[Any, ...] = ALL, **limits: int) -> str:
    with pytest.raises(DecodeError) as refused:
        decoded(body, types, **limits)
    return str(refused.value)


def changed(name: str, path: str, value: Any) -> dict[str, Any]:
    """Return the sample *name* with one value replaced."""
    whole: dict[str, Any] = json.loads(sample(name))
    part = whole
    *parents, last = path.split(".")
    for parent in parents:
        part = part[parent]
    part[last] = value
    return whole


def places(part: Any, path: str = "") -> set[str]:
    """Return the dotted paths of all the values below *part*."""
    if not isinstance(part, dict):
        return set()
    found = {f"{path}{name}" for name in part}
    return found.union(*(places(value, f"{path}{name}.") for name, value in part.items()))
