"""`flow run --dev`: a pipeline and its broker in one process, reached from outside by its URL."""

import re
import shlex
import signal
from pathlib import Path

import anyio
import pytest

from flow.signals import TOGETHER
from tests.cli.conftest import end_of, run_flow, start_flow

pytestmark = pytest.mark.anyio

PIPELINES = """
from collections.abc import AsyncIterator, Sequence

from anyio import sleep_forever

from flow import Message, Pipeline, Retry
from flow.schema import IdsMessage


class Mine(Pipeline[IdsMessage]):
    queue = "acme.crm"
    retry_delay = 0.2

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        if message.attempt == 1:
            raise Retry("once more")
        print("mine", message.body.action_id, message.attempt, flush=True)


class Many(Pipeline[IdsMessage]):
    async def queues(self) -> AsyncIterator[Sequence[str]]:
        yield ["any.work", "wrk.2.sqs", "cus.2.deliver"]

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        print(message.queue, message.body.action_id, flush=True)


class Endless(Pipeline[IdsMessage]):
    queue = "endless"

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        print("begun", flush=True)
        await sleep_forever()


class Stubborn(Pipeline[IdsMessage]):
    queue = "stubborn"

    async def handle_message(self, message: Message[IdsMessage]) -> None:
        print("tried", flush=True)
        raise Retry("never")
"""
BODY = b'{"schema": "proca:ids:1", "stage": "deliver", "actionId": %d, "actionPageId": 3, "orgId": 2}'


@pytest.fixture
def here(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "mine.py").write_text(PIPELINES)
    return {"PYTHONPATH": str(tmp_path)}


async def next_line(process: anyio.abc.Process) -> str:
    """Return the next line of standard output."""
    assert process.stdout is not None
    line = b""
    with anyio.fail_after(60):
        while not line.endswith(b"\n"):
            line += await process.stdout.receive(1)
    return line.decode().strip()


async def test_what_is_pushed_to_the_printed_url_is_worked(here: dict[str, str]) -> None:
    process = await start_flow("run", "mine:Mine", "mine:Many", "--dev", "--no-ops", url="", **here)
    url = await next_line(process)
    ways = [
        ("deliver", "acme.system.action"),
        ("", "any.work"),
        ("", "wrk.2.sqs"),
        ("org.2.deliver", "register.clean_water"),
    ]

    pushed = [
        await run_flow("push", exchange, key, url=url, stdin=BODY % number)
        for number, (exchange, key) in enumerate(ways, 1)
    ]
    worked = [await next_line(process) for _ in ways]
    ended = await end_of(process, signal.SIGTERM)

    assert [one.code for one in pushed] == [0, 0, 0, 0]
    assert sorted(worked) == ["any.work 2", "cus.2.deliver 4", "mine 1 2", "wrk.2.sqs 3"]
    assert (ended.code, ended.out) == (0, "")
    assert "what it held is gone" not in ended.err


async def test_the_commands_that_it_tells_feed_its_queues(here: dict[str, str], tmp_path: Path) -> None:
    process = await start_flow("run", "mine:Mine", "mine:Many", "--dev", "--no-ops", url="", **here)
    await next_line(process)
    assert process.stderr is not None
    said = ""
    with anyio.fail_after(60):
        while len(told := re.findall(r"to feed (\S+): flow (.+) FILE (.+)\n", said)) < 4:
            said += (await process.stderr.receive()).decode()

    for number, (_, words, rest) in enumerate(told, 1):
        file = tmp_path / f"{number}.json"
        file.write_bytes(BODY % number)
        pushed = await run_flow(*shlex.split(words), str(file), *shlex.split(rest))
        assert (pushed.code, pushed.err) == (0, "")
    worked = [await next_line(process) for _ in told]
    await end_of(process, signal.SIGTERM)

    assert [queue for queue, _, _ in told] == ["acme.crm", "any.work", "wrk.2.sqs", "cus.2.deliver"]
    assert sorted(worked) == ["any.work 2", "cus.2.deliver 4", "mine 1 2", "wrk.2.sqs 3"]


async def test_its_end_tells_what_is_gone_with_it(here: dict[str, str]) -> None:
    process = await start_flow("run", "mine:Stubborn", "--dev", "--no-ops", url="", **here)
    url = await next_line(process)
    # There is no pipeline for it, and the account of this broker is all that knows of it.
    await run_flow("push", "", "stubborn", url=url, stdin=BODY % 1)
    await next_line(process)
    ended = await end_of(process, signal.SIGINT)

    assert ended.code == 0
    assert "the broker in memory ends, and what it held is gone: 1 in s" in ended.err


async def test_a_second_signal_promises_nothing_that_this_broker_cannot_keep(here: dict[str, str]) -> None:
    process = await start_flow("run", "mine:Endless", "--dev", "--no-ops", url="", **here)
    url = await next_line(process)
    await run_flow("push", "", "endless", url=url, stdin=BODY % 1)
    await next_line(process)
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    said = ""
    with anyio.fail_after(30):
        while "finishing what was received" not in said:
            said += (await process.stderr.receive()).decode()
    await anyio.sleep(TOGETHER)  # what comes sooner is the same request
    ended = await end_of(process, signal.SIGINT)

    assert ended.code == 130
    assert "SIGINT again: ending at once, and the broker in memory with all that it holds" in ended.err
    assert "go back" not in ended.err


@pytest.mark.parametrize(
    ("arguments", "environment", "sentence"),
    [
        (["--workers", "2"], {}, "--dev goes with one process: the broker is in it, so leave --workers away"),
        (["--amqp-url", "amqp://x"], {}, "--dev does not go with --amqp-url: it brings its own broker"),
        (["--from", "mine.py"], {}, "--dev does not go with --from: its broker is empty at the start"),
        (["--dry-run"], {}, "--dev does not go with --dry-run: its broker is empty at the start"),
        (["--reload"], {}, "--dev does not go with --reload: its broker is empty at the start"),
        ([], {"AMQP_URL": "amqp://x"}, "FLOW_DEV and AMQP_URL contradict each other: unset one of them"),
    ],
)
async def test_contradictions_are_refused(
    here: dict[str, str],
    arguments: list[str],
    environment: dict[str, str],
    sentence: str,
) -> None:
    flag = [] if environment else ["--dev"]
    known = [one.replace("mine.py", f"{here['PYTHONPATH']}/mine.py") for one in arguments]

    ended = await run_flow("run", "mine:Mine", *flag, *known, FLOW_DEV="1", **environment, **here)

    assert ended.code == 2
    assert sentence in ended.err


async def test_the_flag_wins_over_the_address_of_the_environment(here: dict[str, str]) -> None:
    process = await start_flow("run", "mine:Mine", "--dev", "--no-ops", url="amqp://nowhere.invalid", **here)
    url = await next_line(process)
    ended = await end_of(process, signal.SIGTERM)

    assert url.startswith("amqp://guest:guest@127.0.0.1:")
    assert ended.code == 0
