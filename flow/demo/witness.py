"""What a pipeline decides of each message, noted beside it: a skipped message leaves no other trace."""

from collections import Counter
from types import new_class
from typing import Any

from flow.message import Message
from flow.outcome import Outcome, Skip
from flow.pipeline import Pipeline


class Witness:
    """Notes of one pipeline, by message id."""

    def __init__(self) -> None:
        self.skipped: dict[str, str] = {}
        """The reason of each that was skipped."""
        self.parked: set[str] = set()
        """Those that were to be parked."""
        self.retried: Counter[str] = Counter()
        """How often each was sent round the retry loop, or held for another attempt."""

    def watching(self, kind: type[Pipeline[Any, Any]]) -> type[Pipeline[Any, Any]]:
        """Return a subclass of *kind* that does the same and tells the witness.

        Its `handle_message` is a plain function.
        """
        witness = self

        def handle_message(self: Pipeline[Any, Any], message: Message[Any]) -> Any:
            try:
                return kind.handle_message(self, message)
            except Skip as skip:
                witness.skipped[message.message_id or ""] = skip.reason
                raise

        async def handle_failed(
            self: Pipeline[Any, Any], message: Message[Any], outcome: Outcome, reason: str
        ) -> None:
            witness.note(message.message_id or "", outcome)
            await kind.handle_failed(self, message, outcome, reason)

        body = {name: getattr(kind, name) for name in ("__module__", "__qualname__", "__doc__", "name")}
        body |= {"handle_message": handle_message, "handle_failed": handle_failed}
        return new_class(kind.__name__, (kind,), exec_body=lambda space: space.update(body))

    def note(self, one: str, outcome: Outcome) -> None:
        """Note that the message with the id *one* becomes retrying or parked."""
        if outcome is Outcome.PARKED:
            self.parked.add(one)
        else:
            self.retried[one] += 1
