"""The figures that are shown while it runs, read from what flow, the broker and the CRM count themselves."""

import time
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SPAN = 1.0  # seconds over which a rate is taken
STEP = 0.5  # seconds between two points of a trend
POINTS = 60  # of a trend


@dataclass(frozen=True, slots=True)
class Figure:
    """One place on the way of a message: how many are there now, and how many went through."""

    name: str
    now: int | None = None
    total: int | None = None
    main: bool = False
    """Whether its rate stands for the whole."""


@dataclass(frozen=True, slots=True)
class Row:
    """A figure, and how it changes."""

    figure: Figure
    rate: float | None
    """Messages per second through it, over the last second; None where nothing goes through."""
    trend: Sequence[float]
    """Its rates until now, one for each half second."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Everything that is shown of one moment."""

    seconds: float
    """Since the beginning."""
    state: str
    """In a few words."""
    well: bool
    """Whether that is as it should be."""
    rows: Sequence[Row]
    notes: Sequence[str]
    """Sentences below the rows."""


class Meter:
    """Reads the figures, and their rates from what it read before."""

    def __init__(
        self,
        figures: Callable[[], Sequence[Figure]],
        state: Callable[[], tuple[str, bool]],
        notes: Callable[[], Sequence[str]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask the three functions at each reading; *state* also whether it is as it should be."""
        self._figures = figures
        self._state = state
        self._notes = notes
        self._clock = clock
        self._began = clock()
        self._past: deque[tuple[float, dict[str, int]]] = deque()
        self._trends: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=POINTS))
        self._point = self._began

    @property
    def seconds(self) -> float:
        """Seconds since the beginning."""
        return self._clock() - self._began

    def read(self) -> Reading:
        """Return the figures of this moment."""
        now, figures = self._clock(), self._figures()
        totals = {figure.name: figure.total for figure in figures if figure.total is not None}
        while len(self._past) > 1 and now - self._past[1][0] >= SPAN:
            self._past.popleft()
        since, before = self._past[0] if self._past else (now, totals)
        rates = {
            name: max(0.0, (total - before.get(name, 0)) / (now - since)) if now > since else 0.0
            for name, total in totals.items()
        }
        self._past.append((now, totals))
        if now - self._point >= STEP:
            self._point = now
            for name, rate in rates.items():
                self._trends[name].append(rate)
        rows = [Row(one, rates.get(one.name), tuple(self._trends[one.name])) for one in figures]
        return Reading(now - self._began, *self._state(), rows, self._notes())
