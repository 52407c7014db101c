"""What flow's stages cost without a broker: CPU microseconds per message, for each kind and number of keys.

    python benchmarks/stages.py [--messages 200000] [--profile FILE]

The deliveries are real frames, cut and put together by flow's own tap and settled by its own settler; only
the socket and the broker are missing. Prints one table.
"""

import argparse
import asyncio
import cProfile
import gc
import time
from typing import Any

import anyio
from bodies import bodies
from measured import PIPELINES, QUEUE
from pamqp import commands, frame
from pamqp.body import ContentBody
from pamqp.header import ContentHeader

from flow.broker.tap import TapProtocol
from flow.message import Message
from flow.metrics import PipelineMetrics
from flow.stages.engine import Engine

CHANNEL = 1
BURST = 50  # deliveries in one read, as a local broker gives them


class Wire(asyncio.Transport):
    """A connection without a broker: gives deliveries as bytes while the window is open."""

    def __init__(self, kind: str, keys: int, count: int) -> None:
        super().__init__()
        self.writes = 0
        self._methods = [deliver(tag) for tag in range(1, count + 1)]
        self._contents = [content(body) for body in bodies(kind, keys)]
        self._sent = 0

    def read(self, room: int) -> bytes:
        """Return the frames of the next deliveries, at most *room*."""
        start = self._sent
        self._sent = stop = start + min(BURST, room)
        contents, count = self._contents, len(self._contents)
        methods = enumerate(self._methods[start:stop], start)
        return b"".join([method + contents[number % count] for number, method in methods])

    def write(self, data: Any) -> None:
        """Count what would be written to the broker."""
        self.writes += 1

    def is_closing(self) -> bool:
        """Return False: it never closes."""
        return False


def deliver(tag: int) -> bytes:
    """Return the method frame of the delivery *tag*."""
    method = commands.Basic.Deliver("consumer", tag, False, "", QUEUE)
    return frame.marshal(method, CHANNEL)


def content(body: bytes) -> bytes:
    """Return the content frames of *body*."""
    properties = commands.Basic.Properties(content_type="application/json", delivery_mode=1)
    header = ContentHeader(body_size=len(body), properties=properties)
    return frame.marshal(header, CHANNEL) + frame.marshal(ContentBody(body), CHANNEL)


async def measure(
    kind: str, keys: int, prefetch: int, count: int, profile: Any = None
) -> tuple[float, int, int]:
    """Return CPU seconds spent on *count* messages, the batches made, and the writes."""
    pipeline = PIPELINES[kind]()
    metrics = PipelineMetrics(pipeline.name, list(pipeline.batchings()))
    account = metrics.account(QUEUE)
    engine = Engine(pipeline, metrics, park)
    loop, wire = asyncio.get_running_loop(), Wire(kind, keys, count)
    tap = TapProtocol(asyncio.StreamReader(), loop, receive=engine.receive, ended=print, max_body=1 << 20)
    tap.connection_made(wire)
    consumer = tap.tap(CHANNEL).consumer(QUEUE, "consumer", prefetch)
    engine.origins = [consumer]
    gc.freeze()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.run)
        began = time.process_time()
        if profile:
            profile.enable()
        while account.delivered < count:
            if data := wire.read(prefetch - consumer.outstanding):
                tap.data_received(data)
            elif account.received == count:
                engine.deliverers["default"].flush()
            await asyncio.sleep(0)
        if profile:
            profile.disable()
        spent = time.process_time() - began
        await engine.drain(1.0)
    return spent, sum(metrics.batch_size["default"].counts), wire.writes


async def park(message: Message[Any], reason: str) -> None:
    """Park nothing: no message of these fails."""
    raise AssertionError(reason)


def main() -> None:
    """Measure every kind with one batch key, 40 and 280."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--messages", type=int, default=200_000, help="per line (default: 200000)")
    parser.add_argument("--prefetch", type=int, default=500)
    parser.add_argument("--kind", choices=list(PIPELINES))
    parser.add_argument("--keys", type=int)
    parser.add_argument("--profile", metavar="FILE", help="write a cProfile of all lines to FILE")
    options = parser.parse_args()
    profile = cProfile.Profile() if options.profile else None
    print(f"{'kind':8}{'keys':>6}{'CPU µs/message':>17}{'batches':>10}{'writes':>10}")
    for kind in [options.kind] if options.kind else PIPELINES:
        for keys in [options.keys] if options.keys else (1, 40, 280):
            seconds, batches, writes = anyio.run(
                measure, kind, keys, options.prefetch, options.messages, profile
            )
            print(f"{kind:8}{keys:6}{seconds / options.messages * 1e6:17.1f}{batches:10}{writes:10}")
    if profile:
        profile.dump_stats(options.profile)


if __name__ == "__main__":
    main()
