"""What the documents say is so: examples run; links, flags, variables, metrics, sentences and files exist."""

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path

import anyio
import click
import msgspec
import pytest
from msgspec.structs import fields

from flow import exits, schema
from flow.cli import COMMANDS
from flow.histogram import Histogram
from flow.looplag import LoopLag
from flow.metrics import FAMILIES, exposition
from flow.prometheus import Families
from flow.schema import ActionMessage, EventMessage, IdsMessage
from flow.serving import numbers
from flow.target import load
from tests.cli.conftest import run_flow
from tests.sentences import is_said, sayings

ROOT = Path(__file__).parent.parent
EXAMPLE = ROOT / "docs" / "examples" / "signatures.py"
EXAMPLE_TESTS = EXAMPLE.with_name("test_signatures.py")
MESSAGES = ROOT / "docs" / "messages.md"
OPERATIONS = ROOT / "docs" / "operations.md"
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "benchmarks/*.md", "tests/BEHAVIOUR.md")
    for path in ROOT.glob(pattern)
)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
FILE = re.compile(r"\b(?:flow|tests|docs|deploy|pipelines|benchmarks)/[\w./-]*\w\.(?:py|md|yml|sh|service)\b")
OTHERS = {"--require-hashes", "--no-deps"}  # flags of other programs


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def table(document: str, heading: str) -> list[list[str]]:
    """Return the cells of the first table under *heading*, without its head."""
    section = re.split(rf"^##+ {re.escape(heading)}$", document, flags=re.MULTILINE)[1]
    section = re.split("^##", section, flags=re.MULTILINE)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in rows[2:]]


def commands(group: click.Group, context: click.Context) -> Iterator[click.Command]:
    """Yield every command of `flow`, those of groups too."""
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        yield command
        if isinstance(command, click.Group):
            yield from commands(command, context)


def every_command() -> list[click.Command]:
    main = import_module("flow.cli").main
    return [main, *commands(main, click.Context(main))]


def test_the_example_of_the_readme_is_the_file() -> None:
    block = (ROOT / "README.md").read_text().split("```python\n")[1].split("```")[0]

    assert block == EXAMPLE.read_text()


def test_the_examples_of_tests_are_those_that_run() -> None:
    blocks = (ROOT / "docs" / "testing.md").read_text().split("```python\n")[1:]
    blocks.append((ROOT / "README.md").read_text().split("```python\n")[2])

    tests = EXAMPLE_TESTS.read_text()
    assert len(blocks) > 3
    for block in blocks:
        assert block.split("```")[0].strip() in tests


def test_the_example_on_a_broker_is_the_file() -> None:
    block = (ROOT / "docs" / "devbroker.md").read_text().split("```python\n")[1].split("```")[0]

    assert block == EXAMPLE.with_name("test_signatures_on_a_broker.py").read_text()


def test_the_tests_of_the_examples_pass() -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        ".",
    ]
    done = subprocess.run(
        command, cwd=EXAMPLE.parent, capture_output=True, text=True, timeout=110, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr


def test_a_new_delivery_target_takes_less_than_thirty_lines() -> None:
    lines = (EXAMPLE.parent / "mailing_list.py").read_text().splitlines()[1:]
    written = [line for line in lines if line.strip() and not line.startswith(("import ", "from "))]

    assert len(written) < 30


def test_the_examples_are_typed() -> None:
    files = [str(file) for file in sorted(EXAMPLE.parent.glob("*.py"))]
    assert len(files) >= 4
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110, check=False)

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_example_is_found_as_the_readme_says() -> None:
    code = "from flow.target import load; [found] = load('signatures'); print(found.__name__, found.queue)"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=EXAMPLE.parent, capture_output=True, text=True, check=True
    )

    assert done.stdout == "Signatures acme.crm\n"


def test_the_shipped_pipelines_are_there() -> None:
    assert [cls.queue for cls in load("pipelines.crm")] == ["acme.crm"]
    assert [cls.queue for cls in load("pipelines.webhook")] == ["acme.webhook"]


@pytest.mark.anyio
@pytest.mark.broker
async def test_the_commands_of_the_readme_work_one_after_another(amqp_url: str) -> None:
    block = (ROOT / "README.md").read_text().split("## On your RabbitMQ\n")[1].split("```")[1]
    lines = [shlex.split(line, comments=True) for line in block.splitlines()]
    settings = dict(word.split("=", 1) for line in lines if line[:1] == ["export"] for word in line[1:])
    del settings["AMQP_URL"]
    flows = [line[1:] for line in lines if line[:1] == ["flow"] and line[1:] != ["run", "pipelines.crm"]]
    ended = [await run_flow(*line, url=amqp_url, folder=ROOT, **settings) for line in flows]

    assert [line[0] for line in flows] == ["setup", "push", "check", "run", "dead"]
    assert [one.code for one in ended] == [0] * 5, ended
    assert "12 messages ready" in ended[2].out


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(path.read_text()):
        place, _, anchor = link.partition("#")
        if place.startswith("https://"):
            continue
        there = (path.parent / place).resolve() if place else path
        assert there.exists(), link
        if anchor:
            headings = {title.lower().replace(" ", "-") for title in HEADING.findall(there.read_text())}
            assert anchor in {re.sub(r"[^\w-]", "", title) for title in headings}, link


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_files_that_are_named_exist(path: Path) -> None:
    for name in FILE.findall(path.read_text()):
        assert (ROOT / name).exists(), name


