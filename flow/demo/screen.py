"""The live view on a terminal: what happened scrolls by above, the figures stay in place below."""

from collections.abc import Iterable
from math import ceil
from textwrap import wrap
from typing import TYPE_CHECKING, TextIO

from flow.demo.meter import Reading, Row

if TYPE_CHECKING:
    from rich.console import RenderableType

BARS = " ▁▂▃▄▅▆▇█"
TRENDS = ((100, 30), (76, 16), (0, 0))  # from which width of the terminal on how many points are shown


class Screen:
    """Draws with rich; without colours where NO_COLOR is set."""

    period = 0.25

    def __init__(self, stream: TextIO) -> None:
        """Draw on the terminal that *stream* leads to."""
        from rich.console import Console
        from rich.live import Live

        self._console = Console(file=stream, highlight=False, emoji=False, markup=False)
        self._size = self._console.size
        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")

    def begin(self) -> None:
        """Take the bottom of the terminal."""
        self._live.start()

    def say(self, seconds: float, text: str) -> None:
        """Print above the figures; what is too long goes on below the text."""
        margin = f"{seconds:6.1f} s  "
        width = max(len(margin) + 10, self._console.width)
        for line in wrap(text, width, initial_indent=margin, subsequent_indent=" " * len(margin)):
            self._console.print(line, no_wrap=True, crop=True)

    def show(self, reading: Reading) -> None:
        """Draw the figures in place of those before; in a terminal of another size from its top on."""
        if self._console.size != self._size:
            self._size = self._console.size
            self._console.clear()
        self._live.update(self._drawn(reading), refresh=True)

    def end(self) -> None:
        """Leave the last figures as they are and give the terminal back."""
        self._live.stop()

    def print(self, lines: Iterable[str]) -> None:
        """Print *lines*; words that are too long for the terminal wrap as it does."""
        for line in lines:
            self._console.print(line, soft_wrap=True)

    def _drawn(self, reading: Reading) -> "RenderableType":
        from rich import box
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        table = Table(box=box.SIMPLE_HEAD, expand=True, pad_edge=False, show_edge=False)
        state = Text(reading.state, style="green" if reading.well else "yellow")
        table.add_column(Text("flow demo · ") + state, no_wrap=True, overflow="ellipsis", ratio=3)
        for name in ("now", "total", "a second"):
            table.add_column(name, justify="right", no_wrap=True, width=8)
        points = next(points for width, points in TRENDS if self._console.width >= width)
        if points:
            table.add_column("", no_wrap=True, width=points, style="cyan")
        for row in reading.rows:
            figure = row.figure
            cells = [
                figure.name,
                number(figure.now),
                number(figure.total),
                "" if row.rate is None else f"{row.rate:.0f}",
                trend(row, points),
            ]
            table.add_row(*(cells if points else cells[:-1]))
        notes = [Text(note, style="dim", no_wrap=True, overflow="ellipsis") for note in reading.notes]
        return Group(Text(), table, *notes)


def number(value: int | None) -> str:
    """Return *value* as it is shown; nothing for None."""
    return "" if value is None else str(value)


def trend(row: Row, points: int) -> str:
    """Draw the last *points* rates of a row, the highest of all its rates as a full bar."""
    if row.rate is None:
        return ""
    top = max(row.trend, default=0.0)
    bars = (BARS[ceil(rate / top * (len(BARS) - 1))] for rate in row.trend[-points:] if top)
    return "".join(bars).rjust(points)
