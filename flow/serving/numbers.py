"""What `flow serve` counts, and its form for Prometheus."""

from typing import Literal, Protocol, TypeAlias, get_args

from flow.histogram import CALLBACK, Histogram
from flow.links import VERBS, Verb
from flow.prometheus import Families, Family, Numbers, Rows, exposed, keyed, single
from flow.serving.desk import Outcome

Who: TypeAlias = Literal["supporter", "moderator", "program"]
Result: TypeAlias = Literal[
    "page", "decided", "late", "not_found", "expired", "unauthorized", "busy", "away", "failed"
]


class Backlog(Protocol):
    """Database and outbox as whoever publishes it sees them, such as a `Sweeper`."""

    down: str | None
    published: int
    waiting: int
    refused: int


class ServingNumbers:
    """What the links and the outbox behind them come to; no ids, no addresses."""

    def __init__(self, backlog: Backlog) -> None:
        """Start every number at 0; those of the outbox are the *backlog*'s."""
        self.link_requests: dict[Result, int] = dict.fromkeys(get_args(Result), 0)
        self.link_decisions: dict[tuple[Who, Verb, Outcome], int] = {
            (who, verb, outcome): 0
            for who in get_args(Who)
            for verb in VERBS
            for outcome in get_args(Outcome)
        }
        self.link_seconds = Histogram(CALLBACK)
        self._backlog = backlog

    @property
    def database_up(self) -> bool:
        """Whether the database answered when it was last asked."""
        return self._backlog.down is None

    @property
    def outbox_published(self) -> int:
        """How many messages this process has published."""
        return self._backlog.published

    @property
    def outbox_waiting(self) -> int:
        """How many messages wait in the outbox, whoever put them there."""
        return self._backlog.waiting

    @property
    def outbox_refused(self) -> int:
        """How many of these the broker would not take."""
        return self._backlog.refused

    def exposition(self, accept: str, loop_lag: Histogram) -> tuple[bytes, str]:
        """Return the numbers in the format that the *accept* header asks for, and their content type."""
        return exposed(Numbers(FAMILIES, self._rows, loop_lag), accept)

    def _rows(self, family: Family) -> Rows:
        return family.read(self, family.name)


FAMILIES = Families(
    counters=(
        Family(
            "link_requests",
            "Requests for links, by what was answered; busy: rate-limited.",
            keyed,
            ("result",),
        ),
        Family(
            "link_decisions",
            "Decisions by links; unchanged: made before, refused: made the other way before.",
            keyed,
            ("who", "verb", "outcome"),
        ),
        Family("outbox_published", "Messages published from the outbox by this process.", single),
    ),
    gauges=(
        Family("database_up", "Whether the database answered when it was last asked (1 or 0).", single),
        Family("outbox_waiting", "Messages that wait in the outbox, at the last look.", single),
        Family("outbox_refused", "Messages in the outbox that the broker did not take.", single),
    ),
    histograms=(
        Family("link_seconds", "Time until an answer was known, without the wait for the pace.", single),
    ),
)
