"""What a person and the calling script learn of an error: one sentence and an exit code."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from flow.errors import (
    AccessDenied,
    CertificateRejected,
    ConfigError,
    FlowError,
    NotFound,
    TargetError,
    TopologyMismatch,
)
from flow.exits import CONFIGURATION, FAILED, USAGE

WRONG_SET_UP = (ConfigError, AccessDenied, NotFound, TopologyMismatch, CertificateRejected)
"""Trying again helps only after somebody has changed something."""


def first_of(error: BaseException) -> BaseException:
    """Return *error*, or the first error inside of a group."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def exit_code(error: BaseException) -> int:
    """Return the exit code for *error*: 78 when the set-up is wrong, 2 for wrong usage, else 1."""
    error = first_of(error)
    if isinstance(error, TargetError | click.UsageError):
        return USAGE
    return CONFIGURATION if isinstance(error, WRONG_SET_UP) else FAILED


def fail(error: BaseException) -> NoReturn:
    """Say the sentence of *error* on standard error and end with its exit code."""
    say(str(first_of(error)))
    sys.exit(exit_code(error))


def say(sentence: str) -> None:
    """Say *sentence* on standard error."""
    click.echo(f"flow: {sentence}", err=True)


class Guarded(click.Group):
    """A group whose commands end with one sentence for every error that flow knows."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Read the options of the group itself; an error of flow becomes its sentence and exit code."""
        with guarded():
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error of flow becomes its sentence and exit code."""
        with guarded():
            return super().invoke(ctx)


@contextmanager
def guarded() -> Iterator[None]:
    """End with one sentence for every error that flow knows, also from inside of task groups."""
    try:
        yield
    except (FlowError, OSError, BaseExceptionGroup) as error:
        first = first_of(error)
        if isinstance(first, FlowError):
            fail(first)
        if isinstance(first, OSError) and not isinstance(first, BrokenPipeError):
            where = f"{first.filename}: " if first.filename else ""
            say(f"{where}{first.strerror or type(first).__name__}")
            sys.exit(FAILED)
        raise first from None  # click knows what to do with a closed pipe or Ctrl-C
