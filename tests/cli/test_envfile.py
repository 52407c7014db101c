"""`--env-file`: what the environment says wins; what is wrong is one sentence that quotes nothing."""

from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from flow.cli.envfile import Files, env_file, files, read
from flow.errors import ConfigError
from tests.cli.conftest import run_flow

pytestmark = pytest.mark.anyio


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "crm.env"


def loaded(environment: dict[str, str], *paths: Path) -> dict[str, str]:
    kept = Files(environment)
    for path in paths:
        kept.load(path)
    return environment


def test_lines_are_read_as_shells_read_them(file: Path) -> None:
    file.write_text("# the CRM\nexport A=one\nB='two words'\nC=\"three\\n\" # why\n\nD=\nE=pa$${X}ss\n")

    assert read(file) == {"A": "one", "B": "two words", "C": "three\n", "D": "", "E": "pa$${X}ss"}


def test_the_environment_wins(file: Path) -> None:
    file.write_text("A=file\nB=file\nC=file\n")

    assert loaded({"A": "own", "B": ""}, file) == {"A": "own", "B": "file", "C": "file"}


@pytest.mark.parametrize(
    ("own", "other"),
    [
        ("CRM_TOKEN", "CRM_TOKEN_FILE"),
        ("CRM_TOKEN_FILE", "CRM_TOKEN"),
        ("AMQP_URL", "FLOW_AMQP_URL"),
        ("PROCA_URL", "AMQP_URL_FILE"),
        ("PROCA_QUEUE", "FLOW_QUEUE"),
    ],
)
def test_the_environment_wins_under_every_name_of_the_same(file: Path, own: str, other: str) -> None:
    """Else a variable of the file would be stronger than the environment, and both at once an error."""
    file.write_text(f"{other}=file\n")

    assert loaded({own: "own"}, file) == {own: "own"}


def test_of_several_files_the_last_wins(file: Path, tmp_path: Path) -> None:
    file.write_text("A=1\nB=1\n")
    (tmp_path / "more.env").write_text("B=2\n")

    assert loaded({}, file, tmp_path / "more.env") == {"A": "1", "B": "2"}


def test_the_environment_without_the_files_is_kept(file: Path) -> None:
    file.write_text("A=file\n")
    kept = Files({"B": "own"})
    kept.load(file)

    assert kept.without == {"B": "own"}
    assert kept.paths == [file]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (b"A=1\n\n\nsecret words\n", 4),
        (b"A=1\nB\n", 2),
        (b"A='secret\n", 1),
        (b"=secret\n", 1),
        (b"A=se\0cret\n", 1),
    ],
)
def test_a_line_that_is_none_is_named_and_not_quoted(file: Path, text: bytes, line: int) -> None:
    file.write_bytes(text)

    with pytest.raises(ConfigError) as caught:
        read(file)

    assert str(caught.value) == f"line {line} of the env file {file} must be NAME=value"


@pytest.mark.parametrize("text", [None, b"A=\xff\n"])
def test_a_file_that_cannot_be_read_is_named(file: Path, text: bytes | None) -> None:
    if text is not None:
        file.write_bytes(text)

    with pytest.raises(
        ConfigError, match=r"^the env file .*crm\.env (cannot be read \(No such|is not UTF-8)"
    ):
        read(file)


def test_it_comes_before_all_other_options(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLOW_SPEED", raising=False)
    file.write_text("FLOW_SPEED=file\n")

    @click.command()
    @click.option("--speed", envvar="FLOW_SPEED", default="default")
    @env_file()
    def command(speed: str) -> None:
        files(click.get_current_context())
        click.echo(speed)

    def said(*arguments: str, **environment: str) -> str:
        with monkeypatch.context() as patch:
            patch.delenv("FLOW_SPEED", raising=False)
            return CliRunner(env=environment).invoke(command, arguments).output.strip()

    named = ["--env-file", str(file)]
    assert said() == "default"
    assert said(*named) == "file"
    assert said(*named, FLOW_SPEED="environment") == "environment"
    assert said("--speed", "flag", *named, FLOW_SPEED="environment") == "flag"


@pytest.fixture
def nowhere(file: Path) -> Path:
    """A file that names a broker at which nobody listens."""
    file.write_text("AMQP_URL=amqp://guest:guest@127.0.0.1:1/\n")
    return file


async def test_every_command_takes_it(nowhere: Path) -> None:
    """Before the command, or as a variable."""
    command = ["push", "deliver", "x", "-"]

    flag = await run_flow("--env-file", str(nowhere), *command, stdin=b"{}")
    variable = await run_flow(*command, stdin=b"{}", FLOW_ENV_FILE=str(nowhere))

    for ended in (flag, variable):
        assert (ended.code, ended.err.count("127.0.0.1:1")) == (1, 1), ended.err


async def test_a_missing_file_is_one_sentence_everywhere(file: Path) -> None:
    sentence = f"flow: the env file {file} cannot be read (No such file or directory)\n"

    before = await run_flow("--env-file", str(file), "push", "deliver", "x", "-")
    after = await run_flow("run", "pipelines.crm", "--env-file", str(file))
    variable = await run_flow("dead", "list", FLOW_ENV_FILE=str(file))

    for ended in (before, after, variable):
        assert (ended.code, ended.err) == (78, sentence)
