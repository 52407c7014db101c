"""One line of a check."""

from collections.abc import Callable
from typing import Literal

import msgspec

State = Literal["ok", "wrong", "caution", "not checked"]
"""Wrong: it cannot work, or loses messages. Caution: it works, but hardly as it is meant."""


class Finding(msgspec.Struct, frozen=True):
    """What was found, in one sentence that also says what to do."""

    state: State
    text: str


Tell = Callable[[Finding], None]
"""Takes each finding as soon as it is known."""


def ok(text: str) -> Finding:
    """Say that something is as it should be."""
    return Finding("ok", text)


def wrong(text: str) -> Finding:
    """Say that something must be changed."""
    return Finding("wrong", text)


def caution(text: str) -> Finding:
    """Say that something may be meant otherwise."""
    return Finding("caution", text)


def unchecked(text: str) -> Finding:
    """Say that something is not known."""
    return Finding("not checked", text)
