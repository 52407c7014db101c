"""The row that a decision becomes in the ledger."""

import logging
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from flow.ledger import LONGEST_REASON, Row, clean, digest
from flow.message import Message
from flow.outcome import Decision

log = logging.getLogger("flow")


def row(
    pipeline: str, message: Message[Any], decision: Decision, *, claim: str | None, unsettled: bool
) -> Row:
    """Return what is written down of the *decision* about *message*, as of now."""
    return Row(
        pipeline=pipeline,
        queue=clean(message.queue) or "",
        identity=digest(message.identity()),
        record_id=clean(message.record_id),
        attempt=message.attempt,
        outcome=decision.outcome,
        reason=clean(decision.reason, LONGEST_REASON) or "",
        after=decision.after,
        target_id=clean(called(message)),
        at=datetime.now(UTC),
        unsettled=unsettled,
        claim=claim,
    )


def called(message: Message[Any]) -> str | None:
    """Return what the target calls the record of *message*: it is delivered, whatever was set there."""
    name: object = message.target_id
    if name is None or isinstance(name, str | int | UUID):
        return None if name is None else str(name)
    log.error("the target_id of %r is no str (%s): the ledger keeps none", message, type(name).__name__)
    return None
