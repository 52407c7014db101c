"""The pipelines that are measured: typed bodies, async handler, batches by key, and no target."""

from collections.abc import Hashable

from flow import Batch, Batching, Message, Pipeline
from flow.schema import ActionMessage, IdsMessage

QUEUE = "benchmark"


class Ids(Pipeline[IdsMessage]):
    """Batches ids and delivers them nowhere."""

    queue = QUEUE
    dead_letter = "assume"
    batching = Batching(size=100, timeout=1.0)

    async def handle_message(self, message: Message[IdsMessage]) -> IdsMessage:
        return message.body

    def batch_key(self, message: Message[IdsMessage]) -> Hashable:
        return message.body.action_page_id, message.body.org_id

    async def handle_batch(self, batch: Batch[IdsMessage]) -> None:
        pass


class Action(Pipeline[ActionMessage]):
    """Batches full actions and delivers them nowhere."""

    queue = QUEUE
    dead_letter = "assume"
    batching = Batching(size=100, timeout=1.0)

    async def handle_message(self, message: Message[ActionMessage]) -> ActionMessage:
        return message.body

    def batch_key(self, message: Message[ActionMessage]) -> Hashable:
        return message.body.action_page_id, message.body.org_id

    async def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        pass


PIPELINES = {"ids": Ids, "action": Action}
