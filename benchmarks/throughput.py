"""How many messages a second flow consumes as a whole, against its client library alone and FastStream.

    make bench   or   python benchmarks/throughput.py [--url URL] [--rounds 5] [--messages 60000] [--uvloop]

A durable classic queue is filled before each run. Every peer is a process of its own, decodes each body and
acknowledges each message; its clock runs from the first delivery to the last acknowledgement at the broker,
and the queue must be empty then. Peers take turns in shuffled order. Prints two tables.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import anyio
from bodies import KINDS, bodies
from filling import Filler, filler
from measured import QUEUE

from tests.nodes.rabbitmq_node import RabbitMQNode

HERE = Path(__file__).parent
LONGEST = 300.0  # seconds for one run
HEADINGS = "messages/s", "min – max", "× aiormq", "× FastStream", "CPU µs/message"


@dataclass(frozen=True)
class Peer:
    """One way to consume the queue."""

    name: str
    script: str
    prefetch: int
    keys: int = 40
    share: int = 1
    """A slow peer gets this fraction of the messages, so that each run takes about the same time."""


@dataclass(frozen=True)
class Figures:
    """What one run showed."""

    rate: float  # messages per second
    cpu: float  # microseconds per message


AIORMQ = Peer("aiormq, prefetch 500", "raw_aiormq", 500, share=4)
AIORMQ_100 = Peer("aiormq, prefetch 100", "raw_aiormq", 100, share=4)
FASTSTREAM = Peer("FastStream, prefetch 500", "faststream_subscriber", 500, share=8)
OTHERS = [AIORMQ, AIORMQ_100, FASTSTREAM]
LARGE = [Peer(f"flow, prefetch 500, {keys} keys", "whole_flow", 500, keys) for keys in (1, 40, 280)]
SMALL = [Peer(f"flow, prefetch 100, {keys} keys", "whole_flow", 100, keys) for keys in (40, 280)]
Results = dict[tuple[Peer, str], list[Figures]]


async def run(peer: Peer, kind: str, url: str, queue: Filler, options: argparse.Namespace) -> Figures:
    """Let *peer* consume a full queue.

    Raises:
        RuntimeError: it failed, or left messages behind.
    """
    count = options.messages // peer.share
    await queue.fill(bodies(kind, peer.keys), count)
    script = HERE / "peers" / f"{peer.script}.py"
    command = [sys.executable, str(script), QUEUE, str(count), str(peer.prefetch), kind]
    environment = {**os.environ, "AMQP_URL": url}
    with anyio.fail_after(LONGEST):
        ended = await anyio.run_process(
            [*command, "--uvloop"] if options.uvloop else command,
            env=environment,
            check=False,
            stderr=subprocess.PIPE,
        )
    left = await queue.count()
    if ended.returncode or left:
        said = ended.stderr.decode(errors="replace")[-2000:]
        raise RuntimeError(f"{peer.name} ended with {ended.returncode} and left {left} messages: {said}")
    report = json.loads(ended.stdout.splitlines()[-1])
    return Figures(count / report["seconds"], report["cpu"] / count * 1e6)


async def measure(url: str, options: argparse.Namespace) -> Results:
    """Let all peers take turns, in another order in each round."""
    runs = [(peer, kind) for kind in KINDS for peer in [*LARGE, *OTHERS]]
    runs += [(peer, "ids") for peer in SMALL]
    results: Results = {one: [] for one in runs}
    async with filler(url, QUEUE) as queue:
        print(f"{queue.broker}; Python {sys.version.split()[0]}, {os.cpu_count()} CPUs for both", flush=True)
        try:
            for number in range(options.rounds):
                for peer, kind in random.sample(runs, len(runs)):
                    figures = await run(peer, kind, url, queue, options)
                    results[peer, kind].append(figures)
                    if options.verbose:
                        print(number + 1, kind, peer.name, f"{figures.rate:.0f}", file=sys.stderr, flush=True)
        finally:
            await queue.delete()
    return results


def table(title: str, peers: list[Peer], kind: str, results: Results) -> None:
    """Print the medians of *peers*, against the faster of the aiormq rows and against FastStream."""
    aiormq = max(median(results[peer, kind]) for peer in (AIORMQ, AIORMQ_100))
    faststream = median(results[FASTSTREAM, kind])
    print(f"\n{title:28}" + "".join(f"{heading:>17}" for heading in HEADINGS))
    for peer in peers:
        rates = [figures.rate for figures in results[peer, kind]]
        rate, cpu = median(results[peer, kind]), statistics.median(one.cpu for one in results[peer, kind])
        spread = f"{min(rates):.0f} – {max(rates):.0f}"
        print(
            f"{peer.name:28}{rate:17.0f}{spread:>17}{rate / aiormq:17.1f}{rate / faststream:17.1f}{cpu:17.1f}"
        )


def median(figures: list[Figures]) -> float:
    """Return the median rate."""
    return statistics.median(one.rate for one in figures)


@asynccontextmanager
async def broker(url: str | None) -> AsyncIterator[str]:
    """Give the URL of the broker: the one named, or a node of our own while this lasts."""
    if url:
        yield url
        return
    async with RabbitMQNode() as node:
        yield node.url()


async def main(options: argparse.Namespace) -> None:
    """Measure and print."""
    async with broker(options.url) as url:
        results = await measure(url, options)
    for kind in KINDS:
        size = statistics.mean(map(len, bodies(kind, 40)))
        table(f"{kind}, {size:.0f} bytes", [*LARGE, *OTHERS], kind, results)
    table("ids, small window", [*SMALL, AIORMQ_100], "ids", results)


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", help="a broker to use (default: a private RabbitMQ node is started)")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each peer (default: 5)")
    parser.add_argument("--messages", type=int, default=60_000, help="for the fastest peers (default: 60000)")
    parser.add_argument("--uvloop", action="store_true", help="run every peer on uvloop")
    parser.add_argument("--verbose", action="store_true", help="show each run on stderr")
    return parser.parse_args()


if __name__ == "__main__":
    asked = options()
    if find_spec("faststream") is None:
        sys.exit(
            "FastStream is not installed here: run `make bench`, or install benchmarks/requirements.lock"
        )
    anyio.run(main, asked)
