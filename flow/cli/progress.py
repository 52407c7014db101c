"""What a person sees of a push while it runs: a bar on a terminal, else a line from time to time."""

import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import anyio
import click

from flow.cli.errors import say
from flow.plumbing.lines import Source
from flow.plumbing.push import Push

GLANCE = 0.1  # seconds between two looks, on a terminal
INTERVAL = 5.0  # seconds between two lines, elsewhere


class Progress:
    """The numbers of one push, and how far it is in its input."""

    def __init__(self, push: Push[Any], source: Source) -> None:
        self._push = push
        self._source = source
        self._start = time.monotonic()

    @property
    def rate(self) -> float:
        """Confirmed messages in a second, since the beginning."""
        return self._push.confirmed / max(time.monotonic() - self._start, 1e-3)

    @property
    def part(self) -> float | None:
        """How much of the input is done, from 0 to 1; None when nobody knows how long it is."""
        push, source = self._push, self._source
        if not source.size or not push.read:
            return None
        return min(1.0, source.consumed / source.size) * (push.confirmed + push.failed) / push.read

    @property
    def text(self) -> str:
        """The numbers in one line."""
        failed = f", failed {self._push.failed:,}" if self._push.failed else ""
        return f"pushed {self._push.pushed:,}, confirmed {self._push.confirmed:,}{failed}, {self.rate:,.0f}/s"


async def show(progress: Progress) -> None:
    """Show *progress* until cancelled."""
    if not sys.stderr.isatty():
        await tell_at_intervals(progress)
    elif find_spec("rich") is None:
        await overwrite(progress)
    else:
        await draw(progress)


async def draw(progress: Progress) -> None:
    """Draw a bar over itself; it is gone at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Bars(*columns, console=Console(stderr=True), transient=True) as bars:
        bar = bars.add_task(progress.text, total=None)
        await repeat(lambda: bars.update(bar, **shown(progress)), GLANCE)


def shown(progress: Progress) -> dict[str, Any]:
    """Return what a bar is told; without an end it moves to and fro."""
    part = progress.part
    known = {} if part is None else {"total": 1.0, "completed": part}
    return {"description": progress.text, **known}


async def overwrite(progress: Progress) -> None:
    """Write the numbers over themselves."""
    try:
        await repeat(lambda: click.echo(f"\r{progress.text}\033[K", nl=False, err=True), GLANCE)
    finally:
        click.echo("\r\033[K", nl=False, err=True)


async def tell_at_intervals(progress: Progress) -> None:
    """Say the numbers every 5 seconds."""
    await anyio.sleep(INTERVAL)
    await repeat(lambda: say(line(progress)), INTERVAL)


def line(progress: Progress) -> str:
    """Return the numbers, with the part that is done where that is known."""
    part = progress.part
    return progress.text if part is None else f"{progress.text}, {part:.0%}"


async def repeat(act: Callable[[], object], seconds: float) -> None:
    """Do something again and again."""
    while True:
        act()
        await anyio.sleep(seconds)
