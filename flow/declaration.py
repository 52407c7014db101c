"""What a pipeline class may declare: its options and callbacks, and what is wrong with them."""

import difflib
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType, new_class
from typing import Any, TypeVar, cast

from flow.batching import Batching
from flow.claim import Claim
from flow.errors import ConfigError
from flow.options import seconds, whole
from flow.ratelimit import RateLimit
from flow.retries import Retries

C = TypeVar("C", bound=type)

Check = Callable[[str, object], None]
"""Takes the full name of an option and its value; raises `ConfigError` with one sentence."""

NEAR = 0.85  # how alike a name must be to count as a misspelt one: `batch` is not `batcher`
SPOOL = "spool:"


def _text(name: str, value: object) -> None:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9_.-]{1,100}", value):
        raise ConfigError(
            f"{name} must be of 1 to 100 letters, digits, dots, dashes or underscores, got {shown(value)}"
        )


def _queue(name: str, value: object) -> None:
    if not isinstance(value, str) or not value or not value.isprintable():
        raise ConfigError(f"{name} must be the name of a queue, got {shown(value)}")
    if len(value.encode()) > 255:
        raise ConfigError(f"{name} must have at most 255 bytes, got {len(value.encode())}")


def _batching(name: str, value: object) -> None:
    if value is None or isinstance(value, Batching):
        return
    if not isinstance(value, Mapping):
        raise ConfigError(f"{name} must be a Batching or several by name, got {shown(value)}")
    if not value:
        raise ConfigError(f"{name} must name at least one Batching, got an empty mapping")
    for key, one in value.items():
        if not isinstance(key, str) or not key.isidentifier():
            raise ConfigError(f"{name} must have identifiers as names, got {shown(key)}")
        if not isinstance(one, Batching):
            raise ConfigError(f"{name}[{key!r}] must be a Batching, got {shown(one)}")


def _flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigError(f"{name} must be True or False, got {shown(value)}")


def _priority(name: str, value: object) -> None:
    if value is not None and (not isinstance(value, int) or isinstance(value, bool) or abs(value) >= 2**31):
        raise ConfigError(f"{name} must be a whole number or None, got {shown(value)}")


def _prefetch(name: str, value: object) -> None:
    if value is not None:
        whole(name, value)
        if isinstance(value, int) and value > 65535:
            raise ConfigError(f"{name} must be at most 65535, got {value}")


def _kind(kind: type[Any], *, none: bool = False) -> Check:
    def check(name: str, value: object) -> None:
        if not isinstance(value, kind) and not (none and value is None):
            raise ConfigError(
                f"{name} must be a {kind.__name__}{' or None' if none else ''}, got {shown(value)}"
            )

    return check


def _one_of(*values: str | None) -> Check:
    def check(name: str, value: object) -> None:
        if not any(value == one and type(value) is type(one) for one in values):
            raise ConfigError(f"{name} must be {' or '.join(map(repr, values))}, got {shown(value)}")

    return check


def _park(name: str, value: object) -> None:
    spool = isinstance(value, str) and value.startswith(SPOOL) and len(value) > len(SPOOL)
    if value not in ("queue", "loop") and not spool:
        raise ConfigError(f"{name} must be 'queue' or 'loop' or 'spool:FOLDER', got {shown(value)}")


OPTIONS: Mapping[str, Check] = {
    "queue": _queue,
    "name": _text,
    "concurrency": whole,
    "blocking": _flag,
    "prepare_size": whole,
    "batching": _batching,
    "retries": _kind(Retries),
    "rate_limit": _kind(RateLimit, none=True),
    "claim": _kind(Claim, none=True),
    "prefetch": _prefetch,
    "exclusive": _flag,
    "consumer_priority": _priority,
    "handler_timeout": seconds,
    "batch_timeout": seconds,
    "retry_delay": seconds,
    "max_body": whole,
    "park": _park,
    "dead_letter": _one_of("assume", "refuse", None),
}
"""Every option and its check."""


@dataclass(frozen=True)
class Callback:
    """How a callback is called."""

    takes: tuple[str, ...] = ()
    """Its parameters after self."""
    asynchronous: bool | None = None
    """Whether it is an `async def`; None: either."""


CALLBACKS: Mapping[str, Callback] = {
    "queues": Callback(),
    "lifespan": Callback(),
    "prepare_messages": Callback(("messages",), asynchronous=True),
    "partition_key": Callback(("message",), asynchronous=False),
    "handle_message": Callback(("message",)),
    "batcher": Callback(("message",), asynchronous=False),
    "batch_key": Callback(("message",), asynchronous=False),
    "handle_batch": Callback(("batch",)),
    "handle_failed": Callback(("message", "outcome", "reason"), asynchronous=True),
}
"""Every callback."""

KNOWN = sorted({*OPTIONS, *CALLBACKS, "settings"})


