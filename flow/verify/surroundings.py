"""Settings that lead a pipeline to the double of its target instead of the target itself."""

import secrets
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, dataclass, fields
from typing import Any, get_type_hints

from flow.errors import ConfigError
from flow.options import suggestion
from flow.pipeline import Pipeline
from flow.settings import Secret

HTTP = ("http://", "https://")
PRIVATE, PORT = "allow_private", "port"
"""What a `WebhookTarget` needs to know to call this machine."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The variables that a pipeline gets."""

    environment: dict[str, str]
    redirected: list[str]
    """The variables that lead to the double; empty: flow cannot see the target."""


def surroundings(
    cls: type[Pipeline[Any, Any]],
    environment: Mapping[str, str],
    address: str,
    port: int,
    named: Sequence[str] = (),
) -> Surroundings:
    """Return *environment* with *address* for the target: in the variables *named*, else in every URL.

    A URL is a setting called `url` or `…_url`, unless it is not set and need not be, or holds one of another
    kind than http. Secrets that must be set and are not are made up.

    Raises:
        ConfigError: no setting has a variable that is *named*.
    """
    wanted = cls.settings_type()
    if wanted is None:
        if named:
            raise ConfigError(f"{cls.__name__} has no settings, so --target-setting {named[0]} fits none")
        return Surroundings(dict(environment), [])
    known = {f"{wanted.prefix}_{one.name.upper()}": one for one in fields(wanted)}  # type: ignore[arg-type]  # made one by __init_subclass__
    for name in named:
        if name not in known:
            near = suggestion(name, known)
            raise ConfigError(f"--target-setting must be a variable of {wanted.__name__}, got {name}{near}")
    hints = get_type_hints(wanted)
    found = dict(environment)
    redirected = [
        variable
        for variable, field in known.items()
        if (variable in named if named else leads_away(field, hints[field.name], variable, environment))
    ]
    for variable in redirected:
        found.pop(f"{variable}_FILE", None)
        found[variable] = address
    for variable, field in known.items():
        given = found.get(variable) or found.get(f"{variable}_FILE")
        if redirected and field.name == PRIVATE:
            found[variable] = "true"
        elif redirected and field.name == PORT:
            found[variable] = str(port)
        elif not given and hints[field.name] is Secret and bare(field):
            found[variable] = secrets.token_hex(16)
    return Surroundings(found, redirected)


def leads_away(field: Field[Any], hint: Any, variable: str, environment: Mapping[str, str]) -> bool:
    """Tell whether *field* is the URL of an HTTP target that would be called."""
    if field.name != "url" and not field.name.endswith("_url"):
        return False
    if environment.get(f"{variable}_FILE"):
        return True
    value = environment.get(variable) or (None if bare(field) else field.default)
    if isinstance(value, Secret):
        value = value.reveal()
    if not value:
        return bare(field) and hint in (str, Secret)
    return str(value).startswith(HTTP)


def bare(field: Field[Any]) -> bool:
    """Tell whether *field* has no default."""
    return field.default is MISSING and field.default_factory is MISSING
