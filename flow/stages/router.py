"""Puts handled messages into the batch that is for them."""

from collections.abc import Hashable, Mapping
from typing import Any

from flow.errors import ConfigError
from flow.message import Message, State
from flow.pipeline import Pipeline
from flow.stages.deliverer import Deliverer


class Router:
    """Asks a pipeline for the batcher and the key of each message."""

    def __init__(self, pipeline: Pipeline[Any, Any], deliverers: Mapping[str, Deliverer]) -> None:
        self._pipeline = pipeline
        self._deliverers = deliverers
        chooses = type(pipeline).batcher is not Pipeline.batcher
        self._only = None if chooses else next(iter(deliverers.values()), None)
        self._keyed = type(pipeline).batch_key is not Pipeline.batch_key

    def forward(self, message: Message[Any], body: Any) -> None:
        """Put *message*, of which handling made *body*, into the open batch of its key.

        Raises what the small callbacks raise.
        """
        pipeline = self._pipeline
        if body is None:
            name = type(pipeline).__name__
            raise ConfigError(
                f"{name}.handle_message returned None; return what the batch needs or raise Skip"
            )
        message.body = body
        deliverer = self._only or self._chosen(message)
        key: Hashable = pipeline.batch_key(message) if self._keyed else None
        weight = 0 if deliverer.options.weight is None else deliverer.options.weigh(message)
        if message.state is not State.RUNNING:  # a drain gave it back, and its handler went on nevertheless
            return
        if not message.origin.alive:
            hash(key)  # nothing may fail once another delivery took its place
            living = message.living()
            if living is None:
                return  # its redelivery is handled again
            message = living
        deliverer.put(message, key, weight)

    def _chosen(self, message: Message[Any]) -> Deliverer:
        name = self._pipeline.batcher(message)
        if name not in self._deliverers:
            known = ", ".join(self._deliverers)
            raise ConfigError(f"{type(self._pipeline).__name__}.batcher returned {name!r}; known are {known}")
        return self._deliverers[name]
