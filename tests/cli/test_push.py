import os
import re
import shlex
import signal
import stat
import sys
from pathlib import Path
from subprocess import PIPE
from typing import Any

import anyio
import pytest

from flow.broker.declaring import Declarer
from flow.broker.session import Session
from flow.broker.url import BrokerUrl
from flow.message import Message
from flow.plumbing.lines import LONGEST
from flow.plumbing.park import LARGEST_BODY
from flow.plumbing.push import WINDOW, Outgoing, Unconfirmed
from flow.plumbing.report import read, written
from flow.plumbing.setup import set_up, topology_for
from tests.broker.queues import until
from tests.cli.conftest import end_of, run_flow, start_flow, surroundings, until_ready
from tests.nodes.rabbitmq_control import RabbitMQControl
from tests.nodes.rabbitmq_node import RabbitMQNode

pytestmark = [pytest.mark.anyio, pytest.mark.broker]

TARGET = ("deliver", "acme.system.action")


@pytest.fixture(autouse=True)
async def plumbing(url: BrokerUrl) -> None:
    await set_up(url, topology_for(["acme"], queue_type="classic"))


def entries(report: Path) -> list[Outgoing]:
    """Return what a report holds."""
    return [read(line) for line in report.read_bytes().splitlines()]


async def bodies_of(url: BrokerUrl, queue: str, count: int) -> list[bytes]:
    """Take *count* messages out of *queue*, and return their bodies."""
    return [message.raw for message in await messages_of(url, queue, count)]


async def messages_of(url: BrokerUrl, queue: str, count: int) -> list[Message[Any]]:
    """Take *count* messages out of *queue*."""
    arrived: list[Message[Any]] = []
    bell = anyio.Event()

    def receive(messages: list[Message[Any]]) -> None:
        arrived.extend(messages)
        if len(arrived) >= count:
            bell.set()

    session = await Session.open(url, {queue: min(count, 65_535)}, receive)
    with anyio.fail_after(30):
        await bell.wait()
    for message in arrived:
        message.origin.ack(message)
    await session.close()
    return arrived


async def test_a_document_of_several_lines_is_one_message(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    path = tmp_path / "action.json"
    path.write_bytes(b'{\n  "actionId": 7\n}\n')

    ended = await run_flow("push", *TARGET, str(path), url=amqp_url)

    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith("pushed 1, confirmed 1 in ")
    assert await bodies_of(url, "acme.crm", 1) == [b'{\n  "actionId": 7\n}\n']


def complaints(err: str) -> list[str]:
    """Return what was said beside the progress, which is told every five seconds on a slow machine."""
    return [line for line in err.splitlines() if not line.startswith("flow: pushed ")]


async def test_two_thousand_lines_are_confirmed_and_arrive_once_each(amqp_url: str, url: BrokerUrl) -> None:
    lines = [b'{"actionId": %d}' % number for number in range(2000)]

    ended = await run_flow("push", *TARGET, "--lines", url=amqp_url, stdin=b"\n".join(lines) + b"\n")

    assert (ended.code, complaints(ended.err)) == (0, [])
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
        "flow: 2 lines are not known to be confirmed: correct them, or push them as they are with "
        f"flow push --raw --again {kept}",
    ]
    assert ended.out.startswith("pushed 2, confirmed 2 in ")
    assert [one.body for one in entries(kept)] == [b'{"name": "Secret"', b"\xff"]
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert sorted(await bodies_of(url, "acme.crm", 2)) == [b'{"a": 1}', b'{"a": 2}']


async def test_a_line_without_an_end_is_told_and_those_before_it_are_pushed(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"1\n2\n")
    os.truncate(source, LONGEST + 5)

    ended = await run_flow("push", "--lines", *TARGET, str(source), url=amqp_url)

    sentence = f"flow: line 3 is longer than {LONGEST} bytes: it and what follows it is not read\n"
    assert (ended.code, ended.err) == (1, sentence)
    assert ended.out.startswith("pushed 2, confirmed 2 in ")
    assert sorted(await bodies_of(url, "acme.crm", 2)) == [b"1", b"2"]


