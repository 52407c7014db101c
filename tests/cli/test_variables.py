"""Variables with FLOW_: which there are, and what is said of others."""

import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flow.cli.variables import NAMES, WITH_FILE, unknown
from flow.pipeline import Pipeline
from flow.schema import IdsMessage
from flow.settings import Settings
from tests.cli.conftest import run_flow

ROOT = Path(__file__).parent.parent.parent
MAIN = import_module("flow.cli").main
CANARY = "canary-secret"
MINE = """
from flow import Pipeline, Settings
from flow.schema import IdsMessage

class MineSettings(Settings):
    prefix = "MINE"
    colour: str = "red"

class Mine(Pipeline[IdsMessage]):
    queue = "acme.crm"
    settings: MineSettings

    def handle_message(self, message): ...
"""


def contexts(parent: click.Context) -> Iterator[click.Context]:
    """Yield a context for every command."""
    group = parent.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        context = click.Context(command, info_name=name, parent=parent)
        yield context
        if isinstance(command, click.Group):
            yield from contexts(context)


def context_of(*names: str) -> click.Context:
    """Return the context of a command."""
    context = click.Context(MAIN, info_name="flow", auto_envvar_prefix="FLOW")
    for name in names:
        context = next(one for one in contexts(context) if one.info_name == name)
    return context


def read_by(context: click.Context) -> set[str]:
    """Return the variables that are read for the options of a command."""
    found = set()
    for one in context.command.params:
        given = [one.envvar] if isinstance(one.envvar, str) else one.envvar or ()
        found |= {name for name in given if name.startswith("FLOW_")}
        if isinstance(one, click.Option) and one.allow_from_autoenv and one.name:
            found.add(f"{context.auto_envvar_prefix}_{one.name.upper()}")
    return found


def test_all_variables_are_known() -> None:
    """Those of options, and those that the code names; nothing else is."""
    root = context_of()
    of_options = {name for one in (root, *contexts(root)) for name in read_by(one)}
    derived = tuple(f"FLOW_{name.upper()}_" for name in MAIN.list_commands(root))
    text = "".join(path.read_text() for path in (ROOT / "flow").rglob("*.py") if path.name != "variables.py")
    named = set(re.findall(r"\bFLOW_[A-Z][A-Z_]*[A-Z]\b", text))

    found = {name for name in of_options | named if not name.startswith(derived)}
    found |= NAMES & (of_options | named)
    assert found | {f"{name}_FILE" for name in WITH_FILE} == NAMES


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("FLOW_DATABSE_URL", "FLOW_DATABSE_URL is set but not known (did you mean FLOW_DATABASE_URL?)"),
        ("FLOW_RUN_QEUE", "FLOW_RUN_QEUE is set but not known (did you mean FLOW_RUN_QUEUE?)"),
        ("flow_queue", "flow_queue is set but not known (did you mean FLOW_QUEUE?)"),
        ("FLOW_HEADQUARTERS", "FLOW_HEADQUARTERS is set but not known: correct its name, or remove it"),
    ],
)
def test_a_variable_that_nothing_reads_is_told_by_its_name(name: str, sentence: str) -> None:
    assert unknown(context_of("run"), {name: CANARY}) == [sentence]


@pytest.mark.parametrize(
    "name",
    ["FLOW_DATABASE_URL_FILE", "FLOW_DEV", "FLOW_RUN_QUEUE", "FLOW_SETUP_ORG", "FLOW_TEST_SEED", "PATH"],
)
def test_a_variable_that_something_reads_is_not_told(name: str) -> None:
    assert unknown(context_of("run"), {name: CANARY}) == []


def test_what_settings_read_is_known() -> None:
    class OwnSettings(Settings):
        prefix = "FLOW_OWN"
        url: str

    class Own(Pipeline[IdsMessage]):
        queue = "ids"
        settings: OwnSettings

        def handle_message(self, message: object) -> None: ...

    assert unknown(context_of("run"), {"FLOW_OWN_URL": CANARY}, Own) == []
    assert unknown(context_of("run"), {"FLOW_OWN_URL": CANARY}) != []


def test_a_variable_with_the_version_of_an_image_does_not_end_every_command() -> None:
    done = CliRunner().invoke(MAIN, ["dead"], env={"FLOW_VERSION": "1"}, auto_envvar_prefix="FLOW")

    assert "Usage: " in done.output


@pytest.mark.anyio
async def test_a_run_and_a_check_say_so_and_go_on(tmp_path: Path) -> None:
    """Beside what they are asked for: a run with the same exit code, a check in its findings."""
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "bodies.jsonl").write_text("")
    wrong = {"FLOW_DATABSE_URL": CANARY, "MINE_COLUOR": CANARY, "PYTHONPATH": str(tmp_path)}

    ran = await run_flow("run", "mine", "--from", "bodies.jsonl", folder=tmp_path, **wrong)
    checked = await run_flow("check", "mine", folder=tmp_path, **wrong)

    sentences = [
        "FLOW_DATABSE_URL is set but not known (did you mean FLOW_DATABASE_URL?)",
        "MINE_COLUOR is set but not known (did you mean MINE_COLOUR?)",
    ]
    for sentence in sentences:
        assert ran.err.count(sentence) == 1
        assert checked.out.count(f"caution      {sentence}") == 1
        assert sentence not in ran.out + checked.err
    assert ran.code == 0, ran.err
    assert CANARY not in ran.out + ran.err + checked.out + checked.err
