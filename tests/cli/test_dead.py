import json
import signal
import stat
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from flow.broker.publisher import Publisher
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.message import Message
from flow.plumbing.setup import set_up, topology_for
from flow.plumbing.spool import Spool, spooled
from flow.topology import DEAD_QUEUE
from tests.cli.conftest import Ended, answered, end_of, run_flow, start_flow, until_ready

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

NOW = datetime(2024, 5, 1, 12, 0, tzinfo=UTC)
BODY = b'{"schema": "proca:action:2", "actionId": 7, "contact": {"email": "alice@example.org"}}'


@pytest.fixture(autouse=True)
async def plumbing(url: BrokerUrl) -> None:
    await set_up(url, topology_for(["acme", "other"], retry_delay=0.2))


async def park(publisher: Publisher, body: bytes = BODY, queue: str = "acme.crm", **texts: str | int) -> None:
    headers: dict[str, str | int] = {
        "x-flow-queue": queue,
        "x-flow-pipeline": "Crm",
        "x-flow-attempts": 10,
        "x-flow-reason": "the CRM refused it for ever",
        "x-flow-parked-at": NOW.isoformat(),
        "x-flow-exchange": "deliver",
        "x-flow-routing-key": "acme.system.action",
    }
    headers |= {f"x-flow-{name}": text for name, text in texts.items()}
    await publisher.publish("system.park", "", body, headers=headers)


async def rows(amqp_url: str, *arguments: str) -> list[dict[str, Any]]:
    """Return what `flow dead list --json` tells."""
    ended = await run_flow("dead", "list", "--json", *arguments, url=amqp_url)
    assert ended.code == 0, ended.err
    return [json.loads(line) for line in ended.out.splitlines()]


async def test_parked_messages_are_listed_without_their_bodies(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    await park(publisher)

    listed = await run_flow("dead", "list", url=amqp_url)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)
    [row] = await rows(amqp_url)

    head, line = listed.out.splitlines()
    assert (listed.code, listed.err) == (0, "")
    assert head.split() == ["ID", "QUEUE", "PIPELINE", "ACTION", "ATTEMPTS", "PARKED", "REASON"]
    assert line.split(maxsplit=5)[:5] == [row["id"], "acme.crm", "Crm", "7", "10"]
    assert line.endswith("  2024-05-01 12:00:00  the CRM refused it for ever")
    assert (row["queue"], row["attempts"], row["size"]) == ("acme.crm", 10, len(BODY))
    assert row["action_id"] == 7
    assert "alice" not in listed.out + json.dumps(row)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)


async def test_a_list_is_filtered_and_limited_and_says_what_it_left_out(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    for number in range(4):
        await park(publisher, b"%d" % number, ["acme.crm", "other.crm"][number % 2])

    others = await rows(amqp_url, "--queue", "other.crm")
    await until_ready(url, DEAD_QUEUE, lambda count: count == 4)
    limited = await run_flow("dead", "list", "--limit", "3", url=amqp_url)

    assert [row["queue"] for row in others] == ["other.crm", "other.crm"]
    assert len(limited.out.splitlines()) == 1 + 3
    assert limited.err == "flow: 4 messages are parked, 1 of them were not looked at\n"


async def test_an_empty_park_is_said_to_be_empty(amqp_url: str) -> None:
    ended = await run_flow("dead", "list", url=amqp_url)

    assert (ended.code, ended.err) == (0, "flow: 0 messages are parked\n")


async def test_a_body_is_shown_masked_unless_a_person_asks_for_it(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    await park(publisher)
    [row] = await rows(amqp_url)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)

    masked = await run_flow("dead", "show", row["id"], url=amqp_url)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)
    shown = await run_flow("dead", "show", row["id"], "--show-personal-data", url=amqp_url)

    assert "reason: the CRM refused it for ever\n" in masked.out
    assert "routing key: acme.system.action\n" in masked.out
    assert json.loads(masked.out.partition("\n\n")[2]) == {
        "schema": "proca:action:2",
        "actionId": 7,
        "contact": {"email": "<text of 17>"},
    }
    assert json.loads(shown.out.partition("\n\n")[2]) == json.loads(BODY)


async def test_an_unknown_id_is_told(amqp_url: str, publisher: Publisher) -> None:
    await park(publisher)

    shown = await run_flow("dead", "show", "abc", url=amqp_url)
    replayed = await run_flow("dead", "replay", "--id", "abc", url=amqp_url)

    sentence = "flow: no parked message has the id abc: `flow dead list` tells the ids\n"
    assert (shown.code, shown.err) == (1, sentence)
    assert (replayed.code, replayed.err) == (1, sentence)


