"""Finding pipelines by the name of their module; the sentence that answers each mistake."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from flow.errors import ConfigError, TargetError
from flow.target import load

CANARY = "canary-4711"
CRM = """
    from msgspec import Struct
    from flow import Batching, Pipeline

    class Action(Struct):
        page: int

    class Base(Pipeline[Action]):
        concurrency = 3

    class Second(Base):
        queue = "second"
        def handle_message(self, message): ...

    class First(Pipeline[Action]):
        queue = "first"
        def handle_message(self, message): ...

    Alias = First
    number = 3
"""


class Folder:
    """A folder with modules, which is the current one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, name: str, text: str = "") -> None:
        file = self.path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(dedent(text))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Folder]:
    """An empty current folder; what is imported from it is forgotten afterwards."""
    monkeypatch.chdir(tmp_path)
    path, modules = list(sys.path), set(sys.modules)
    yield Folder(tmp_path)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if name.startswith(("acme", "broken")):
            del sys.modules[name]


def refused(target: str) -> str:
    with pytest.raises(TargetError) as caught:
        load(target)
    return str(caught.value)


def test_a_module_stands_for_every_pipeline_defined_in_it(folder: Folder) -> None:
    """In their order; not a class without a queue, and none twice."""
    folder.write("acme/crm.py", CRM)

    assert [cls.__name__ for cls in load("acme.crm")] == ["Second", "First"]


def test_a_class_is_named_after_a_colon(folder: Folder) -> None:
    folder.write("acme_crm.py", CRM)

    assert [cls.__name__ for cls in load("acme_crm:First")] == ["First"]
    assert [cls.__name__ for cls in load("acme_crm:Alias")] == ["First"]
    assert [cls.__name__ for cls in load("acme_crm:Base")] == ["Base"], "its queue may come with --queue"


def test_imported_pipelines_do_not_count_unless_named(folder: Folder) -> None:
    folder.write("acme_crm.py", CRM)
    folder.write("acme_mine.py", "from acme_crm import First, Pipeline")

    assert refused("acme_mine") == (
        "acme_mine defines no class that inherits from flow.Pipeline; "
        "did you mean acme_mine:First, which it imports?"
    )
    assert [cls.__name__ for cls in load("acme_mine:First")] == ["First"]


@pytest.mark.parametrize(
    ("target", "hint"),
    [
        ("", ""),
        (":Crm", ""),
        ("crm:", ""),
        ("crm:a.b", ""),
        ("crm:a:b", ""),
        ("my crm", ""),
        ("crm-pipeline", ""),
        ("..crm", ""),
        ("crm;print(1)", ""),
        ("/etc/crm.py", ""),
        ("acme/crm.py", "; did you mean acme.crm?"),
        ("crm.py:Crm", None),
    ],
)
def test_a_target_is_made_of_dotted_names(folder: Folder, target: str, hint: str | None) -> None:
    """No paths and no expressions; `crm.py` is a dotted name, of a module that does not exist."""
    sentence = refused(target)

    if hint is None:
        assert sentence.startswith("there is no module crm.py")
    else:
        assert sentence == f"TARGET must be package.module or package.module:Class, got {target!r}{hint}"


@pytest.mark.parametrize(
    "target", [f"amqps://me:{CANARY}@broker/vhost", f"me:{CANARY}@broker", f"pipelines.crm:amqp://u:{CANARY}"]
)
def test_an_address_is_not_quoted(folder: Folder, target: str) -> None:
    """It was meant for `--amqp-url`, and holds a password."""
    assert refused(target) == (
        "TARGET must be package.module or package.module:Class, not an address: "
        "that of the broker goes to --amqp-url"
    )


def test_a_module_that_does_not_exist_is_told_with_the_nearest_file(folder: Folder) -> None:
    folder.write("acme/crm.py", CRM)
    folder.write("acme/mail.py")
    folder.write("acme/__init__.py")

    assert refused("acme.crn") == "there is no module acme.crn; did you mean acme.crm?"
    assert refused("acme.xyz") == "there is no module acme.xyz; acme has crm, mail"
    assert refused("acmee") == "there is no module acmee; did you mean acme?"
    assert refused("acme.crm.deep").startswith("there is no module acme.crm.deep")
    assert (
        refused("qqq.zzz") == f"there is no module qqq.zzz in {folder.path} or among the installed packages"
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("import nowhere_at_all", "ModuleNotFoundError: No module named 'nowhere_at_all' (broken.py:1)"),
        ("x = 1\nprint(y)", "NameError: name 'y' is not defined (broken.py:2)"),
        ("def f(:\n  pass", "invalid syntax (broken.py:1)"),
        (f"\nraise ValueError('{CANARY}')", "ValueError (broken.py:2)"),
        (f"{{}}['{CANARY}']", "KeyError (broken.py:1)"),
        ("def f():\n  1 / 0\nf()", "ZeroDivisionError (broken.py:2)"),
        ("import sys\nsys.exit(3)", "SystemExit (broken.py:2)"),
        ("import json\njson.loads('[')", None),
    ],
)
def test_a_module_that_does_not_import_is_told_with_the_place(
    folder: Folder, text: str, sentence: str | None
) -> None:
    """One sentence, without the texts of errors that may quote what the module read."""
    folder.write("broken.py", text)

    said = refused("broken")

    assert said.startswith("broken cannot be imported: ")
    assert CANARY not in said
    assert "\n" not in said
    assert sentence is None or said == f"broken cannot be imported: {sentence}"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "from flow import Pipeline\n\nclass Crm(Pipeline):\n    concurency = 1",
            "Crm.concurency is no option and no callback of a pipeline; did you mean concurrency? "
            "(broken.py:3)",
        ),
        (
            "from flow import Batching\nBatching(szie=3)",
            "Batching has no option szie; did you mean size? (broken.py:2)",
        ),
    ],
)
def test_a_class_that_is_wrong_is_told_with_the_place(folder: Folder, text: str, sentence: str) -> None:
    """The module is found; its set-up is what is wrong."""
    folder.write("broken.py", text)

    with pytest.raises(ConfigError) as caught:
        load("broken")

    assert type(caught.value) is ConfigError
    assert str(caught.value) == sentence


