"""Finds the pipelines that were asked for on the command line: `package.module` or `module:Class`.

The current folder is added to `sys.path`, as `python -m` does, and the module is imported: its code runs.
Names come from a person who starts a program, never from a message.
"""

import difflib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from traceback import extract_tb
from types import ModuleType
from typing import Any

from flow.errors import ConfigError, TargetError
from flow.pipeline import Pipeline

SHIPPED = "pipelines"  # found in `flow.pipelines` when there is no local package of this name
HERE = Path(__file__).parent
# Their text speaks of the program; that of other errors may quote what the program read.
PLAIN = (ConfigError, ImportError, NameError, AttributeError, SyntaxError)

PipelineClass = type[Pipeline[Any, Any]]


def load(target: str) -> list[PipelineClass]:
    """Return every pipeline that the module *target* defines, or the one class it names after a colon.

    A module's pipelines are the classes written in it that have a queue, in their order; imported ones do
    not count. `pipelines.x` is taken from `flow.pipelines` when there is no local package `pipelines`.

    Raises:
        TargetError: there is no such module or class, it cannot be imported, or it is no pipeline.
    """
    if "://" in target or "@" in target:  # with its password
        raise TargetError(
            "TARGET must be package.module or package.module:Class, not an address: "
            "that of the broker goes to --amqp-url"
        )
    name, colon, wanted = target.partition(":")
    if not all(part.isidentifier() for part in name.split(".")) or (colon and not wanted.isidentifier()):
        raise TargetError(
            f"TARGET must be package.module or package.module:Class, got {target!r}{_meant(name)}"
        )
    module = _module(name)
    return [_named(module, wanted)] if colon else _defined(module)


def chosen(targets: Sequence[str]) -> list[PipelineClass]:
    """Return the pipelines of all *targets*.

    Raises:
        TargetError: as `load` does, or two of them have the same name.
    """
    return distinct(cls for target in targets for cls in load(target))


def distinct(classes: Iterable[PipelineClass]) -> list[PipelineClass]:
    """Return each of *classes* once.

    Raises:
        TargetError: two of them have the same name.
    """
    found: dict[str, PipelineClass] = {}
    for cls in classes:
        earlier = found.setdefault(cls.name, cls)
        if earlier is not cls:
            raise TargetError(
                f"{_full(earlier)} and {_full(cls)} are both called {cls.name}: give one of them another name"
            )
    return list(found.values())


def check_workers(cls: type[Pipeline[Any, Any]], workers: int) -> None:
    """Check that so many *workers*, processes on the same queue, can run *cls*.

    Raises:
        ConfigError: they would break an order that it promises.
    """
    if workers > 1 and cls.partition_key is not Pipeline.partition_key:
        raise ConfigError(
            f"--workers {workers} would break the order that {cls.__name__}.partition_key promises: "
            "run it with --workers 1, and raise its concurrency"
        )


def check_one(classes: Sequence[PipelineClass], targets: Sequence[str], option: str = "--queue") -> None:
    """Check that *targets* name one pipeline, as *option* wants it.

    Raises:
        ConfigError: they name several.
    """
    if len(classes) > 1:
        raise ConfigError(f"{option} goes with one pipeline, but {' '.join(targets)} has {len(classes)}")


def _full(cls: PipelineClass) -> str:
    return f"{cls.__module__}:{cls.__qualname__}"


def _meant(name: str) -> str:
    path = Path(name)
    if path.suffix != ".py" or path.is_absolute():
        return ""
    return f"; did you mean {'.'.join(path.with_suffix('').parts)}?"


def _module(name: str) -> ModuleType:
    """Import the module *name*.

    Raises:
        TargetError: there is none, or importing it raised.
        ConfigError: a class in it is wrong.
    """
    folder = os.getcwd()
    if folder not in sys.path and "" not in sys.path:
        sys.path.insert(0, folder)
    importlib.invalidate_caches()
    top = name.partition(".")[0]
    found = f"flow.{name}" if top == SHIPPED and importlib.util.find_spec(top) is None else name
    try:
        return importlib.import_module(found)
    except ConfigError as error:
        raise ConfigError(_said(error)) from error  # a class in it is wrong
    except (Exception, SystemExit) as error:  # noqa: BLE001 # the border to the user's code
        if isinstance(error, ModuleNotFoundError) and _is_or_holds(error.name, found):
            failure = f"there is no module {name}{_near(found)}"
        else:
            failure = f"{name} cannot be imported: {_said(error)}"
    raise TargetError(failure)


