"""Stores signatures in a local database: one transaction per campaign, with up to 100 of them in each."""

import sqlite3
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager, closing

from flow import Batch, Batching, Message, Pipeline, Skip
from flow.schema import ActionMessage


class Signatures(Pipeline[ActionMessage]):
    queue = "acme.crm"
    batching = Batching(size=100, timeout=2.0)

    @asynccontextmanager
    async def lifespan(self) -> AsyncIterator[None]:
        with closing(sqlite3.connect("signatures.db")) as self.database:
            self.database.execute(
                "create table if not exists signed (id integer primary key, campaign, country)"
            )
            yield

    def handle_message(self, message: Message[ActionMessage]) -> ActionMessage:
        if message.body.action.testing:
            raise Skip("a test action")
        return message.body

    def batch_key(self, message: Message[ActionMessage]) -> Hashable:
        return message.body.campaign.name

    def handle_batch(self, batch: Batch[ActionMessage]) -> None:
        rows = [(body.action_id, body.campaign.name, body.contact.country) for body in batch.bodies]
        with self.database:
            self.database.executemany("insert or ignore into signed values (?, ?, ?)", rows)