def check_class(cls: type[Any], taken: Iterable[str]) -> None:
    """Check the names in the body of *cls*, the values of its options and the kinds of its callbacks.

    *taken* are the names that `Pipeline` itself uses.

    Raises:
        ConfigError: one of them is wrong.
    """
    for name in {**inspect.get_annotations(cls), **vars(cls)}:
        if name in taken:
            raise ConfigError(f"{cls.__name__}.{name} needs another name: flow uses {name} itself")
        _check_name(cls, name)
    for name, check in OPTIONS.items():
        if hasattr(cls, name):
            check(f"{cls.__name__}.{name}", inspect.getattr_static(cls, name))
    for name, callback in CALLBACKS.items():
        _check_callback(f"{cls.__name__}.{name}", inspect.getattr_static(cls, name), callback)


def check_together(cls: type[Any], defined: Collection[str]) -> None:
    """Check that options and callbacks do not contradict each other; *defined* are its own callbacks.

    Raises:
        ConfigError: they do.
    """
    name, batching = cls.__name__, cls.batching
    if hasattr(cls, "queue") and "queues" in defined:
        raise ConfigError(f"{name} must have either a queue or queues, not both")
    for callback in ("handle_message", "handle_batch") if cls.blocking else ():
        if inspect.iscoroutinefunction(getattr(cls, callback)):
            raise ConfigError(f"{name}.{callback} must be a plain def, as {name} is blocking")
    plain = "handle_batch" in defined and not inspect.iscoroutinefunction(inspect.unwrap(cls.handle_batch))
    if plain and cls.claim is not None:
        raise ConfigError(f"{name}.handle_batch must be an async def, as {name} has a claim")
    if "handle_batch" not in defined:
        if batching is not None:
            raise ConfigError(f"{name}.batching needs a handle_batch to deliver the batches")
        for callback in ("batch_key", "batcher"):
            if callback in defined:
                raise ConfigError(f"{name}.{callback} needs a handle_batch to deliver the batches")
    several = isinstance(batching, Mapping)
    if several and len(batching) > 1 and "batcher" not in defined:
        raise ConfigError(f"{name}.batching needs a batcher that chooses between {' and '.join(batching)}")
    if not several and "batcher" in defined:
        raise ConfigError(
            f'{name}.batcher needs names to choose from, like batching = {{"bulk": Batching()}}'
        )


def shown(value: object) -> str:
    """Return *value* for a sentence: plain values as they are, anything else by its type."""
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _check_name(cls: type[Any], name: str) -> None:
    if name in KNOWN or name.startswith("_"):
        return
    # An object that is an option by its type is hardly meant as something else.
    misplaced = isinstance(vars(cls).get(name), Retries | RateLimit | Claim)
    near = difflib.get_close_matches(name, KNOWN, n=1, cutoff=0.6 if misplaced else NEAR)
    if near:
        raise ConfigError(
            f"{cls.__name__}.{name} is no option and no callback of a pipeline; did you mean {near[0]}?"
        )


def _check_callback(name: str, found: object, callback: Callback) -> None:
    """Check that *found*, as it stands in the class, can be called as *callback* says."""
    function: object = found.__func__ if isinstance(found, staticmethod | classmethod) else found
    if not isinstance(function, FunctionType):
        if not callable(function) or isinstance(function, type):
            raise ConfigError(f"{name} must be a function, got {shown(found)}")
        return  # an object that can be called, made by a decorator or the user: its own affair
    implicit = 0 if isinstance(found, staticmethod) else 1
    signature = inspect.signature(function)
    try:
        signature.bind(*[None] * (implicit + len(callback.takes)))
    except TypeError:
        wanted = ", ".join([*["self"] * implicit, *callback.takes])
        takes = [one.replace(annotation=inspect.Parameter.empty) for one in signature.parameters.values()]
        raise ConfigError(f"{name} must take ({wanted}), but takes {inspect.Signature(takes)}") from None
    if callback is CALLBACKS["lifespan"]:
        _check_lifespan(name, function)
    elif callback is CALLBACKS["queues"]:
        if not (inspect.isasyncgenfunction(function) or function.__module__ == "flow.pipeline"):
            raise ConfigError(f"{name} must be an async def that yields lists of queues")
    else:
        _check_kind(name, function, callback.asynchronous)


def _check_kind(name: str, found: FunctionType, asynchronous: bool | None) -> None:
    if inspect.isgeneratorfunction(found) or inspect.isasyncgenfunction(found):
        raise ConfigError(f"{name} must return its result, but it yields")
    if asynchronous is False and inspect.iscoroutinefunction(found):
        raise ConfigError(f"{name} must be a plain def, got an async def")
    if asynchronous is True and not inspect.iscoroutinefunction(inspect.unwrap(found)):
        raise ConfigError(f"{name} must be an async def, got a plain def")


def _check_lifespan(name: str, found: FunctionType) -> None:
    plain = inspect.unwrap(found)
    if inspect.isasyncgenfunction(found):
        raise ConfigError(f"{name} must be decorated with @asynccontextmanager")
    if inspect.iscoroutinefunction(plain) or inspect.isgeneratorfunction(plain):
        raise ConfigError(f"{name} must be an async def that yields once, under @asynccontextmanager")


def derived(cls: C, **body: object) -> C:
    """Return a class that inherits from *cls* and goes by its name, with *body*."""
    same = {name: getattr(cls, name) for name in ("__module__", "__qualname__", "__doc__", "name")}
    return cast("C", new_class(cls.__name__, (cls,), exec_body=lambda space: space.update(same | body)))
