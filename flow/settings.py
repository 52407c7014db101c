"""Settings of a pipeline: typed, filled from the environment, and their secrets are shown nowhere."""

import dataclasses
import hmac
import logging
import math
import re
import types
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import (
    Any,
    ClassVar,
    Literal,
    NoReturn,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

from flow.crypto import KeyStore
from flow.errors import ConfigError
from flow.misspelt import misspelt, unread
from flow.options import content

log = logging.getLogger(__name__)


class Secret:
    """A text that is never shown: not by print, in logs, tracebacks, JSON or pickles.

    `reveal` is the only way to the text; call it where it is used, and keep what it returns nowhere.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        """Hide *text*."""
        if not isinstance(text, str):
            raise TypeError(f"Secret takes a str, got {type(text).__name__}")
        self._text = text

    def reveal(self) -> str:
        """Return the text."""
        return self._text

    def __repr__(self) -> str:
        return "Secret('***')"

    def __str__(self) -> str:
        return "***"

    def __format__(self, spec: str) -> str:
        return format("***", spec)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Secret):
            return NotImplemented
        return hmac.compare_digest(_bytes(self._text), _bytes(other._text))

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __copy__(self) -> "Secret":
        return self

    def __deepcopy__(self, memo: object) -> "Secret":
        return self

    def __reduce_ex__(self, protocol: object) -> NoReturn:
        raise TypeError("a Secret is not pickled: hand on the name of its variable instead")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Settings:
    """What a pipeline needs to know about where it runs; subclass it and annotate the fields.

    `prefix = "CRM"` and a field `url` are filled from the variable `CRM_URL`, or from the file that
    `CRM_URL_FILE` names, without the newline at its end. The file wins when both are set; an empty variable
    counts as not set. Fields are `str`, `int`, `float`, `bool` (true/false, yes/no, on/off, 1/0), `Secret`,
    `KeyStore`, a `Literal`, or one of these `| None`; a field without a default must be set unless it may be
    None.
    Settings are frozen and made with keywords; their repr shows names only.
    """

    prefix: ClassVar[str]
    """What the names of the variables start with, in capitals, without the underscore."""

    def __init_subclass__(cls, **options: Any) -> None:
        """Make *cls* a frozen dataclass and check its declaration.

        Raises:
            ConfigError: a field has a type that cannot be read from a text, or the prefix is no name.
        """
        super().__init_subclass__(**options)
        dataclasses.dataclass(frozen=True, kw_only=True, repr=False)(cls)
        prefix = getattr(cls, "prefix", "X")
        if not isinstance(prefix, str) or not re.fullmatch("[A-Z][A-Z0-9_]*[A-Z0-9]|[A-Z]", prefix):
            raise ConfigError(f'{cls.__name__}.prefix must be a name in capitals like "CRM", got {prefix!r}')
        names = {one.name for one in _fields(cls)}
        for name in sorted(names):
            if name.endswith("_file") and name.removesuffix("_file") in names:
                taken = f"{prefix}_{name.upper()} is the file of {name.removesuffix('_file')}"
                raise ConfigError(f"{cls.__name__}.{name} needs another name: {taken}")

    def __repr__(self) -> str:
        names = ", ".join(one.name for one in dataclasses.fields(self))  # type: ignore[arg-type]  # see above
        return f"<{type(self).__name__}: {names}>"


S = TypeVar("S", bound=Settings)


def load(cls: type[S], environment: Mapping[str, str]) -> S:
    """Return the settings of class *cls* from *environment*.

    Raises:
        ConfigError: variables are missing or wrong; one sentence names them all, and no secret.
    """
    values, problems = _read(cls, environment)
    if not problems:
        try:
            return cls(**values)
        except ValueError as error:  # from a __post_init__
            problems = f"{cls.__name__}: {error}"
    # Some reporters of tracebacks show the locals of every frame.
    del environment, values
    raise ConfigError(problems)


@dataclasses.dataclass(frozen=True, slots=True)
class _Field:
    """One field, and how it is read."""

    name: str
    variable: str
    kind: Any
    choices: Mapping[str, object]
    needed: bool
    optional: bool
    """None when it is not set, for want of a default."""


def _fields(cls: type[Settings]) -> Iterator[_Field]:
    """Yield the fields of *cls*.

    Raises:
        ConfigError: one cannot be read from a text.
    """
    try:
        hints = get_type_hints(cls)
    except (NameError, TypeError, SyntaxError) as error:
        raise ConfigError(f"the annotations of {cls.__name__} cannot be read: {error}") from error
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]  # made one by __init_subclass__
        where = f"{cls.__name__}.{field.name}"
        if field.name == "prefix":
            raise ConfigError(f"{where} must be annotated as ClassVar, or not at all")
        kind, none = hints[field.name], False
        if get_origin(kind) in (Union, types.UnionType):
            others = [one for one in get_args(kind) if one is not type(None)]
            none = len(others) < len(get_args(kind))
            kind = others[0] if len(others) == 1 else kind
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        if not (kind in READERS or choices) or any(type(one) not in (str, int) for one in choices):
            raise ConfigError(
                f"{where} must be str, int, float, bool, Secret, KeyStore or a Literal, perhaps None, "
                f"got {kind}"
            )
        bare = field.default is field.default_factory is dataclasses.MISSING
        variable = f"{getattr(cls, 'prefix', '')}_{field.name.upper()}"
        named = {str(one): one for one in choices}
        yield _Field(field.name, variable, kind, named, bare and not none, bare and none)


def _read(cls: type[Settings], environment: Mapping[str, str]) -> tuple[dict[str, Any], str]:
    """Return the values found in *environment*, and the sentence about what is missing or wrong, or ""."""
    if not hasattr(cls, "prefix"):
        return {}, f'{cls.__name__} needs a prefix, like prefix = "CRM"'
    values: dict[str, Any] = {}
    missing: list[str] = []
    wrong: list[str] = []
    for field in _fields(cls):
        source = next((s for s in (f"{field.variable}_FILE", field.variable) if environment.get(s)), None)
        if source is not None:
            try:
                values[field.name] = _value(field, source, environment[source])
            except ConfigError as error:
                wrong.append(str(error))
        elif field.needed:
            also = f" (or {field.variable}_FILE)" if field.kind in (Secret, KeyStore) else ""
            missing.append(f"{field.variable}{also}")
        elif field.optional:
            values[field.name] = None
    unknown = strangers(cls, environment) if missing or wrong else ()
    if missing:
        listed = " and ".join(filter(None, [", ".join(missing[:-1]), missing[-1]]))
        return values, "; ".join([f"{cls.__name__} needs {listed} to be set", *wrong, *unknown])
    if wrong:
        return values, f"{cls.__name__}: {'; '.join([*wrong, *unknown])}"
    return values, ""


def variables(cls: type[Settings]) -> set[str]:
    """Return the names of the variables that the fields of *cls* are read from."""
    names = [f"{cls.prefix}_{one.name.upper()}" for one in dataclasses.fields(cls)]  # type: ignore[arg-type]  # see above
    return {form for name in names for form in (name, f"{name}_FILE")}


def strangers(cls: type[Settings], environment: Mapping[str, str]) -> list[str]:
    """Return a sentence for each variable with the prefix of *cls* that is set and that no field reads.

    A prefix that *cls* inherits may be shared with settings that are not imported here: then only what looks
    like a misspelt variable is told.
    """
    known, prefix = variables(cls), f"{cls.prefix}_"
    if "prefix" not in vars(cls):
        return list(misspelt(prefix, known, environment))
    others = {name for one in _all(Settings) if hasattr(one, "prefix") for name in variables(one)} - known
    return list(unread(prefix, known, {name: environment[name] for name in environment.keys() - others}))


def _all(cls: type[Settings]) -> Iterator[type[Settings]]:
    for one in cls.__subclasses__():
        yield from (one, *_all(one))


def _value(field: _Field, source: str, text: str) -> object:
    """Return the value of *field* from *text*, or from the file it names if *source* says so.

    Raises:
        ConfigError: it is wrong. The text of a secret or of a file is not shown, nor is the path of a file:
            it may be the secret itself, set by mistake.
    """
    file = source != field.variable
    path = text
    if file:
        text = content(source, path)
    if field.kind is KeyStore:
        return _key_store(source, text, path if file else "")
    if field.choices:
        if text in field.choices:
            return field.choices[text]
        rule = f"one of {', '.join(field.choices)}"
    else:
        read, rule = READERS[field.kind]
        try:
            return read(text)
        except ValueError:
            pass
    shown = "" if file else f", got {text!r}"
    raise ConfigError(f"{source} must {'hold' if file else 'be'} {rule}{shown}")


def _key_store(source: str, text: str, path: str) -> KeyStore:
    if path and Path(path).stat().st_mode & 0o004:
        log.warning("everybody on this machine may read the key store %s: chmod o-rwx it", path)
    return KeyStore.parse(text, f"the key store {path} of {source}" if path else f"the key store {source}")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError("not finite")
    return number


def _truth(text: str) -> bool:
    if text.lower() in ("true", "yes", "on", "1"):
        return True
    if text.lower() in ("false", "no", "off", "0"):
        return False
    raise ValueError("neither true nor false")


READERS: Mapping[Any, tuple[Callable[[str], Any], str]] = {
    str: (str, "a text"),
    int: (int, "a whole number"),
    float: (_finite, "a number"),
    bool: (_truth, "true or false"),
    Secret: (Secret, "a text"),
    KeyStore: (KeyStore.parse, "a key store"),
}
"""How each type is read from a text, and what the text must be."""
