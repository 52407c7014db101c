"""Accepting what old senders write differently: ids as text, times without an offset, null for "not said"."""

import re
from collections.abc import Callable
from typing import Any, TypeAlias

from msgspec import inspect

Amend: TypeAlias = Callable[[Any], Any]

DIGITS = re.compile("[0-9]{1,18}")
NAIVE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?")


def amender(kind: Any) -> Amend:
    """Return a function that changes a JSON value to what *kind* reads strictly, in place where it can.

    Text of digits becomes a number where *kind* says `schema.Id`, a time without an offset becomes UTC where
    it says `schema.Time`, and null is left out where a field has a default and takes no null.

    Raises:
        TypeError: msgspec cannot read *kind*.
    """
    return plan(inspect.type_info(kind), {}) or unchanged


def plan(shape: inspect.Type, known: dict[type, Amend]) -> Amend | None:
    """Return how values of *shape* are changed, or None for never; *known* holds the Structs begun so far."""
    match shape:
        case inspect.Metadata(extra={"lax": True}):
            return number
        case inspect.Metadata(type=inner):
            return plan(inner, known)
        case inspect.DateTimeType(tz=True):
            return time
        case inspect.UnionType(types=members):
            return one_after_the_other([plan(member, known) for member in members])
        case inspect.ListType(item_type=inner) | inspect.VarTupleType(item_type=inner):
            return within_list(plan(inner, known))
        case inspect.DictType(value_type=inner):
            return within_dict(plan(inner, known))
        case inspect.StructType(cls=cls):
            return known[cls] if cls in known else StructPlan(shape, known)
    return None


class StructPlan:
    """How an object that becomes a Struct is changed."""

    def __init__(self, shape: inspect.StructType, known: dict[type, Amend]) -> None:
        """Work out which fields need a look; a Struct may hold itself."""
        known[shape.cls] = self
        self._tag = shape.tag
        self._tag_field = shape.tag_field
        self._never_null = tuple(
            field.encode_name for field in shape.fields if not field.required and not nullable(field.type)
        )
        plans = [(field.encode_name, plan(field.type, known)) for field in shape.fields]
        self._parts = tuple((name, amend) for name, amend in plans if amend is not None)

    def __call__(self, value: Any) -> Any:
        """Change *value* in place, if it is an object and not one of another tag."""
        if not isinstance(value, dict) or (
            self._tag_field and value.get(self._tag_field, self._tag) != self._tag
        ):
            return value
        for name in self._never_null:
            if name in value and value[name] is None:
                del value[name]
        for name, amend in self._parts:
            if name in value:
                value[name] = amend(value[name])
        return value


def unchanged(value: Any) -> Any:
    """Return *value*."""
    return value


def number(value: Any) -> Any:
    """Return the number that text of digits says."""
    return int(value) if isinstance(value, str) and DIGITS.fullmatch(value) else value


def time(value: Any) -> Any:
    """Return the text of a time with UTC as its offset where it has none."""
    return value + "Z" if isinstance(value, str) and NAIVE.fullmatch(value) else value


def one_after_the_other(plans: list[Amend | None]) -> Amend | None:
    """Return what makes all the changes of *plans*; each leaves alone what it is not for."""
    amends = [amend for amend in plans if amend is not None]
    if len(amends) < 2:
        return amends[0] if amends else None

    def all_of_them(value: Any) -> Any:
        for amend in amends:
            value = amend(value)
        return value

    return all_of_them


def within_list(amend: Amend | None) -> Amend | None:
    """Return what changes each item of a list."""
    if amend is None:
        return None
    return lambda value: [amend(one) for one in value] if isinstance(value, list) else value


def within_dict(amend: Amend | None) -> Amend | None:
    """Return what changes each value of an object."""
    if amend is None:
        return None

    def each(value: Any) -> Any:
        return {name: amend(one) for name, one in value.items()} if isinstance(value, dict) else value

    return each


def nullable(shape: inspect.Type) -> bool:
    """Tell whether null is a value of *shape*."""
    match shape:
        case inspect.Metadata(type=inner):
            return nullable(inner)
        case inspect.UnionType(types=members):
            return any(nullable(member) for member in members)
    return isinstance(shape, inspect.NoneType | inspect.AnyType | inspect.CustomType | inspect.RawType)
