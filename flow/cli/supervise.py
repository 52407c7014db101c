"""`--workers` and `--reload`: the command becomes the supervisor of processes that run it."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from flow.changes import changes
from flow.cli.envfile import files
from flow.supervisor import Plan, Supervisor

F = TypeVar("F", bound=Callable[..., Any])


def supervision(command: F) -> F:
    """Add `--workers` and `--reload`."""
    for option in (
        click.option(
            "--reload", is_flag=True, envvar="FLOW_RELOAD", help="Start again when Python files change."
        ),
        click.option(
            "--workers",
            type=click.IntRange(1),
            default=1,
            show_default=True,
            envvar="FLOW_WORKERS",
            help="Processes that share the queue; rate limits are divided by it.",
        ),
    ):
        command = option(command)
    return command


def supervised(options: dict[str, Any]) -> bool:
    """Tell whether *options* ask for a supervisor."""
    return bool(options["workers"] > 1 or options["reload"])


def supervise(options: dict[str, Any]) -> int:
    """Run this very command in worker processes; return the exit code.

    Raises:
        ConfigError: the endpoints cannot be served, or a library is missing.
    """
    read = files(click.get_current_context())
    environment = read.without  # workers read the files themselves, so that a reload reads them again
    changed = None
    if options["reload"]:
        changed = changes(Path.cwd(), read.paths)
        # Python would take a file that was changed twice within a second for the one it had compiled.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
    plan = Plan(
        command=[sys.executable, *sys.orig_argv[1:]],
        environment=environment,
        workers=options["workers"],
        shutdown_timeout=options["shutdown_timeout"],
        ops_host=options["ops_host"],
        ops_port=None if options["no_ops"] else options["ops_port"],
    )
    return anyio.run(Supervisor(plan, changed).run)