def _is_or_holds(missing: str | None, name: str) -> bool:
    return missing is not None and f"{name}.".startswith(f"{missing}.")


def _near(name: str) -> str:
    """Return the modules that are where *name* was looked for, the nearest one if it is near."""
    package, _, last = name.rpartition(".")
    siblings = sorted(_siblings(package))
    near = difflib.get_close_matches(last, siblings, n=1)
    shown = f"{package}.".removeprefix("flow." if package == f"flow.{SHIPPED}" else "").lstrip(".")
    if near:
        return f"; did you mean {shown}{near[0]}?"
    if siblings and package:
        return f"; {package} has {', '.join(siblings)}"
    return f" in {os.getcwd()} or among the installed packages"


def _siblings(package: str) -> Iterator[str]:
    loaded = sys.modules.get(package)
    folders = [os.getcwd()] if not package else list(getattr(loaded, "__path__", []))
    for path in (path for folder in folders for path in Path(folder).glob("*")):
        module = path.suffix == ".py" or (path / "__init__.py").is_file()
        if module and path.stem.isidentifier() and path.stem != "__init__":
            yield path.stem


def _said(error: BaseException) -> str:
    """Say what importing raised, and where."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.msg} ({_path(error.filename)}:{error.lineno})"
    frames = [
        frame
        for frame in extract_tb(error.__traceback__)
        if "importlib" not in frame.filename and not _ours(Path(frame.filename))
    ]
    own = [frame for frame in frames if "site-packages" not in frame.filename] or frames
    place = f" ({_path(own[-1].filename)}:{own[-1].lineno})" if own else ""
    if isinstance(error, ConfigError):
        return f"{error}{place}"
    text = f": {error}" if isinstance(error, PLAIN) and str(error) else ""
    return f"{type(error).__name__}{text}{place}"


def _ours(path: Path) -> bool:
    return HERE in path.parents and HERE / SHIPPED not in path.parents


def _path(name: str) -> str:
    path = Path(name)
    return str(path.relative_to(os.getcwd()) if path.is_relative_to(os.getcwd()) else path)


def _pipelines(module: ModuleType) -> dict[str, PipelineClass]:
    """Return the pipeline classes that *module* can see, by their names in it."""
    return {
        name: found
        for name, found in vars(module).items()
        if isinstance(found, type) and issubclass(found, Pipeline) and found is not Pipeline
    }


def _defined(module: ModuleType) -> list[PipelineClass]:
    own = {one: None for one in _pipelines(module).values() if one.__module__ == module.__name__}
    complete = [one for one in own if one.consumes() and not inspect.isabstract(one)]
    if complete:
        return complete
    where = module.__name__
    if own:
        names = " and ".join(one.__name__ for one in own)
        verb, first = "has" if len(own) == 1 else "have", next(iter(own)).__name__
        raise TargetError(f"{names} in {where} {verb} no queue: set one, or run {where}:{first} with --queue")
    imported = list(_pipelines(module))
    hint = f"; did you mean {where}:{imported[0]}, which it imports?" if imported else ""
    raise TargetError(f"{where} defines no class that inherits from flow.Pipeline{hint}")


def _named(module: ModuleType, wanted: str) -> PipelineClass:
    classes = _pipelines(module)
    if wanted in classes:
        return classes[wanted]
    if not hasattr(module, wanted):
        near = difflib.get_close_matches(wanted, classes, n=1)
        known = f"; its pipelines are {', '.join(classes)}" if classes else "; it has no pipeline"
        hint = f"; did you mean {near[0]}?" if near else known
        raise TargetError(f"{module.__name__} has no {wanted}{hint}")
    found = getattr(module, wanted)
    kind = (
        "a class that does not inherit" if isinstance(found, type) else f"{_a(found)}, no class that inherits"
    )
    if found is Pipeline:
        raise TargetError(f"{module.__name__}:{wanted} is flow.Pipeline itself, not one of yours")
    raise TargetError(f"{module.__name__}:{wanted} is {kind} from flow.Pipeline")


def _a(found: object) -> str:
    name = type(found).__name__
    return f"an {name}" if name[0] in "aeiou" else f"a {name}"