async def test_what_a_stranger_wrote_cannot_command_the_terminal(amqp_url: str, publisher: Publisher) -> None:
    await park(publisher, reason="\x1b[31mred\nnext line")

    ended = await run_flow("dead", "list", url=amqp_url)

    assert "�[31mred�next line" in ended.out


async def test_a_replay_brings_the_selected_messages_back(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    for number in range(3):
        await park(publisher, b"%d" % number)
    await park(publisher, b"3", "other.crm")
    first = (await rows(amqp_url, "--queue", "other.crm"))[0]["id"]
    await until_ready(url, DEAD_QUEUE, lambda count: count == 4)

    one = await run_flow("dead", "replay", "--id", first, url=amqp_url)
    await until_ready(url, "other.crm", lambda count: count == 1)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 3)
    queue = await run_flow("dead", "replay", "--queue", "acme.crm", url=amqp_url)
    nothing = await run_flow("dead", "replay", "--all", url=amqp_url)

    assert (one.code, one.out) == (0, "replayed 1 of 4 parked messages\n")
    assert (queue.code, queue.out) == (0, "replayed 3 of 3 parked messages\n")
    assert (nothing.code, nothing.out) == (0, "replayed 0 of 0 parked messages\n")
    await until_ready(url, "acme.crm", lambda count: count == 3)


async def test_a_message_that_cannot_be_replayed_is_told_and_stays(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    await park(publisher, b"1", "gone.crm")
    await park(publisher, b"2")

    ended = await run_flow("dead", "replay", "--all", url=amqp_url)

    assert ended.code == 1
    assert "stays parked: its queue gone.crm does not exist" in ended.err
    assert ended.out == "replayed 1 of 2 parked messages\n"
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)


async def test_a_replay_killed_at_any_point_loses_nothing(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    bodies = [b"%d" % number for number in range(600)]
    async with anyio.create_task_group() as group:
        for body in bodies:
            group.start_soon(park, publisher, body)

    process = await start_flow("dead", "replay", "--all", url=amqp_url)
    await until_ready(url, "acme.crm", lambda count: count >= 20)
    await end_of(process, signal.SIGKILL)
    back_again = await until_ready(url, "acme.crm", lambda count: count >= 20)
    await until_ready(url, DEAD_QUEUE, lambda count: count >= len(bodies) - back_again)

    back, parked = await everything(url, "acme.crm"), await everything(url, DEAD_QUEUE)
    assert parked  # it was killed in the middle
    assert {*back, *parked} == set(bodies)
    assert len(back) + len(parked) <= len(bodies) + 200  # duplicates: at most what was not acknowledged yet


async def everything(url: BrokerUrl, queue: str) -> list[bytes]:
    """Take out all that *queue* holds ready."""
    arrived: list[Message[Any]] = []
    bell = anyio.Event()
    count = await until_ready(url, queue, lambda _: True)

    def receive(messages: list[Message[Any]]) -> None:
        arrived.extend(messages)
        if len(arrived) >= count:
            bell.set()

    session = await Session.open(url, {queue: 2000}, receive)
    with anyio.fail_after(30):
        await bell.wait()
    for message in arrived:
        message.origin.ack(message)
    await session.close()
    return [message.raw for message in arrived]


@pytest.mark.parametrize("arguments", [(), ("--all", "--queue", "acme.crm"), ("--all", "--id", "abc")])
async def test_a_replay_must_say_which_messages(amqp_url: str, arguments: tuple[str, ...]) -> None:
    ended = await run_flow("dead", "replay", *arguments, url=amqp_url)

    assert ended.code == 2
    assert "say which messages: either --queue or --id, or --all" in ended.err


async def test_an_export_holds_everything_and_leaves_it_parked(
    amqp_url: str, url: BrokerUrl, publisher: Publisher, tmp_path: Path
) -> None:
    path = tmp_path / "parked.jsonl"
    for body in (BODY, b"\xff\xfe"):
        await park(publisher, body)

    ended = await run_flow("dead", "export", str(path), url=amqp_url)
    lines = [json.loads(line) for line in path.read_text().splitlines()]

    assert (ended.code, ended.out) == (0, "exported 2 of 2 parked messages\n")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line.get("body") or line.get("body_base64") for line in lines] == [BODY.decode(), "//4="]
    assert lines[0]["reason"] == "the CRM refused it for ever"
    await until_ready(url, DEAD_QUEUE, lambda count: count == 2)


