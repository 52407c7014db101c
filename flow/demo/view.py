"""How the story is shown: lines that can be kept, or on a terminal a table that stays in place."""

import os
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Protocol, TextIO

from flow.demo.meter import Reading, Row


class View(Protocol):
    """What the story is told to."""

    period: float
    """Seconds between two readings that it wants."""

    def begin(self) -> None:
        """Take the screen, if it does that."""

    def say(self, seconds: float, text: str) -> None:
        """Say what happened, so many *seconds* after the beginning."""

    def show(self, reading: Reading) -> None:
        """Show the figures."""

    def end(self) -> None:
        """Give the screen back; what is printed after it stays below. May be called again."""

    def print(self, lines: Iterable[str]) -> None:
        """Print *lines* as they are."""


class Lines:
    """Plain lines, for files, pipes and terminals that can do no more."""

    period = 1.0

    def __init__(self, write: Callable[[str], object]) -> None:
        """Hand each line to *write*."""
        self._write = write

    def begin(self) -> None:
        """Nothing is taken."""

    def say(self, seconds: float, text: str) -> None:
        """Write a line."""
        self._write(f"{seconds:6.1f} s  {text}")

    def show(self, reading: Reading) -> None:
        """Write the figures as one line."""
        pace = sum(row.rate or 0.0 for row in reading.rows if row.figure.main)
        counts = ", ".join(map(counted, reading.rows))
        self.say(reading.seconds, f"{reading.state}, {pace:.0f} a second: {counts}")

    def end(self) -> None:
        """Nothing was taken."""

    def print(self, lines: Iterable[str]) -> None:
        """Write the lines."""
        for line in lines:
            self._write(line)


def counted(row: Row) -> str:
    """Say how many went through, or where none does, how many are there."""
    figure = row.figure
    return f"{figure.name} {figure.now if figure.total is None else figure.total}"


def view_for(stream: TextIO, write: Callable[[str], object], *, plain: bool) -> View:
    """Return a live view for a terminal on which rich can draw, else lines, and lines when *plain*."""
    capable = stream.isatty() and os.environ.get("TERM", "dumb") not in ("", "dumb", "unknown")
    capable = capable and (stream.encoding or "").lower().startswith("utf")
    if plain or not capable or find_spec("rich") is None:
        return Lines(write)
    from flow.demo.screen import Screen

    return Screen(stream)
