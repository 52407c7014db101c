"""`--env-file`: variables from files; what the environment itself says wins."""

import os
from collections.abc import Callable, MutableMapping
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import click
from dotenv.parser import Binding, parse_stream

from flow.errors import ConfigError

F = TypeVar("F", bound=Callable[..., Any])

KEPT = "flow.cli.envfile"  # where a context of click and those inside of it keep the `Files`
SAME = (("FLOW_AMQP_URL", "AMQP_URL", "PROCA_URL"), ("FLOW_QUEUE", "PROCA_QUEUE"))


class Files:
    """The files that were read into an environment."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        self.paths: list[Path] = []
        self._environment = environment
        self._own = dict(environment)

    def load(self, path: Path) -> None:
        """Set what the file at *path* says and the environment itself does not; later files win.

        An empty variable counts as not set. A variable that means the same under another name, or that
        names a file with the value, counts as set.

        Raises:
            ConfigError: the file cannot be read, or is no list of NAME=value.
        """
        self.paths.append(path)
        for name, value in read(path).items():
            if not any(self._own.get(other) for other in meanings(name)):
                self._environment[name] = value

    @property
    def without(self) -> dict[str, str]:
        """The environment as it was before."""
        return dict(self._own)


def env_file(*, variable: str | None = None) -> Callable[[F], F]:
    """Add `--env-file` to a command, also read from *variable*; it is applied before all other options."""
    return click.option(
        "--env-file",
        type=click.Path(path_type=Path),
        multiple=True,
        metavar="FILE",
        envvar=variable,
        allow_from_autoenv=False,
        is_eager=True,
        expose_value=False,
        callback=_load,
        help="Take variables that are not set from FILE: lines of NAME=value. The last of several wins.",
    )


def files(context: click.Context) -> Files:
    """Return what was read for the command of *context*."""
    kept: Files = context.meta.setdefault(KEPT, Files(os.environ))
    return kept


def _load(context: click.Context, _: click.Parameter, paths: tuple[Path, ...]) -> None:
    if not context.resilient_parsing:
        for path in paths:
            files(context).load(path)


def meanings(name: str) -> set[str]:
    """Return the names of all variables that say the same as *name*."""
    plain = name.removesuffix("_FILE")
    names = next((names for names in SAME if plain in names), (plain,))
    return {form for one in names for form in (one, f"{one}_FILE")}


def read(path: Path) -> dict[str, str]:
    """Return the variables of the file at *path*; `${NAME}` in a value stays as it is.

    Raises:
        ConfigError: it cannot be read, or a line is not NAME=value; the line is not quoted.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"the env file {path} cannot be read ({error.strerror})") from None
    except ValueError:
        raise ConfigError(f"the env file {path} is not UTF-8 text") from None
    found: dict[str, str] = {}
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key is not None and (binding.value is None or "\0" in binding.value)):
            raise ConfigError(f"line {line(binding)} of the env file {path} must be NAME=value")
        if binding.key is not None and binding.value is not None:
            found[binding.key] = binding.value
    return found


def line(binding: Binding) -> int:
    """Return the line that *binding* begins on, without the empty ones before it."""
    blank = binding.original.string[: -len(binding.original.string.lstrip()) or None]
    return binding.original.line + blank.count("\n")