async def test_an_export_never_overwrites(amqp_url: str, publisher: Publisher, tmp_path: Path) -> None:
    path = tmp_path / "parked.jsonl"
    path.write_text("precious")

    ended = await run_flow("dead", "export", str(path), url=amqp_url)

    assert ended.code == 2
    assert "exists already" in ended.err
    assert path.read_text() == "precious"


async def test_half_an_export_is_not_left_behind(tmp_path: Path) -> None:
    path = tmp_path / "parked.jsonl"

    ended = await run_flow("dead", "export", str(path), url="amqp://127.0.0.1:1")

    assert ended.code == 1
    assert not path.exists()


async def test_a_missing_park_is_a_wrong_set_up(rabbitmq: Any, vhost: str) -> None:
    await rabbitmq.delete_vhost(vhost)
    await rabbitmq.add_vhost(vhost)

    ended = await run_flow("dead", "list", url=rabbitmq.url(vhost))

    assert ended.code == 78
    assert ended.err.startswith("flow: The queue system.dead was not found: run `flow setup`")
    assert len(ended.err.splitlines()) == 1


async def test_a_spool_is_loaded_into_the_park_and_emptied(amqp_url: str, tmp_path: Path) -> None:
    headers: dict[str, str | int] = {
        "x-flow-queue": "acme.crm",
        "x-flow-reason": "never",
        "x-flow-attempts": 1,
    }
    spool = Spool(tmp_path / "spool")
    await spool.put("acme.crm", headers, BODY)
    await spool.put("acme.crm", headers, BODY + b" ")
    await anyio.Path(tmp_path / "spool" / "odd.parked").write_bytes(b"{")

    loaded = await run_flow("dead", "load", str(tmp_path / "spool"), url=amqp_url)

    assert (loaded.code, loaded.out) == (1, "loaded 2 of 3 messages\n")
    assert loaded.err.endswith("odd.parked holds no parked message; it stays where it is\n")
    assert [(row["queue"], row["reason"]) for row in await rows(amqp_url)] == [("acme.crm", "never")] * 2
    assert [path.name for path in spooled(tmp_path / "spool")] == ["odd.parked"]


async def test_dropped_messages_are_gone_and_all_others_stay(
    amqp_url: str, url: BrokerUrl, publisher: Publisher
) -> None:
    for number in range(4):
        await park(publisher, b"%d" % number, ["acme.crm", "other.crm"][number % 2])
    one, _ = await rows(amqp_url, "--queue", "acme.crm")
    await until_ready(url, DEAD_QUEUE, lambda count: count == 4)

    by_id = await run_flow("dead", "drop", "--id", one["id"], "--yes", url=amqp_url)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 3)
    by_queue = await run_flow("dead", "drop", "--queue", "other.crm", "--yes", url=amqp_url)
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)
    unknown = await run_flow("dead", "drop", "--id", one["id"], "--yes", url=amqp_url)

    assert (by_id.code, by_id.out, by_id.err) == (0, "dropped 1 of 4 parked messages\n", "")
    assert (by_queue.code, by_queue.out, by_queue.err) == (0, "dropped 2 of 3 parked messages\n", "")
    assert (unknown.code, unknown.out) == (1, "dropped 0 of 1 parked messages\n")
    assert unknown.err == f"flow: no parked message has the id {one['id']}: `flow dead list` tells the ids\n"
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)
    [left] = await everything(url, DEAD_QUEUE)
    assert left in (b"0", b"2")


async def test_nothing_is_dropped_without_a_yes(amqp_url: str, url: BrokerUrl, publisher: Publisher) -> None:
    await park(publisher, b"1")

    nobody = await run_flow("dead", "drop", "--all", url=amqp_url)
    refused = await asked(amqp_url, b"n\n")
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)
    agreed = await asked(amqp_url, b"y\n", lambda: park(publisher, b"2"))

    assert nobody.code == 2
    assert "there is no terminal to ask on: --yes deletes without a question" in nobody.err
    assert (refused.code, refused.out) == (1, "dropped 0 of 1 parked messages\n")
    assert (agreed.code, agreed.out) == (0, "dropped 1 of 1 parked messages\n")
    await until_ready(url, DEAD_QUEUE, lambda count: count == 1)
    assert await everything(url, DEAD_QUEUE) == [b"2"]  # parked while the question waited


async def asked(
    url: str, answer: bytes, meanwhile: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint
) -> Ended:
    """Run `flow dead drop --all` on a terminal, and give an *answer* to its question."""
    question = b"Delete 1 parked message for good? [y/N]: "
    return await answered(
        "dead", "drop", "--all", dialogue=[(question, answer)], meanwhile=meanwhile, url=url
    )
