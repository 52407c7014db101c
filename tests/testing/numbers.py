"""A pipeline that delivers numbers in batches, for tests of what its users are told of them."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec

from flow.batch import Batch
from flow.batching import Batching
from flow.message import Message
from flow.pipeline import Pipeline

GENEROUS = 30.0  # seconds, of a slow machine; what is tested with it would take hours


class Number(msgspec.Struct):
    """What the messages hold."""

    n: int


class Numbers(Pipeline[Number, int]):
    """Keeps the numbers of each batch."""

    queue = "numbers"
    concurrency = 1
    batching = Batching(size=2, timeout=0.2)

    def __init__(self) -> None:
        super().__init__()
        self.handled: list[int] = []
        self.batches: list[list[int]] = []

    async def handle_message(self, message: Message[Number]) -> int:
        self.handled.append(message.body.n)
        return message.body.n

    async def handle_batch(self, batch: Batch[int]) -> None:
        self.batches.append(batch.bodies)


def numbers(*values: int) -> list[Number]:
    """Return the bodies with these numbers."""
    return [Number(value) for value in values]


@contextmanager
def quickly() -> Iterator[None]:
    """Fail when the block takes longer than even a slow machine would need."""
    began = time.monotonic()
    yield
    assert time.monotonic() - began < GENEROUS
