"""The stages that one engine is put together from."""

from collections.abc import Mapping
from dataclasses import dataclass

from flow.stages.acknowledger import Acknowledger
from flow.stages.books import Books
from flow.stages.deliverer import Deliverer
from flow.stages.gate import Gates
from flow.stages.holder import Holder
from flow.stages.pace import Pace
from flow.stages.parker import Parker
from flow.stages.processor import Processor
from flow.stages.suspects import Suspects


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """For those that look at all stages at once."""

    processor: Processor
    deliverers: Mapping[str, Deliverer]
    holder: Holder
    parker: Parker
    pace: Pace
    acknowledger: Acknowledger
    suspects: Suspects
    books: Books | None

    @property
    def running(self) -> int:
        """How many callbacks run now."""
        return self.processor.running + sum(one.running for one in self.deliverers.values())

    def gates(self) -> dict[str, Gates]:
        """Return the gates of all callbacks, by what the metrics call their target."""
        handler = "handle_message" if self.deliverers else "default"
        return {handler: self.processor.gates, **{name: one.gates for name, one in self.deliverers.items()}}
