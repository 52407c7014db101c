"""How options are declared and checked: every wrong name or value is answered with one sentence."""

import difflib
import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar, dataclass_transform

from flow.errors import ConfigError

T = TypeVar("T")


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean x?" for the *known* name nearest to *name*, or else the list of known names."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else f"; known are {', '.join(names)}"


def variable(environment: Mapping[str, str], name: str) -> str:
    """Return an environment variable, or the text of the file that NAME_FILE names; empty: not set.

    Raises:
        ConfigError: both are set, or the file cannot be used.
    """
    value, path = environment.get(name, ""), environment.get(f"{name}_FILE", "")
    if value and path:
        raise ConfigError(f"{name} and {name}_FILE are both set: set one of them")
    return content(f"{name}_FILE", path) if path else value


def content(source: str, path: str) -> str:
    """Return the text of the file that the variable *source* names, without the newline at its end.

    Raises:
        ConfigError: it cannot be used. The path is not shown: it may be the secret itself, set by mistake.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{source} names a file that cannot be read ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"{source} names a file that is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ConfigError(f"{source} names an empty file")
    return text


@dataclass_transform(kw_only_default=True, frozen_default=True)
def option(cls: type[T]) -> type[T]:
    """Make *cls* a frozen keyword-only dataclass that refuses unknown names with a `ConfigError`."""
    made = dataclass(frozen=True, slots=True, kw_only=True)(cls)
    known = [field.name for field in fields(made)]  # type: ignore[arg-type]  # made is a dataclass
    plain: Callable[..., None] = made.__init__

    @functools.wraps(plain)
    def checked(self: Any, *args: Any, **values: Any) -> None:
        if args:
            raise ConfigError(f"{cls.__name__} takes its options by name: {', '.join(known)}")
        for name in values:
            if name not in known:
                raise ConfigError(f"{cls.__name__} has no option {name}{suggestion(name, known)}")
        try:
            plain(self, **values)
        except TypeError as error:
            raise ConfigError(f"{cls.__name__}: {error}") from error

    made.__init__ = checked  # type: ignore[method-assign]  # the check replaces the generated one
    return made


def whole(name: str, value: object, least: int = 1) -> None:
    """Check that *value* is a whole number of at least *least*.

    Raises:
        ConfigError: it is not.
    """
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{name} must be a whole number of at least {least}, got {value!r}")


def seconds(name: str, value: object, *, zero: bool = False) -> None:
    """Check that *value* is a number of seconds above 0, or from 0 on when *zero* may be.

    Raises:
        ConfigError: it is not.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not (value >= 0 if zero else value > 0) or value == float("inf"):  # type: ignore[operator]
        least = "of 0 or more" if zero else "above 0"
        raise ConfigError(f"{name} must be a number of seconds {least}, got {value!r}")
