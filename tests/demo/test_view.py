"""How it is shown: lines where nobody looks, and a table that keeps its place where somebody does."""

import io
import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from flow.demo.meter import Figure, Reading, Row
from flow.demo.screen import Screen, trend
from flow.demo.view import Lines, view_for

READING = Reading(
    2.0,
    "the CRM is down",
    False,
    [
        Row(Figure("published", None, 1234), 56.0, [0.0, 1.0, 50.0, 100.0]),
        Row(Figure("in acme.crm", 7), None, []),
        Row(Figure("delivered to the CRM", None, 12, main=True), 3.4, []),
    ],
    [
        "batches: 2 by size, 1 by timeout; 80.0 messages, 20 ms each and a tail that no terminal has room for"
        * 3
    ],
)


@contextmanager
def terminal(encoding: str = "utf-8") -> Iterator[io.TextIOWrapper]:
    """A pseudo terminal to write to."""
    controller, device = os.openpty()
    with os.fdopen(controller, "rb"), os.fdopen(device, "w", encoding=encoding) as stream:
        yield stream


def test_lines_tell_the_figures_in_words() -> None:
    written: list[str] = []
    lines = Lines(written.append)

    lines.begin()
    lines.say(1.0, "the CRM is down for 2 s")
    lines.show(READING)
    lines.end()
    lines.print(["", "the end"])

    assert written == [
        "   1.0 s  the CRM is down for 2 s",
        "   2.0 s  the CRM is down, 3 a second: published 1234, in acme.crm 7, delivered to the CRM 12",
        "",
        "the end",
    ]


@pytest.mark.parametrize(
    ("term", "plain", "live"), [("xterm", False, True), ("dumb", False, False), ("xterm", True, False)]
)
def test_a_terminal_gets_the_live_view_unless_it_cannot_or_shall_not(
    monkeypatch: pytest.MonkeyPatch, term: str, plain: bool, live: bool
) -> None:
    monkeypatch.setenv("TERM", term)
    with terminal() as stream:
        assert isinstance(view_for(stream, print, plain=plain), Screen) is live
    assert isinstance(view_for(io.StringIO(), print, plain=False), Lines)


def test_a_terminal_that_knows_ascii_alone_gets_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with terminal(encoding="ascii") as stream:
        assert isinstance(view_for(stream, print, plain=False), Lines)


@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_of_the_table_wraps(monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    written = io.StringIO()
    screen = Screen(written)

    screen.begin()
    screen.show(READING)
    screen.end()

    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert len([line for line in lines if line.strip()]) == 2 + len(READING.rows) + len(READING.notes)


def test_long_sentences_go_on_below_their_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    written = io.StringIO()

    Screen(written).say(12.0, "the network drops the connection just before an acknowledgement arrives")

    assert [line.rstrip() for line in written.getvalue().splitlines()] == [
        "  12.0 s  the network drops the",
        "          connection just before an",
        "          acknowledgement arrives",
    ]


def test_a_trend_is_drawn_against_its_highest_rate() -> None:
    assert trend(READING.rows[0], 6) == "   ▁▄█"
    assert trend(Row(Figure("parked", 0, 0), 0.0, [0.0, 0.0]), 2) == "  "
    assert trend(READING.rows[1], 6) == ""
