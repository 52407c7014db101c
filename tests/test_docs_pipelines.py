"""The page of the pipelines is complete and right: options, defaults, callbacks, and examples that run."""

import inspect
import re
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from importlib import import_module

import pytest

import flow
from flow import Batching, Claim, Pipeline, RateLimit, Retries
from flow.declaration import CALLBACKS, OPTIONS
from tests.test_docs import ROOT, table

PAGE = (ROOT / "docs" / "pipelines.md").read_text()
EXAMPLES = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
NONE = object()  # an option without a default


def defaults(kind: type) -> Mapping[str, object]:
    """Return the options of *kind* with their defaults."""
    if kind is Pipeline:
        return {name: getattr(Pipeline, name, NONE) for name in OPTIONS}
    found = {}
    for one in fields(kind):
        made = one.default_factory() if one.default_factory is not MISSING else one.default
        found[one.name] = NONE if made is MISSING else made
    return found


@pytest.mark.parametrize(
    ("heading", "kind"),
    [
        ("Options", Pipeline),
        ("`Batching`", Batching),
        ("`Retries`", Retries),
        ("`RateLimit`", RateLimit),
        ("`Claim`", Claim),
    ],
)
def test_options_are_described_with_their_defaults(heading: str, kind: type) -> None:
    told = {name.strip("`"): default.strip("`") for name, default, _ in table(PAGE, heading)}

    known = defaults(kind)
    assert list(told) == list(known)
    for name, default in told.items():
        if default == "–":
            assert known[name] is NONE, name
        else:
            assert eval(default, vars(flow).copy()) == known[name], name


def test_every_callback_is_described_as_it_is_called() -> None:
    rows = table(PAGE, "Callbacks")

    assert sorted(row[0] for row in rows) == sorted(signatures())
    assert all(cell for row in rows for cell in row)


def signatures() -> Iterable[str]:
    for name, callback in CALLBACKS.items():
        asynchronous = callback.asynchronous or name == "queues"
        parameters = ", ".join(inspect.signature(getattr(Pipeline, name)).parameters)
        yield f"`{'async ' * asynchronous}def {name}({parameters})`"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda text: re.findall(r"class (\w+)", text)[0])
def test_the_examples_are_pipelines_that_could_run(example: str) -> None:
    space: dict[str, object] = {"__name__": "example"}
    exec(example, space)

    made = [one for one in space.values() if isinstance(one, type) and issubclass(one, Pipeline)]
    [cls] = [one for one in made if one is not Pipeline]
    cls.check()


def test_the_targets_are_where_they_are_said_to_be() -> None:
    rows = table(PAGE, "Targets")

    assert len(rows) > 3
    for name, _ in rows:
        module, _, target = name.strip("`").rpartition(".")
        assert isinstance(getattr(import_module(module), target), type), name
