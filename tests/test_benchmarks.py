"""The benchmark runs, with nothing but what its own lock file brings; what it measures is no test."""

import json
import os
import re
import sys
from pathlib import Path

import anyio
import pytest

from flow.demo.signatures import bodies
from tests.broker.queues import Queues

pytestmark = pytest.mark.anyio

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
LOCKED = re.findall(r"^([\w.-]+)==", (BENCHMARKS / "requirements.lock").read_text(), re.MULTILINE)
ONLY_WHAT_IS_LOCKED = """
import runpy, sys
from importlib.metadata import packages_distributions

class Missing:
    def __init__(self, names):
        self.names = names
    def find_spec(self, name, path=None, target=None):
        if name in self.names:
            raise ModuleNotFoundError(f"{name} is not in benchmarks/requirements.lock", name=name)

locked, script, *sys.argv[1:] = sys.argv[1:]
there = {name.replace("_", "-").lower() for name in locked.split()} | {"proca-flow"}
found = packages_distributions().items()
missing = {name for name, by in found if not there & {one.replace("_", "-").lower() for one in by}}
sys.meta_path.insert(0, Missing(missing))
sys.path[:0] = [script.rpartition("/")[0]]
runpy.run_path(script, run_name="__main__")
"""


async def run(script: str, *arguments: str, **variables: str) -> str:
    """Run a script of the benchmarks; return what it prints."""
    command = [sys.executable, "-c", ONLY_WHAT_IS_LOCKED, " ".join(LOCKED), str(BENCHMARKS / script)]
    ended = await anyio.run_process(
        [*command, *arguments],
        check=False,
        env={**os.environ, "PYTHONPATH": str(BENCHMARKS.parent), **variables},
    )
    assert ended.returncode == 0, ended.stderr.decode()
    return ended.stdout.decode()


async def test_what_starts_all_peers_needs_no_library_of_the_tests() -> None:
    assert "--rounds" in await run("throughput.py", "--help")


@pytest.mark.broker
@pytest.mark.parametrize("peer", ["whole_flow", "raw_aiormq"])
async def test_a_peer_empties_its_queue_and_reports(amqp_url: str, queues: Queues, peer: str) -> None:
    await queues.make("benchmark")
    await queues.fill("benchmark", bodies(range(20)))

    said = await run(f"peers/{peer}.py", "benchmark", "20", "10", "action", AMQP_URL=amqp_url)

    assert json.loads(said.splitlines()[-1])["seen"] == 20
    assert await queues.drain("benchmark") == []
