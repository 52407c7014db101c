"""Whether the queues of a pipeline have a dead-letter exchange, so that rejecting loses nothing."""

import logging
from typing import Any

from flow.pipeline import Pipeline
from flow.topology import has_retry_loop

log = logging.getLogger("flow")


class DeadLetters:
    """What is known of it: AMQP does not show it."""

    def __init__(self, pipeline: Pipeline[Any, Any]) -> None:
        self._pipeline = pipeline
        self._doubtful: set[str] = set()

    def rejectable(self, queue: str) -> bool:
        """Tell whether *queue* has a dead-letter exchange.

        It is known of the queues that `flow setup` and current servers declare; of any other one it is said
        once that it is not.
        """
        pipeline = self._pipeline
        if pipeline.dead_letter is not None:
            return pipeline.dead_letter == "assume"
        if has_retry_loop(queue):
            return True
        if queue not in self._doubtful:
            self._doubtful.add(queue)
            log.warning(
                "%s: nothing tells that %s has a retry loop, so retries are held and made here; "
                'when it has one (flow setup --queue makes it), set dead_letter = "assume"',
                pipeline.name,
                queue,
            )
        return False
