"""Puts a copy of each hopeless message where its pipeline wants it: into the park, or into a folder."""

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.declaration import SPOOL
from flow.errors import BrokerError, PublishReturned
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.parking import park_id, parked_headers
from flow.pipeline import Pipeline
from flow.plumbing.spool import Spool
from flow.topology import PARK_EXCHANGE

log = logging.getLogger("flow")


class Copier:
    """Copies the messages of one pipeline; a copy is safe when the call returns."""

    def __init__(self, pipeline: Pipeline[Any, Any], url: BrokerUrl, metrics: PipelineMetrics) -> None:
        """Prepare for *pipeline*; nothing is opened before the first copy.

        Raises:
            ConfigError: its spool cannot be written.
        """
        self._pipeline = pipeline.name
        self._metrics = metrics
        self._publisher = Publisher(url, name=f"flow {pipeline.name} parking")
        self._spool = None
        if pipeline.park.startswith(SPOOL):
            self._spool = Spool(Path(pipeline.park.removeprefix(SPOOL)))

    async def copy(self, message: Message[Any], reason: str) -> None:
        """Copy *message*, and say so with the *reason*.

        Raises:
            BrokerError: it is not known to be safe.
        """
        now = datetime.now(UTC)
        headers = parked_headers(message, reason, self._pipeline, now)
        if self._spool is not None:
            await self._spool.put(message.queue, headers, message.raw)
            log.warning("parked %r at attempt %d: %s", message, message.attempt, reason)
            return
        message_id = uuid4().hex
        await self._publish(message, headers, message_id)
        name = park_id(message.queue, now, message_id, message.raw)
        log.warning("parked %r at attempt %d as %s: %s", message, message.attempt, name, reason)

    async def close(self) -> None:
        """Close the connection, if there is one. Never raises."""
        await self._publisher.close()

    async def _publish(self, message: Message[Any], headers: dict[str, str | int], message_id: str) -> None:
        published = self._metrics.published
        try:
            await self._publisher.publish(
                PARK_EXCHANGE, message.queue, message.raw, headers=headers, message_id=message_id
            )
        except BrokerError as error:
            published["returned" if isinstance(error, PublishReturned) else "failed"] += 1
            raise
        published["confirmed"] += 1
