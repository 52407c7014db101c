"""What the ledger costs: flow without a database, with SQLite, and with PostgreSQL, in turns.

    python benchmarks/recording.py --url AMQP_URL [--postgresql URL] [--before TREE] [--rounds 5]

The queue is filled before each run; the clock runs from the first delivery to the last acknowledgement.
--before names another checkout of flow, which is measured without a database as well. Prints one table.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import anyio
from bodies import bodies
from filling import Filler, filler
from measured import QUEUE

HERE = Path(__file__).parent
KEYS = 40
LONGEST = 300.0  # seconds for one run


async def run(tree: Path, database: str, queue: Filler, options: argparse.Namespace) -> tuple[float, float]:
    """Let the flow of *tree* consume a full queue; return messages per second, and CPU µs of each.

    Raises:
        RuntimeError: it failed, or left messages behind.
    """
    await queue.fill(bodies("action", KEYS), options.messages)
    script = tree / "benchmarks" / "peers" / "whole_flow.py"
    command = [sys.executable, str(script), QUEUE, str(options.messages), str(options.prefetch), "action"]
    environment = {**os.environ, "AMQP_URL": options.url, "PYTHONPATH": str(tree)}
    if database:
        environment["FLOW_DATABASE_URL"] = database
    with anyio.fail_after(LONGEST):
        ended = await anyio.run_process(command, env=environment, check=False, stderr=subprocess.PIPE)
    if ended.returncode or await queue.count():
        raise RuntimeError(f"{tree} {database}: {ended.stderr.decode(errors='replace')[-2000:]}")
    report = json.loads(ended.stdout.splitlines()[-1])
    return options.messages / report["seconds"], report["cpu"] / options.messages * 1e6


async def main(options: argparse.Namespace) -> None:
    """Measure in shuffled turns and print medians."""
    tree = HERE.parent
    with tempfile.TemporaryDirectory() as folder:
        ways = {"no database": (tree, ""), "SQLite": (tree, f"sqlite:///{folder}/records.db")}
        if options.postgresql:
            ways["PostgreSQL"] = (tree, options.postgresql)
        if options.before:
            ways["before"] = (options.before, "")
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        async with filler(options.url, QUEUE) as queue:
            for _ in range(options.rounds):
                for name in random.sample(list(ways), len(ways)):
                    found[name].append(await run(*ways[name], queue, options))
            await queue.delete()
    print(f"{'full actions':16}{'messages/s':>14}{'min – max':>20}{'CPU µs/message':>18}")
    for name, figures in found.items():
        rates = [rate for rate, _ in figures]
        spread = f"{min(rates):.0f} – {max(rates):.0f}"
        cpu = statistics.median(cpu for _, cpu in figures)
        print(f"{name:16}{statistics.median(rates):14.0f}{spread:>20}{cpu:18.1f}")


def options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", required=True, help="a broker to use")
    parser.add_argument(
        "--postgresql", help="a database with the tables of the records (flow records migrate)"
    )
    parser.add_argument("--before", type=Path, help="another checkout to compare with")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--prefetch", type=int, default=500)
    return parser.parse_args()


if __name__ == "__main__":
    anyio.run(main, options())
