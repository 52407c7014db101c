"""Saying why a body could not be read: in our words, with the place, and never with a value.

The texts of msgspec quote values (an unknown tag, an enumeration), so they are taken apart and not passed on.
"""

import re

import msgspec

PLACE = re.compile(r" - at `\$([\w.\[\]-]{0,200})`$")
MISSING = re.compile(r"Object missing required field `([\w-]{1,64})`")
EXPECTED = re.compile(r"Expected `([a-z| ]+)`(, got|$)")
NAMED = re.compile(r"[a-z][a-z0-9_.:-]{0,63}")
KINDS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a number",
    "str": "text",
    "bool": "true or false",
    "datetime": "a time",
    "date": "a date",
    "uuid": "a UUID",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
# The beginnings of msgspec's texts that hold no value, and what we say.
BEGINNINGS = {
    "Invalid RFC3339": "is not a time",
    "Expected `datetime` with": "is not a time with an offset",
    "Expected `datetime` without": "is not a time without an offset",
    "Invalid decimal": "is not a number",
    "Invalid UUID": "is not a UUID",
    "Invalid base64": "is not base64",
    "Integer value out of range": "is out of range",
    "Number out of range": "is out of range",
    "Invalid enum value": "is not one of the values known",
    "Object contains unknown field": "has a field that is not known",
    "Expected `": "is out of range",  # `int` >= 0, `str` of length <= 3; plain kinds are matched before
}


def named(text: str) -> str:
    """Return *text* if it can be nothing but a technical name of at most 64 characters, else words for it."""
    return text if NAMED.fullmatch(text) else "with an unprintable name"


def unfit(error: Exception) -> str:
    """Say where and how a JSON value does not fit its type, from the *error* of msgspec."""
    text = str(error)
    place = PLACE.search(text)
    path = place[1].removeprefix(".") if place else ""
    text = text[: place.start()] if place else text
    if missing := MISSING.fullmatch(text):
        return f"{path}.{missing[1]} is missing" if path else f"{missing[1]} is missing"
    return f"{path or 'the body'} {complaint(error, text)}"


def complaint(error: Exception, text: str) -> str:
    """Say what is wrong with the value that *text*, without its place, complains about."""
    if isinstance(error, UnicodeDecodeError):
        return "holds invalid UTF-8"
    if not isinstance(error, msgspec.MsgspecError):
        return f"cannot be read ({type(error).__name__})"
    expected = EXPECTED.match(text)
    kinds = expected[1].split(" | ") if expected else []
    if kinds and KINDS.keys() >= set(kinds):
        needless = {"null", "int"} if "float" in kinds else {"null"}
        return "is not " + " or ".join(
            KINDS[kind] for kind in kinds if kind not in needless or len(kinds) == 1
        )
    for beginning, words in BEGINNINGS.items():
        if text.startswith(beginning):
            return words
    return "is not valid"


def malformed(error: Exception, raw: bytes) -> str:
    """Say why *raw* is no JSON, from the *error* that reading it without a type gave."""
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        return "invalid UTF-8"
    if text.startswith("\ufeff"):
        return "not JSON: it starts with a byte order mark"
    if isinstance(error, RecursionError):
        return "nested too deeply to be read"
    if not isinstance(error, msgspec.MsgspecError):
        return f"cannot be read ({type(error).__name__})"
    if str(error) == "Input data was truncated":
        return "not JSON: it ends too early"
    byte = re.search(r"\(byte (\d+)\)$", str(error))
    return f"not JSON: wrong character at byte {byte[1]}" if byte else "not JSON"