@pytest.mark.parametrize("path", [path for path in DOCUMENTS if "benchmarks" not in path.parts], ids=name_of)
def test_flags_that_are_named_exist(path: Path) -> None:
    known = {option for command in every_command() for one in command.params for option in one.opts}

    assert set(FLAG.findall(path.read_text())) - known - OTHERS - {"--help"} == set()


def test_every_flag_of_run_is_described_with_its_variable_and_default() -> None:
    run = import_module("flow.cli.run").run
    described = [(flag, variables, default) for flag, variables, default, _ in flags()]

    options = [one for one in run.params if isinstance(one, click.Option)]
    assert described == [(one.opts[0], variables_of(one), default_of(one)) for one in options]


def flags() -> Iterator[tuple[str, list[str], str, str]]:
    for flag, variables, default, meaning in table(OPERATIONS.read_text(), "`flow run`"):
        assert meaning
        yield flag.strip("`"), re.findall("`(.+?)`", variables), default, meaning


def variables_of(option: click.Option) -> list[str]:
    return [option.envvar] if isinstance(option.envvar, str) else list(option.envvar or ())


def default_of(option: click.Option) -> str:
    return "–" if option.is_flag or not isinstance(option.default, str | int | float) else str(option.default)


def test_every_command_is_named() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)

    assert [name for name in COMMANDS if f"flow {name}" not in text] == []


class Nothing:
    """An outbox in which nothing ever was."""

    down: str | None = None
    published = waiting = refused = 0


@pytest.mark.parametrize(
    ("heading", "families", "exposition"),
    [
        ("Metrics", FAMILIES, partial(exposition, [])),
        ("Metrics of `flow serve`", numbers.FAMILIES, numbers.ServingNumbers(Nothing()).exposition),
    ],
)
def test_the_tables_of_metrics_are_complete_and_right(
    heading: str, families: Families, exposition: Callable[[str, Histogram], tuple[bytes, str]]
) -> None:
    exposed, _ = exposition("", LoopLag().histogram)
    texts = dict(re.findall(r"^# HELP (flow_\w+) (.+)$", exposed.decode(), re.MULTILINE))
    kinds = dict(re.findall(r"^# TYPE (flow_\w+) (.+)$", exposed.decode(), re.MULTILINE))
    named = {one.name: one for one in families}
    labels = {"flow_loop_lag_seconds": "–", "flow_build_info": "version"}
    for name in texts:
        family = named.get(name.removeprefix("flow_")) or named.get(
            name.removeprefix("flow_").removesuffix("_total")
        )
        if family is not None:
            labels[name] = ", ".join((*families.labels, *family.labels)) or "–"
    assert metrics_table(heading) == {name: (kinds[name], labels[name], texts[name]) for name in texts}


def metrics_table(heading: str) -> dict[str, tuple[str, ...]]:
    """Return kind, labels and meaning of each metric of a table."""
    return {name.strip("`"): tuple(rest) for name, *rest in table(OPERATIONS.read_text(), heading)}


def test_sentences_that_are_explained_are_said() -> None:
    """The parts between what is filled in stand in one text of the program, in their order."""
    said = sayings([ROOT / "flow", ROOT / "pipelines"])

    sentences = [one for row in table(OPERATIONS.read_text(), "What an error says") for one in code(row[0])]
    assert len(sentences) > 30
    assert [sentence for sentence in sentences if not is_said(sentence, said)] == []


def code(cell: str) -> list[str]:
    """Return what stands between backticks."""
    return re.findall("`([^`]+)`", cell)


@pytest.mark.parametrize(
    "sentence",
    [
        "… needs … installed to … be read",  # parts of several texts
        "to be set … needs",  # not in this order
        "the broker … is missing: run …",
    ],
)
def test_sentences_that_nobody_says_are_found(sentence: str) -> None:
    assert not is_said(sentence, sayings([ROOT / "flow", ROOT / "pipelines"]))


def test_exit_codes_are_those_of_the_program() -> None:
    codes = [row[0] for row in table(OPERATIONS.read_text(), "Exit codes")]

    known = {code for name, code in vars(exits).items() if name.isupper()}
    assert codes == [*(str(code) for code in sorted(known)), "128 + n"]


def test_every_room_has_its_place_in_the_architecture() -> None:
    named = set(re.findall(r"`(\w+)/?`", (ROOT / "docs" / "architecture.md").read_text()))
    rooms = {path.stem for path in (ROOT / "flow").iterdir() if path.suffix == ".py" or path.is_dir()}
    inside = {path.stem for wing in ("stages", "broker") for path in (ROOT / "flow" / wing).glob("*.py")}

    assert (rooms | inside) - named - {"__pycache__"} == set()


