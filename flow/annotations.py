"""What the annotations of a class say: type arguments and their parts."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin, get_type_hints

from typing_extensions import TypeAliasType, get_original_bases

from flow.errors import ConfigError


def argument(cls: type, generic: type) -> object:
    """Return the first type argument that *cls* gives to its ancestor *generic*, or None.

    Strings are looked up in the module of the class that holds them; what a class in between leaves open is
    filled in by its subclass. A TypeVar is returned when nobody filled it in.

    Raises:
        ConfigError: a string names something that does not exist.
    """
    for base in get_original_bases(cls):
        origin, given = get_origin(base) or base, get_args(base)
        if not isinstance(origin, type) or not issubclass(origin, generic):
            continue
        if origin is generic:
            return resolved(given[0], cls) if given else None
        found: Any = argument(origin, generic)
        filled = {
            name: resolved(one, cls)
            for name, one in zip(origin.__parameters__, given, strict=False)  # type: ignore[attr-defined]  # generic
        }
        if isinstance(found, TypeVar):
            return filled.get(found, found)
        parameters = getattr(found, "__parameters__", ())
        return found[tuple(filled.get(one, one) for one in parameters)] if parameters else found
    return None


def resolved(annotation: object, owner: type) -> object:
    """Return *annotation* with its strings looked up in the module of the class *owner*.

    Raises:
        ConfigError: a string names something that does not exist there.
    """
    holder = type(owner.__name__, (), {"__module__": owner.__module__, "__annotations__": {"it": annotation}})
    try:
        return get_type_hints(holder)["it"]
    except (NameError, AttributeError, TypeError, SyntaxError) as error:
        raise ConfigError(f"an annotation of {owner.__name__} cannot be read: {error}") from error


def members(annotation: object) -> Iterator[object]:
    """Yield the parts of a union, or *annotation* itself; aliases and `Annotated` are looked through."""
    if isinstance(annotation, TypeAliasType):
        yield from members(annotation.__value__)
    elif get_origin(annotation) in (Union, types.UnionType):
        for one in get_args(annotation):
            yield from members(one)
    elif get_origin(annotation) is Annotated:
        yield from members(get_args(annotation)[0])
    else:
        yield annotation
