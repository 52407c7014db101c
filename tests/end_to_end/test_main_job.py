"""The main job with everything that goes wrong: every message ends in the CRM once, or in the park."""

import os
from pathlib import Path

import anyio
import pytest

from flow.broker.url import BrokerUrl
from flow.demo.crm_server import CrmServer
from flow.demo.signatures import action, body, poison
from flow.parking import read_parked
from flow.plumbing.park import opened_park, parked_count
from tests.end_to_end.conftest import Flow, action_ids, holds, lines
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = pytest.mark.anyio

COUNT = int(os.environ.get("FLOW_TEST_SIGNATURES", "1500"))


@pytest.mark.timeout(300)
async def test_every_message_ends_once_in_the_crm_or_in_the_park(
    flow: Flow, crm: CrmServer, amqp_url: str, rabbitmq: RabbitMQControl, tmp_path: Path
) -> None:
    """Bad bytes, refusals for ever, failures that pass, and a connection closed in the middle."""
    url = BrokerUrl.parse(amqp_url)
    refused = set(range(50, COUNT + 1, 100))
    crm.faults.delay = 0.02
    crm.faults.invalid = {f"action-{number}": "no_such_country" for number in refused}
    crm.faults.busy = {f"action-{number}": 2 for number in range(7, COUNT + 1, 35)}
    bodies = [body(action(number)) for number in range(1, COUNT + 1)]
    bodies += [poison(number) for number in range(COUNT // 100)]
    file = tmp_path / "signatures.jsonl"
    file.write_bytes(lines([one for one in bodies if b"\n" not in one]))
    unreadable = len([one for one in bodies if b"\n" not in one]) - COUNT

    pushed = await flow("push", "deliver", "acme.system.action", str(file), "--lines", "--raw")
    running = await flow.run("pipelines.crm")
    with anyio.fail_after(240):
        await crm.until(lambda: len(crm.records) > COUNT // 3)
        await rabbitmq.close_all_connections()
        await crm.until(lambda: len(crm.records) == COUNT - len(refused))
        while await parked_count(url) < unreadable + len(refused):  # noqa: ASYNC110
            await anyio.sleep(0.2)
    memory = running.most_memory
    code = await running.stop()

    assert pushed.returncode == 0, pushed.stderr
    assert code == 0, running.lines
    assert action_ids(crm) == set(range(1, COUNT + 1)) - refused
    reasons = []
    async with opened_park(url, 65_535) as park:
        async for message in park.messages():
            reasons.append(read_parked(message).reason)
    assert reasons.count("the CRM calls it invalid: no_such_country") == len(refused)
    assert len(reasons) == unreadable + len(refused)
    account = running.account
    assert account["received"] == sum(account.values()) - account["received"]
    again = account["delivered"] - len(crm.records)
    assert 0 <= again <= account["stale"]
    assert sum(count - 1 for count in crm.effects.values()) == 0, "the memory answers what was lost"
    await holds(rabbitmq, amqp_url, "acme.crm", 0)
    await holds(rabbitmq, amqp_url, "system.retry", 0)
    assert memory < 150_000, "KiB, whatever the backlog"
