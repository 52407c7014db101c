import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.message import Message
from flow.plumbing.setup import set_up, topology_for
from tests.cli.conftest import end_of, run_flow, start_flow, surroundings, until_ready
from tests.nodes.rabbitmq_control import RabbitMQControl

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

TARGET = ("deliver", "acme.system.action")


@pytest.fixture(autouse=True)
async def plumbing(url: BrokerUrl) -> None:
    await set_up(url, topology_for(["acme"], queue_type="classic"))


async def bodies_of(url: BrokerUrl, queue: str, count: int) -> list[bytes]:
    """Take *count* messages out of *queue*."""
    arrived: list[Message[Any]] = []
    bell = anyio.Event()

    def receive(messages: list[Message[Any]]) -> None:
        arrived.extend(messages)
        if len(arrived) >= count:
            bell.set()

    session = await Session.open(url, {queue: count}, receive)
    with anyio.fail_after(30):
        await bell.wait()
    for message in arrived:
        message.origin.ack(message)
    await session.close()
    return [message.raw for message in arrived]


async def test_a_document_of_several_lines_is_one_message(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    path = tmp_path / "action.json"
    path.write_bytes(b'{\n  "actionId": 7\n}\n')

    ended = await run_flow("push", *TARGET, str(path), url=amqp_url)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("pushed 1, confirmed 1 in ")
    assert await bodies_of(url, "acme.crm", 1) == [b'{\n  "actionId": 7\n}\n']


async def test_two_thousand_lines_are_confirmed_and_arrive_once_each(amqp_url: str, url: BrokerUrl) -> None:
    lines = [b'{"actionId": %d}' % number for number in range(2000)]

    ended = await run_flow("push", *TARGET, "--lines", url=amqp_url, stdin=b"\n".join(lines) + b"\n")

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("pushed 2000, confirmed 2000 in ")
    assert sorted(await bodies_of(url, "acme.crm", 2000)) == sorted(lines)


async def test_an_unroutable_document_is_an_error_that_does_not_quote_it(amqp_url: str) -> None:
    ended = await run_flow(
        "push", "deliver", "other.system.action", url=amqp_url, stdin=b'{"name": "Secret"}'
    )

    assert ended.code == 1
    assert ended.err.startswith("flow: ")
    assert "exchange deliver with the key other.system.action" in ended.err
    assert len(ended.err.splitlines()) == 1
    assert ended.out.startswith("pushed 1, confirmed 0 in ")
    assert "Secret" not in ended.err + ended.out


async def test_lines_that_are_no_json_are_named_by_their_number_and_kept(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    kept = tmp_path / "unconfirmed"
    lines = b'{"a": 1}\n{"name": "Secret"\n\n{"a": 2}\n\xff'

    arguments = ("--lines", "--unconfirmed", str(kept))
    ended = await run_flow("push", *TARGET, *arguments, url=amqp_url, stdin=lines)

    assert ended.code == 1
    assert ended.err.splitlines() == [
        "flow: line 2: it is not valid JSON in UTF-8; --raw would push it as it is",
        "flow: line 5: it is not valid JSON in UTF-8; --raw would push it as it is",
        f"flow: 2 lines are not known to be confirmed: they are in {kept}",
    ]
    assert ended.out.startswith("pushed 2, confirmed 2 in ")
    assert kept.read_bytes() == b'{"name": "Secret"\n\xff\n'
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert sorted(await bodies_of(url, "acme.crm", 2)) == [b'{"a": 1}', b'{"a": 2}']


async def test_raw_lines_are_pushed_as_they_are(amqp_url: str, url: BrokerUrl) -> None:
    ended = await run_flow(
        "push", *TARGET, "--lines", "--raw", url=amqp_url, stdin=b'{"a\n\xff\xfe\r\n\nlast'
    )

    assert ended.code == 0
    assert sorted(await bodies_of(url, "acme.crm", 4)) == sorted([b'{"a', b"\xff\xfe\r", b"", b"last"])


async def test_many_unroutable_lines_are_told_shortly_and_given_up(amqp_url: str, tmp_path: Path) -> None:
    source, kept = tmp_path / "lines", tmp_path / "kept"
    source.write_bytes(b"".join(b"%d\n" % number for number in range(5000)))
    target = ("deliver", "other.system.action")

    ended = await run_flow("push", *target, str(source), "--lines", "--unconfirmed", str(kept), url=amqp_url)

    told = ended.err.splitlines()
    assert ended.code == 1
    assert sum(": line " in sentence for sentence in told) == 10
    assert "flow: 100 failed in a row, so that the rest was not tried" in told
    assert f"flow: 5000 lines are not known to be confirmed: they are in {kept}" in told
    assert sorted(kept.read_bytes().split()) == sorted(source.read_bytes().split())


async def test_a_missing_exchange_is_a_wrong_set_up(amqp_url: str) -> None:
    ended = await run_flow("push", "nowhere", "key", url=amqp_url, stdin=b"{}")

    assert ended.code == 78
    assert "nowhere" in ended.err
    assert "Traceback" not in ended.err


async def test_nothing_listening_is_one_sentence_and_keeps_all_lines(tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    arguments = ("--lines", "--unconfirmed", str(kept))
    ended = await run_flow("push", *TARGET, *arguments, url="amqp://127.0.0.1:1", stdin=b"1\n2\n3\n")

    assert ended.code == 1
    assert ended.err.startswith("flow: Nothing listens at 127.0.0.1:1")
    assert kept.read_bytes() == b"1\n2\n3\n"


async def test_a_file_without_unconfirmed_lines_is_not_left_behind(amqp_url: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"

    ended = await run_flow("push", *TARGET, "--lines", "--unconfirmed", str(kept), url=amqp_url, stdin=b"1\n")

    assert ended.code == 0
    assert not kept.exists()


async def test_an_existing_file_is_never_overwritten(amqp_url: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_bytes(b"precious")

    ended = await run_flow("push", *TARGET, "--lines", "--unconfirmed", str(kept), url=amqp_url, stdin=b"1\n")

    assert ended.code == 2
    assert "exists already: name a new file" in ended.err
    assert kept.read_bytes() == b"precious"


async def test_a_request_to_stop_waits_for_confirms_and_keeps_what_was_not_pushed(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    kept = tmp_path / "kept"
    process = await start_flow("push", *TARGET, "--lines", "--unconfirmed", str(kept), url=amqp_url)
    assert process.stdin is not None
    await process.stdin.send(b"1\n2\n3\n4, unfinished")
    await until_ready(url, "acme.crm", lambda count: count == 3)

    ended = await end_of(process, signal.SIGTERM)

    assert ended.code == 1
    assert ended.out.startswith("pushed 3, confirmed 3 in ")
    assert kept.read_bytes() == b"4, unfinished\n"


async def test_a_lost_broker_ends_it_and_every_line_is_confirmed_or_kept(
    amqp_url: str, url: BrokerUrl, rabbitmq: RabbitMQControl, tmp_path: Path
) -> None:
    source, kept = tmp_path / "lines", tmp_path / "kept"
    source.write_bytes(b"".join(b"%d\n" % number for number in range(50_000)))
    arguments = ("push", *TARGET, str(source), "--lines", "--unconfirmed", str(kept))
    process = await start_flow(*arguments, url=amqp_url)

    await until_ready(url, "acme.crm", lambda count: count > 500)
    await rabbitmq.close_all_connections()
    ended = await end_of(process)

    assert ended.code == 1
    assert "Traceback" not in ended.err
    confirmed = int(ended.out.partition("confirmed ")[2].partition(" ")[0])
    left = kept.read_bytes().split()
    assert confirmed + len(left) == 50_000
    assert f"flow: {len(left)} lines are not known to be confirmed" in ended.err
    ready = await until_ready(url, "acme.crm", lambda count: count >= confirmed)
    arrived = await bodies_of(url, "acme.crm", ready)
    assert {*arrived, *left} == {b"%d" % number for number in range(50_000)}


async def test_lines_are_pushed_as_they_come(amqp_url: str, url: BrokerUrl) -> None:
    process = await start_flow("push", *TARGET, "--lines", url=amqp_url)
    assert process.stdin is not None

    await process.stdin.send(b"1\n")
    await until_ready(url, "acme.crm", lambda count: count == 1)
    await process.stdin.send(b"2\n")
    await until_ready(url, "acme.crm", lambda count: count == 2)
    await process.stdin.aclose()

    assert (await end_of(process)).code == 0


async def test_progress_is_shown_on_a_terminal_only(amqp_url: str) -> None:
    terminal, end = os.openpty()
    command = [sys.executable, "-m", "flow", "push", *TARGET, "--lines"]
    lines = b"1\n" * 500

    try:
        with anyio.fail_after(60):
            await anyio.run_process(command, input=lines, stderr=end, env=surroundings(amqp_url))
        shown = os.read(terminal, 65_536)
    finally:
        os.close(terminal)
        os.close(end)
    piped = await run_flow("push", *TARGET, "--lines", url=amqp_url, stdin=lines)

    assert b"\rpushed " in shown
    assert shown.endswith(b"\r\x1b[K")  # the line is cleared at the end
    assert piped.err == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("deliver",), "Missing argument 'ROUTING_KEY'"),
        ((*TARGET, "missing.json"), "'missing.json': No such file or directory"),
        ((*TARGET, "--unconfirmed", "kept"), "--unconfirmed needs --lines: it holds lines"),
    ],
)
async def test_wrong_usage_exits_with_2(amqp_url: str, arguments: tuple[str, ...], sentence: str) -> None:
    ended = await run_flow("push", *arguments, url=amqp_url)

    assert ended.code == 2
    assert sentence in ended.err
