"""Tells what was not confirmed, and keeps it in a file that can be pushed again."""

import time
from pathlib import Path
from typing import BinaryIO

import click

from flow.cli.errors import exit_code, say
from flow.cli.private import new_file
from flow.errors import DecodeError
from flow.exits import FAILED
from flow.plumbing.push import Outgoing, Push, Unconfirmed
from flow.plumbing.report import written

TOLD = 10  # failed lines that are told one by one


class Report:
    """The file of one push: the one that was asked for, or else a new one in the current folder."""

    def __init__(self, path: Path | None, *, by_line: bool) -> None:
        """Create the file at *path*; without one it is created when there is something to keep.

        Raises:
            click.UsageError: it exists already, or cannot be created.
        """
        self._asked_for = path is not None
        self._path = path or Path(time.strftime("flow-push-%Y%m%d-%H%M%S.unconfirmed.jsonl"))
        self._by_line = by_line
        self._file: BinaryIO | None = new_file(self._path) if path else None
        self._lost = False
        self._told = 0
        self._malformed = 0  # failed before anything was sent, and would again
        self.unconfirmed = 0
        """How many messages are kept."""

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no empty file behind."""
        if self._file is not None:
            self._file.close()
            if not self.unconfirmed:
                self._path.unlink()

    def failed(self, unconfirmed: Unconfirmed[Outgoing]) -> None:
        """Tell the first few errors, each with its line and never with its body."""
        self._told += 1
        self._malformed += isinstance(unconfirmed.error, DecodeError)
        if self._told <= TOLD:
            where = f"line {unconfirmed.number}: " if self._by_line else ""
            say(f"{where}{unconfirmed.error}")
        self.keep(unconfirmed)

    def keep(self, unconfirmed: Unconfirmed[Outgoing]) -> None:
        """Write a message that is not known to be confirmed."""
        self.unconfirmed += 1
        file = self._opened()
        if file is not None:
            file.write(written(unconfirmed) + b"\n")

    def close(self, push: Push[Outgoing], seconds: float, *, repeatable: bool) -> int:
        """Say how it ended; return the exit code. What came from a *repeatable* input is there still."""
        if self._told > TOLD:
            say(f"{self._told - TOLD} more lines failed")
        if push.fault:
            say(str(push.fault))
        # What was not begun can be pushed whole from where it came.
        begun = push.confirmed or push.unanswered or any(one.may_have_arrived for one in push.unconfirmed())
        if self.unconfirmed and (begun or self._asked_for or (self._by_line and not repeatable)):
            self._say_where(push)
        elif self.unconfirmed:
            self._discard()
        rate = push.confirmed / seconds if seconds else 0
        click.echo(f"pushed {push.pushed}, confirmed {push.confirmed} in {seconds:.1f} s ({rate:.0f}/s)")
        if push.fault:
            return exit_code(push.fault)
        return FAILED if push.failed or push.stopped else 0

    def _say_where(self, push: Push[Outgoing]) -> None:
        unanswered = push.unanswered + sum(one.may_have_arrived for one in push.unconfirmed())
        what = "line" if self._by_line else "message"
        count = f"1 {what} is" if self.unconfirmed == 1 else f"{self.unconfirmed} {what}s are"
        doubt = f", {unanswered} of them may have arrived" if unanswered else ""
        if self._file is None:
            say(f"{count} not known to be confirmed{doubt}")
        else:
            again = f"push them again with flow push --again {self._path}"
            if self._malformed == self.unconfirmed:
                again = f"correct them, or push them as they are with flow push --raw --again {self._path}"
            elif self._malformed:
                again += (
                    f"; {self._malformed} of them must be corrected before, or pushed as they are with --raw"
                )
            say(f"{count} not known to be confirmed{doubt}: {again}")

    def _opened(self) -> BinaryIO | None:
        if self._file is None and not self._lost:
            try:
                self._file = new_file(self._path)
            except click.UsageError as error:
                self._lost = True
                say(f"{error.message}: what is not confirmed is kept nowhere")
        return self._file

    def _discard(self) -> None:
        if self._by_line:
            correct = "correct what is wrong in it, then " if self._malformed else ""
            say(f"nothing was pushed: {correct}the whole input can be pushed again")
        self.unconfirmed = 0