async def test_a_document_larger_than_a_message_may_be_is_refused(amqp_url: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.touch()
    os.truncate(source, LARGEST_BODY + 1)

    ended = await run_flow("push", "--raw", *TARGET, str(source), url=amqp_url)

    sentence = (
        f"flow: the document is longer than {LARGEST_BODY} bytes, which is the most that RabbitMQ takes: "
    )
    assert (ended.code, ended.err) == (1, f"{sentence}push it as several, with --lines\n")


async def test_a_report_with_a_line_without_an_end_is_refused(amqp_url: str, tmp_path: Path) -> None:
    report = tmp_path / "report"
    report.write_bytes(
        written(Unconfirmed(1, Outgoing(exchange="e", routing_key="k", body=b"1"), None)) + b"\n"
    )
    os.truncate(report, LONGEST + 1000)

    ended = await run_flow("push", "--again", str(report), url=amqp_url)

    assert ended.code == 78
    assert ended.err == f"flow: line 2 of {report}: it is longer than {LONGEST} bytes\n"


async def test_a_report_that_cannot_be_written_is_told_in_one_sentence(amqp_url: str, tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    lines.write_bytes(b'{"name": "Secret"\n' * 2000)
    nothing_more = "ulimit -f 0; exec " + shlex.join(
        [sys.executable, "-m", "flow", "push", *TARGET, str(lines), "--lines", "--unconfirmed", "kept"]
    )

    with anyio.fail_after(60):
        ended = await anyio.run_process(
            nothing_more, check=False, stdout=PIPE, stderr=PIPE, env=surroundings(amqp_url), cwd=tmp_path
        )

    assert ended.returncode == 1
    assert ended.stderr.decode().splitlines()[-1] == "flow: File too large"
    assert b"Traceback" not in ended.stderr


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
    assert any(line.startswith("flow: 5000 lines are not known to be confirmed: ") for line in told)
    assert sorted(one.body for one in entries(kept)) == sorted(source.read_bytes().split())


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
    assert "flow: Nothing listens at 127.0.0.1:1" in ended.err
    assert sorted(one.body for one in entries(kept)) == [b"1", b"2", b"3"]


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
    assert [one.body for one in entries(kept)] == [b"4, unfinished"]


async def test_closed_connections_are_survived_with_an_exact_report(
    amqp_url: str, url: BrokerUrl, rabbitmq: RabbitMQControl, tmp_path: Path
) -> None:
    """What was under way is in the report, and pushed again from it keeps its ids; the rest just goes on."""
    source, kept = tmp_path / "lines", tmp_path / "kept"
    source.write_bytes(b"".join(b"%d\n" % number for number in range(20_000)))
    arguments = ("push", *TARGET, str(source), "--lines", "--unconfirmed", str(kept))
    process = await start_flow(*arguments, url=amqp_url)

    for enough in (500, 5000):
        await until_ready(url, "acme.crm", lambda count, enough=enough: count > enough)  # type: ignore[misc]
        await rabbitmq.close_all_connections()
    ended = await end_of(process)

    assert ended.code == 1
    assert "Traceback" not in ended.err
    confirmed = int(ended.out.partition("confirmed ")[2].partition(" ")[0])
    left = entries(kept)
    assert 0 < len(left) <= 2 * WINDOW
    assert confirmed + len(left) == 20_000
    assert f"flow: {len(left)} lines are not known to be confirmed, {len(left)} of them may have" in ended.err

    again = await run_flow("push", "--again", str(kept), url=amqp_url)

    assert (again.code, complaints(again.err)) == (0, [])
    ready = await until_ready(url, "acme.crm", lambda count: count >= 20_000)
    arrived = await messages_of(url, "acme.crm", ready)
    assert {message.raw for message in arrived} == {b"%d" % number for number in range(20_000)}
    ids: dict[bytes, set[str | None]] = {}
    for message in arrived:
        ids.setdefault(message.raw, set()).add(message.message_id)
    assert all(len(some) == 1 for some in ids.values())  # a double has the id of the first
    assert all(ids[one.body] == {one.message_id} for one in left)
    assert len(arrived) - 20_000 <= len(left)


async def test_a_broker_that_does_not_come_back_ends_it_with_everything_kept(
    node: RabbitMQNode, amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    """A second signal does not wait for it, and says what may have arrived."""
    source, kept = tmp_path / "lines", tmp_path / "kept"
    source.write_bytes(b"".join(b"%d\n" % number for number in range(15_000)))
    process = await start_flow(
        "push", *TARGET, str(source), "--lines", "--unconfirmed", str(kept), url=amqp_url
    )
    await until_ready(url, "acme.crm", lambda count: count > 500)

    node.kill()
    ended = await end_of(process, signal.SIGTERM)
    await node.start()

    assert ended.code == 1
    confirmed = int(ended.out.partition("confirmed ")[2].partition(" ")[0])
    left = entries(kept)
    assert confirmed + len(left) == 15_000
    again = await run_flow("push", "--again", str(kept), url=amqp_url)
    assert again.code == 0
    ready = await until_ready(url, "acme.crm", lambda count: count >= 15_000)
    arrived = await messages_of(url, "acme.crm", ready)
    assert {message.raw for message in arrived} == {b"%d" % number for number in range(15_000)}


async def test_without_a_name_the_report_is_a_new_file_beside_the_caller(
    amqp_url: str, tmp_path: Path
) -> None:
    ended = await run_flow(
        "push", *TARGET, "--lines", url=amqp_url, stdin=b'{"a": 1}\n{"name": "Secret"', folder=tmp_path
    )

    kept = tmp_path / ended.err.split("flow push --raw --again ")[1].strip()
    assert ended.code == 1
    assert stat.S_IMODE(kept.stat().st_mode) == 0o600
    assert [one.body for one in entries(kept)] == [b'{"name": "Secret"']


async def test_a_file_of_which_nothing_was_pushed_is_not_copied(amqp_url: str, tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_bytes(b"1\n2\n")

    ended = await run_flow(
        "push", "deliver", "other.system.action", str(source), "--lines", url=amqp_url, folder=tmp_path
    )

    assert ended.code == 1
    assert "flow: nothing was pushed: the whole input can be pushed again" in ended.err
    assert os.listdir(tmp_path) == ["lines"]


async def test_without_a_broker_nothing_counts_as_pushed(tmp_path: Path) -> None:
    source = tmp_path / "lines"
    source.write_bytes(b"1\n" * 200)

    nobody = "amqp://127.0.0.1:1/"
    ended = await run_flow("push", *TARGET, str(source), "--lines", url=nobody, folder=tmp_path)

    assert ended.code == 1
    assert "flow: nothing was pushed: the whole input can be pushed again" in ended.err
    assert ended.out.startswith("pushed 0, confirmed 0 in ")


async def test_a_file_that_is_no_report_is_refused_before_anything_is_pushed(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    report = tmp_path / "report"
    entry = written(Unconfirmed(1, Outgoing(exchange=TARGET[0], routing_key=TARGET[1], body=b"1"), None))
    report.write_bytes(entry + b"\n" + b'{"name": "Secret"}\n')

    ended = await run_flow("push", "--again", str(report), url=amqp_url)

    assert ended.code == 78
    assert f"line 2 of {report}: it is not of a report of flow push" in ended.err
    assert "Secret" not in ended.err
    async with Declarer(url) as declarer:
        assert (await declarer.look("acme.crm")).ready == 0


async def test_lines_are_pushed_as_they_come(amqp_url: str, url: BrokerUrl) -> None:
    process = await start_flow("push", *TARGET, "--lines", url=amqp_url)
    assert process.stdin is not None

    await process.stdin.send(b"1\n")
    await until_ready(url, "acme.crm", lambda count: count == 1)
    await process.stdin.send(b"2\n")
    await until_ready(url, "acme.crm", lambda count: count == 2)
    await process.stdin.aclose()

    assert (await end_of(process)).code == 0


@pytest.mark.parametrize("rich", [True, False])
async def test_progress_and_rate_are_shown_on_a_terminal(amqp_url: str, tmp_path: Path, rich: bool) -> None:
    terminal, end = os.openpty()
    source = tmp_path / "lines"
    source.write_bytes(b"1\n" * 3000)
    hide = "" if rich else "import sys; sys.modules['rich'] = None; "
    code = f"{hide}from flow.cli import main; main()"
    command = [sys.executable, "-c", code, "push", *TARGET, str(source), "--lines"]
    shown = b""

    async def look() -> None:
        nonlocal shown
        while True:
            await anyio.wait_readable(terminal)
            shown += os.read(terminal, 65_536)

    try:
        with anyio.fail_after(60):
            async with anyio.create_task_group() as group:
                group.start_soon(look)
                await anyio.run_process(command, stderr=end, env=surroundings(amqp_url))
                await until(lambda: b"\x1b[2K" in shown or b"\r\x1b[K" in shown)
                group.cancel_scope.cancel()
    finally:
        os.close(terminal)
        os.close(end)

    assert re.search(rb"pushed [\d,]+, confirmed [\d,]+, [\d,]+/s", shown)
    assert ("━".encode() in shown) is rich


async def test_elsewhere_progress_is_a_line_at_intervals(
    amqp_url: str, url: BrokerUrl, monkeypatch: pytest.MonkeyPatch
) -> None:
    hurry = "import flow.cli.progress as it; it.INTERVAL = 0.05; from flow.cli import main; main()"
    command = [sys.executable, "-c", hurry, "push", *TARGET, "--lines"]
    process = await anyio.open_process(
        command, stdin=PIPE, stderr=PIPE, stdout=PIPE, env=surroundings(amqp_url)
    )
    assert process.stdin is not None
    assert process.stderr is not None

    await process.stdin.send(b"1\n" * 10)
    told = ""
    with anyio.fail_after(30):
        while "confirmed 10, " not in told:
            told += (await process.stderr.receive()).decode()
    await process.stdin.aclose()
    await process.wait()
    await process.aclose()

    assert re.search(r"^flow: pushed 10, confirmed 10, [\d,]+/s$", told, re.MULTILINE)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("deliver",), "Missing argument 'ROUTING_KEY'"),
        ((*TARGET, "missing.json"), "'missing.json': No such file or directory"),
        ((), "Missing argument 'EXCHANGE'"),
        (
            (*TARGET, "--again", __file__),
            "--again goes alone: its file tells exchange, routing key and bodies",
        ),
    ],
)
async def test_wrong_usage_exits_with_2(amqp_url: str, arguments: tuple[str, ...], sentence: str) -> None:
    ended = await run_flow("push", *arguments, url=amqp_url)

    assert ended.code == 2
    assert sentence in ended.err


async def test_raw_lines_of_a_report_are_pushed_as_they_are(
    amqp_url: str, url: BrokerUrl, tmp_path: Path
) -> None:
    kept = tmp_path / "unconfirmed"
    arguments = ("--lines", "--unconfirmed", str(kept))
    await run_flow("push", *TARGET, *arguments, url=amqp_url, stdin=b'{"a": 1}\n{"b"\n')

    ended = await run_flow("push", "--raw", "--again", str(kept), url=amqp_url, folder=tmp_path)

    assert ended.code == 0, ended.err
    assert sorted(await bodies_of(url, "acme.crm", 2)) == [b'{"a": 1}', b'{"b"']


async def test_nothing_of_a_file_that_is_all_wrong_is_to_be_pushed_again_as_it_is(
    amqp_url: str, tmp_path: Path
) -> None:
    source = tmp_path / "lines"
    source.write_bytes(b'{"a"\n{"b"\n')

    ended = await run_flow("push", *TARGET, str(source), "--lines", url=amqp_url, folder=tmp_path)

    assert ended.code == 1
    assert (
        "flow: nothing was pushed: correct what is wrong in it, then the whole input can be pushed again"
        in (ended.err)
    )