def test_the_place_is_the_one_in_the_module_not_in_what_it_calls(folder: Folder) -> None:
    folder.write("broken.py", "import msgspec\n\nclass A(msgspec.Struct):\n    x: int = 1\n    y: int")

    assert refused("broken") == "broken cannot be imported: TypeError (broken.py:3)"


def test_no_error_is_chained_to_the_sentence(folder: Folder) -> None:
    """A traceback that shows locals would show what the module had read."""
    folder.write("broken.py", f"secret = '{CANARY}'\nraise ValueError(secret)")

    with pytest.raises(TargetError) as caught:
        load("broken")

    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


def test_a_class_that_does_not_exist_is_told_with_the_nearest(folder: Folder) -> None:
    folder.write("acme_crm.py", CRM)
    folder.write("acme_empty.py")

    assert refused("acme_crm:Frist") == "acme_crm has no Frist; did you mean First?"
    assert refused("acme_crm:Xyz") == "acme_crm has no Xyz; its pipelines are Base, Second, First, Alias"
    assert refused("acme_empty:Crm") == "acme_empty has no Crm; it has no pipeline"


def test_what_is_no_pipeline_is_refused(folder: Folder) -> None:
    folder.write("acme_crm.py", CRM)

    assert refused("acme_crm:Action") == (
        "acme_crm:Action is a class that does not inherit from flow.Pipeline"
    )
    assert (
        refused("acme_crm:number") == "acme_crm:number is an int, no class that inherits from flow.Pipeline"
    )
    assert refused("acme_crm:Pipeline") == "acme_crm:Pipeline is flow.Pipeline itself, not one of yours"


def test_a_module_without_a_pipeline_is_refused(folder: Folder) -> None:
    folder.write("acme_empty.py")
    folder.write("acme_base.py", "from flow import Pipeline\nclass Crm(Pipeline): ...")

    assert refused("acme_empty") == "acme_empty defines no class that inherits from flow.Pipeline"
    assert refused("acme_base") == (
        "Crm in acme_base has no queue: set one, or run acme_base:Crm with --queue"
    )


def installed(tmp_path: Path, folder: str, *targets: str) -> list[str]:
    """Return what becomes of each of *targets* where flow is installed, with *folder* as the current one."""
    site = tmp_path / "site"
    if not site.exists():
        source = Path(__file__).parent.parent / "flow"
        shutil.copytree(source, site / "flow", ignore=shutil.ignore_patterns("__pycache__"))
        (site / "flow" / "pipelines").mkdir(exist_ok=True)
        (site / "flow" / "pipelines" / "__init__.py").touch()
        (site / "flow" / "pipelines" / "shipped.py").write_text(dedent(CRM))
    script = """
        import sys
        from flow.errors import TargetError
        from flow.target import load
        for target in sys.argv[1:]:
            try:
                print(*[f"{cls.__module__}:{cls.__name__}" for cls in load(target)])
            except TargetError as error:
                print(error)
    """
    packages = next(entry for entry in sys.path if entry.endswith("site-packages"))
    done = subprocess.run(
        [sys.executable, "-S", "-P", "-c", dedent(script), *targets],
        env={**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{packages}"},
        cwd=tmp_path / folder,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


def test_shipped_pipelines_are_found_unless_there_is_a_local_package(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "mine" / "pipelines").mkdir(parents=True)
    (tmp_path / "mine" / "pipelines" / "own.py").write_text(dedent(CRM))

    assert installed(
        tmp_path, "empty", "pipelines.shipped:First", "pipelines.shiped", "pipelines.shipped"
    ) == [
        "flow.pipelines.shipped:First",
        "there is no module pipelines.shiped; did you mean pipelines.shipped?",
        "flow.pipelines.shipped:Second flow.pipelines.shipped:First",
    ]
    assert installed(tmp_path, "mine", "pipelines.own:First", "pipelines.shipped") == [
        "pipelines.own:First",
        "there is no module pipelines.shipped; pipelines has own",
    ]
