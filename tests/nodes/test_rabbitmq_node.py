"""The private node: it keeps to itself, and nothing of it stays behind."""

import json
import sys
from pathlib import Path

import anyio
import pytest

from flow.errors import BrokerError
from tests.broker.queues import until
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

# Starts a node, tells of it, and waits to be killed.
STARTER = """
import anyio, json
from tests.nodes.rabbitmq_node import RabbitMQNode

async def main():
    async with RabbitMQNode() as node:
        print(json.dumps({"folder": str(node.folder), "pid": node.pid}), flush=True)
        await anyio.sleep_forever()

anyio.run(main)
"""


def runs(pid: int) -> bool:
    """Whether a process runs; one that has ended and is not taken leave of does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks at processes through /proc")
async def test_node_ends_with_the_process_that_started_it() -> None:
    """Even when that one is killed and cannot clear up."""
    async with await anyio.open_process([sys.executable, "-c", STARTER], stderr=None) as starter:
        assert starter.stdout is not None
        with anyio.fail_after(90):
            told = json.loads(await starter.stdout.receive())
            assert runs(told["pid"])

            starter.kill()
            await until(lambda: not runs(told["pid"]))
            await until(lambda: not Path(told["folder"]).exists())


async def test_node_that_cannot_start_says_why_and_leaves_nothing() -> None:
    node = RabbitMQNode(config="no.such.option = 1")

    with pytest.raises(BrokerError, match=r"ended while it started: .*no\.such\.option"):
        async with node:
            pass

    assert not node.folder.exists()


async def test_failing_command_tells_why(rabbitmq: RabbitMQControl) -> None:
    with pytest.raises(BrokerError, match="no_such_command"):
        await rabbitmq.ctl("no_such_command")
    with pytest.raises(BrokerError, match="badarith"):
        await rabbitmq.evaluate("1 / 0")
