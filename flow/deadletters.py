"""Whether the queues of a pipeline have a dead-letter exchange, so that rejecting loses nothing."""

import logging
from typing import Any

from flow.pipeline import Pipeline
from flow.topology import has_retry_loop

log = logging.getLogger("flow")


def rejects(pipeline: Pipeline[Any, Any] | type[Pipeline[Any, Any]], queue: str) -> bool:
    """Tell whether retries of *pipeline* are rejected to the dead-letter exchange of *queue*.

    That there is one is known of the queues that `flow setup` and current servers declare.
    """
    return has_retry_loop(queue) if pipeline.dead_letter is None else pipeline.dead_letter == "assume"


def doubt(queue: str) -> str:
    """Say that nothing is known of the retry loop of *queue*, and what to do."""
    return (
        f"nothing tells that {queue} has a retry loop, so retries are held and made here; "
        "when it has one (flow setup --queue makes it), give --dead-letter assume"
    )


class DeadLetters:
    """What is known of it: AMQP does not show it."""

    def __init__(self, pipeline: Pipeline[Any, Any]) -> None:
        self._pipeline = pipeline
        self._doubtful: set[str] = set()

    def rejectable(self, queue: str) -> bool:
        """Tell whether *queue* has a dead-letter exchange; where nothing tells of one, it is said once."""
        pipeline = self._pipeline
        found = rejects(pipeline, queue)
        if not found and pipeline.dead_letter is None and queue not in self._doubtful:
            self._doubtful.add(queue)
            log.warning("%s: %s", pipeline.name, doubt(queue))
        return found
