"""Flags, variables and defaults in the documents are those of the commands and of settings."""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from importlib import import_module
from pathlib import Path

import click
import pytest

from flow.cli import COMMANDS
from flow.settings import Settings
from pipelines.confirm import ConfirmSettings
from pipelines.crm import CrmSettings
from pipelines.moderate import ModerateSettings
from pipelines.sqs import SqsSettings
from pipelines.thank_you import ThankYouSettings
from pipelines.webhook import WebhookSettings
from tests.test_docs import DOCUMENTS, FLAG, OPERATIONS, ROOT, commands, default_of, name_of, table

MAIN = import_module("flow.cli").main
CODE = re.compile(r"```(?:python|json).*?```|```\w*\n(.*?)```|`([^`\n]+)`", re.DOTALL)
COMMAND = re.compile(r"(?<![\w./-])flow((?: +--env-file \S+)?(?: +[a-z]+){1,2})([^\n|;#&]*)")
SETTINGS: dict[str, list[type[Settings]]] = {
    "crm-api.md": [CrmSettings],
    "webhook.md": [WebhookSettings],
    "sqs.md": [SqsSettings],
    "mail.md": [ConfirmSettings, ThankYouSettings],
    "moderation.md": [ModerateSettings],
}


def flags_of(command: click.Command) -> set[str]:
    """Return the flags of a *command*, and those that stand before it."""
    options = (*command.params, *MAIN.params)
    return {flag for one in options for flag in (*one.opts, *one.secondary_opts)} | {"--help"}


def called(text: str) -> Iterator[tuple[click.Command, str, str]]:
    """Yield each command that a piece of code calls, its name, and what follows it."""
    for words, rest in COMMAND.findall(text):
        command: click.Command = MAIN
        path: list[str] = []
        for word in re.sub(r"--env-file \S+", "", words).split():
            if not isinstance(command, click.Group):
                break
            found = command.get_command(click.Context(command), word)
            assert found is not None, f"flow {' '.join(path)} has no command {word}"
            command = found
            path.append(word)
        yield command, " ".join(path), words + rest


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_commands_are_called_with_flags_that_they_have(path: Path) -> None:
    for block, span in CODE.findall(path.read_text()):
        for command, name, rest in called(block.replace("\\\n", " ") or span):
            assert set(FLAG.findall(rest)) <= flags_of(command), f"flow {name}: {rest}"


def test_every_option_says_what_it_is_for() -> None:
    silent = [
        f"{command.name} {one.opts[0]}"
        for command in (MAIN, *commands(MAIN, click.Context(MAIN)))
        for one in command.params
        if isinstance(one, click.Option) and not one.help
    ]

    assert silent == []


def test_every_command_is_listed_with_a_whole_sentence() -> None:
    cut = [
        f"{command.name}: {text}"
        for command in commands(MAIN, click.Context(MAIN))
        if not (text := command.get_short_help_str(limit=60)).endswith(".") or text.endswith("...")
    ]

    assert [one for one in cut if one.partition(":")[0] not in COMMANDS] == []


def test_every_option_is_named_in_the_documents() -> None:
    text = "".join(path.read_text() for path in DOCUMENTS)
    flags = {
        flag
        for command in commands(MAIN, click.Context(MAIN))
        for one in command.params
        if isinstance(one, click.Option)
        for flag in one.opts
    }

    assert sorted(flags - set(FLAG.findall(text)) - {"--help"}) == []


def test_every_flag_of_verify_is_described() -> None:
    rows = table(OPERATIONS.read_text(), "`flow verify`")
    described = [flag for row in rows for flag in FLAG.findall(row[0])]

    verify = MAIN.get_command(click.Context(MAIN), "verify")
    options = [one for one in verify.params if isinstance(one, click.Option)]
    assert sorted([*described, "--env-file"]) == sorted(one.opts[0] for one in options)


def test_every_flag_of_the_demo_is_described_with_its_variable_and_default() -> None:
    rows = table(OPERATIONS.read_text(), "`flow demo`")

    demo = MAIN.get_command(click.Context(MAIN), "demo")
    options = [one for one in demo.params if isinstance(one, click.Option)]
    assert [(row[0], row[1]) for row in rows] == [
        (f"`{one.opts[0]}`", f"`FLOW_DEMO_{one.opts[0][2:].upper().replace('-', '_')}`") for one in options
    ]
    assert [row[2] for row in rows if row[0] != "`--seconds`"] == [
        default_of(one) for one in options if one.opts[0] != "--seconds"
    ]


@pytest.mark.parametrize("page", SETTINGS)
def test_the_settings_of_a_pipeline_are_described_with_their_defaults(page: str) -> None:
    rows = table((ROOT / "docs" / page).read_text(), "Settings")
    told = {name: row for row in rows for name in re.findall(r"`([A-Z_]+)`", row[0])}

    known = {
        f"{cls.prefix}_{field.name.upper()}": field.default for cls in SETTINGS[page] for field in fields(cls)
    }
    variables = set(told) - {f"{name}_FILE" for name in known}
    assert sorted(variables | {"CRM_KEYS"} & set(known)) == sorted(known)  # keys are always a file
    for name in variables:
        cells, default = told[name][1:], known[name]
        if isinstance(default, bool | int | float | str) and "as in" not in cells[0]:
            assert written(default) in {cell.strip("`") for cell in cells}, name
        else:
            assert not any(re.fullmatch(r"`?[\d.]+`?", cell) for cell in cells), name


def test_the_extras_are_those_of_the_distribution() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "README.md").read_text()

    told = [row[0].strip("`") for row in table(text, "In a project of your own")]
    assert sorted(told) == sorted(project["optional-dependencies"])
    assert re.findall(r"'([\w-]+)\[", text) == [project["name"]] * 2


def written(default: float | str) -> str:
    """Return a default as the documents write it."""
    if isinstance(default, bool):
        return str(default).lower()
    return default if isinstance(default, str) else f"{default:.15g}"