def test_decisions_have_their_number_and_their_parts() -> None:
    pages = sorted(path for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name != "README.md")

    assert [path.name[:4] for path in pages] == [f"{number:04}" for number in range(1, len(pages) + 1)]
    for number, path in enumerate(pages, 1):
        parts = HEADING.findall(path.read_text())
        assert parts[0].startswith(f"{number}. ")
        assert parts[1:] == ["Context", "Decision", "What it costs", "What would make us change it"]


# Written in two parts, so that this file does not hold what it forbids.
UNWANTED = [
    "TODO",
    "FIXME",
    "XXX",
    r"issue" r" #?\d",
    r"/(home|root|work)" r"/\w",
    "blazing",
    "seamless",
    "effortless",
    "world-class",
    "cutting-edge",
    "under the hood",
]
TEXTS = {".py", ".md", ".toml", ".yml", ".sh", ".service", ".json", ""}


def test_nothing_unwanted_is_written_anywhere() -> None:
    """No notes to oneself, no paths of one machine, no praise."""
    unwanted = re.compile("|".join(rf"\b{word}" if word[0].isalpha() else word for word in UNWANTED))
    found = [
        f"{name_of(path)}: {match[0]}"
        for path in files()
        if path != Path(__file__) and (match := unwanted.search(path.read_text()))
    ]

    assert found == []


def files() -> Iterator[Path]:
    for folder, folders, names in os.walk(ROOT):
        folders[:] = [
            one
            for one in folders
            if one == ".ci" or not one.startswith((".", "__pycache__", "dist", "build"))
        ]
        for name in names:
            path = Path(folder) / name
            if path.suffix in TEXTS and not name.startswith("."):
                yield path


PARTS = {
    "`proca:action:2`": ActionMessage,
    "`proca:event:2`": EventMessage,
    "`proca:ids:1`": IdsMessage,
    "key": schema.PublicKey,
} | {
    one.__name__[0].lower() + one.__name__[1:]: one
    for one in schema.Wire.__subclasses__()
    if one.__module__ == schema.__name__ and one.__struct_config__.tag is None and one is not schema.PublicKey
}


@pytest.mark.parametrize("part", PARTS)
def test_the_page_of_the_messages_has_the_fields_of_the_schema(part: str) -> None:
    rows = [(row[0].strip("*`"), row[0].startswith("**")) for row in table(MESSAGES.read_text(), part)]

    assert rows == [(field.encode_name, field.required) for field in fields(PARTS[part])]


def test_the_page_of_the_messages_has_no_other_parts() -> None:
    headings = HEADING.findall(MESSAGES.read_text())[1:]

    assert [one for one in headings if one != "The parts"] == [
        one for one in headings if one in PARTS and headings.count(one) == 1
    ]
    assert len(headings) == len(PARTS) + 1 > 10


def test_the_messages_of_the_examples_can_be_read_and_are_made_up() -> None:
    lines = (EXAMPLE.parent / "actions.jsonl").read_bytes().splitlines()
    found = [msgspec.json.decode(line, type=ActionMessage) for line in lines]

    assert len({one.action_id for one in found}) == len(found) >= 10
    assert all(str(one.contact.email).endswith("@example.org") for one in found)


@pytest.mark.anyio
async def test_the_submissions_of_the_examples_are_stored(tmp_path: Path) -> None:
    file = EXAMPLE.parent / "submissions.jsonl"
    given = [msgspec.json.decode(line) for line in file.read_bytes().splitlines()]
    pages = {one["name"]: one.get("thankYouTemplate") for one in given if one.get("type") == "actionPage"}
    signed = [one for one in given if "contact" in one and one["privacy"]["withConsent"]]
    letters = {path.name for path in (ROOT / "flow" / "targets" / "letters").iterdir()}
    assert letters & {pages[one["actionPage"]] for one in signed}  # somebody is thanked
    database = {"FLOW_DATABASE_URL": f"sqlite:///{tmp_path / 'records.db'}"}

    results = ["--results", "results.jsonl"]
    ended = await run_flow("submit", str(file), "--no-publish", *results, folder=tmp_path, **database)

    assert ended.code == 0, ended.err
    assert "stored 3 actions, 0 submitted before, 5 definitions, 0 wrong" in ended.out
    lines = [msgspec.json.decode(line) for line in (tmp_path / "results.jsonl").read_bytes().splitlines()]
    assert [line["status"] for line in lines] == ["delivered", "delivered", "new"]
    command = re.findall(r"^sed .+$", (ROOT / "docs" / "processing.md").read_text(), re.MULTILINE)
    link = (await anyio.run_process(shlex.split(*command), cwd=tmp_path)).stdout.decode()
    waits = lines[2]
    assert link == f"http://127.0.0.1:8080/link/s/{waits['actionId']}/accept/{waits['contactRef']}\n"
