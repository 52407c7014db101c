"""Shows what is in a message without showing whom it is about."""

import re
from typing import Any

import msgspec

LARGEST = 1 << 20  # bytes; untyped decoding takes many times as much memory
IDS = {"actionId", "actionPageId", "campaignId", "orgId", "supporterId"}
WORDS = {
    "schema": re.compile(r"proca:[a-z]{1,20}:\d{1,3}"),
    "stage": re.compile(r"deliver|supporter_confirm|action_confirm"),
}
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,63}")


def printable(text: str) -> str:
    """Return *text* without what a terminal would act upon."""
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text)


def masked(body: bytes) -> str:
    """Return the structure of a JSON body, indented, with its values replaced by their kinds.

    Record ids, `schema` and `stage` are shown as they are.
    """
    if len(body) > LARGEST:
        return f"<{len(body)} bytes, too large to be shown masked>"
    try:
        structure = _masked(msgspec.json.decode(body), top=True)
        return msgspec.json.format(msgspec.json.encode(structure), indent=2).decode()
    except (ValueError, RecursionError):  # UnicodeDecodeError and msgspec's errors are ValueErrors
        return f"<{len(body)} bytes that are not JSON>"


def revealed(body: bytes) -> str:
    """Return a body as it is, indented if it is JSON; what a terminal would act upon is replaced."""
    try:
        text = msgspec.json.format(body, indent=2).decode()
    except (ValueError, RecursionError):
        text = body.decode("utf-8", "backslashreplace")
    return "\n".join(printable(line) for line in text.split("\n"))


def _masked(value: Any, name: str = "", *, top: bool = False) -> Any:
    if isinstance(value, dict):
        return {_key(key): _shown(key, one) if top else _masked(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_masked(one) for one in value]
    if isinstance(value, str):
        return f"<text of {len(value)}>"
    if isinstance(value, bool):
        return "<true or false>"
    return value if value is None else "<number>"


def _shown(name: str, value: Any) -> Any:
    """Show ids and words of the wire contract; anything else may be personal."""
    if name in IDS and isinstance(value, int):
        return value
    if name in WORDS and isinstance(value, str) and WORDS[name].fullmatch(value):
        return value
    return _masked(value)


def _key(name: str) -> str:
    return name if NAME.fullmatch(name) else f"<name of {len(name)}>"
