"""`flow demo` as people start it: it explains every signature, and ends by itself or when told."""

import fcntl
import os
import re
import signal
import struct
import subprocess
import sys
import termios
from html import unescape
from pathlib import Path

import aiormq
import anyio
import httpx2
import pytest

from flow.demo.cast import Role, number_of, role
from tests.cli.conftest import Ended, end_of, run_flow, start_flow

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent
SHORT = ("--seconds", "8", "--signatures", "100")
NOWHERE = {"PATH": "/nonexistent"}  # no program is found, RabbitMQ's neither
TROUBLE = (
    "the network drops the connection just before an acknowledgement arrives",
    "the CRM is down for",
    "the CRM is up again",
    "the mail server takes nothing for a moment",
    "SQS throttles",
    "an operator closes every connection of the broker",
    "the CRM wants fewer calls",
)
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[(?:[0-9]+;)*3[0-7]m")


def account(out: str) -> dict[str, int]:
    """Return the numbers of the account, added up where a word comes in several lines."""
    found: dict[str, int] = {}
    for word, number in re.findall(r"^  ([A-Za-z ]+?) +(\d+)(?:   .*)?$", out, re.MULTILINE):
        found[word] = found.get(word, 0) + int(number)
    return found


class Telling:
    """A running demo, read line by line."""

    def __init__(self, process: anyio.abc.Process) -> None:
        self.process = process
        self.out = ""

    async def until(self, pattern: str) -> str:
        """Read until *pattern* was told; return its first group."""
        assert self.process.stdout is not None
        with anyio.fail_after(100):
            while (found := re.search(pattern, self.out)) is None:
                self.out += (await self.process.stdout.receive()).decode()
        return found[1] if found.groups() else found[0]

    async def end(self, number: signal.Signals) -> Ended:
        """Send a signal and read to the end."""
        ended = await end_of(self.process, number)
        return Ended(ended.code, self.out + ended.out, ended.err)


async def told(*arguments: str) -> Telling:
    return Telling(await start_flow("demo", *arguments, url="", **NOWHERE))


async def test_it_needs_no_other_program_and_explains_every_signature(tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    ended = await run_flow("demo", *SHORT, "--keep", str(kept), **NOWHERE)

    assert (ended.code, ended.err) == (0, "")
    found = account(ended.out)
    assert {name: found[name] for name in ("submitted", "unreadable", "done twice", "unexplained")} == {
        "submitted": 100,
        "unreadable": 1,
        "done twice": 0,
        "unexplained": 0,
    }
    decided = ("confirmed", "accepted", "rejected", "waiting", "not asked")
    assert sum(found[name] for name in decided) == 100
    assert all(found[name] for name in decided)
    refused = sum(role(number) is Role.REFUSED for number in range(1, 101))
    assert found["told the CRM"] == found["confirmed"] + found["accepted"] - refused
    assert found["thanked"] + found["skipped"] > found["told the CRM"]
    assert [scene for scene in TROUBLE if scene not in ended.out] == []
    assert ended.out.endswith("\nEvery signature is explained.\n")
    assert "\x1b" not in ended.out
    # What it kept can be looked at with the usual commands.
    mails = len(list((kept / "mails").glob("*.eml")))
    said = re.search(r"after (\d+) mails to confirm and (\d+)\s+to the\s+moderator", ended.out)
    assert said is not None
    assert mails == found["thanked"] + int(said[1]) + int(said[2])
    traced = await run_flow("trace", "1", FLOW_DATABASE_URL=f"sqlite:///{kept}/records.db")
    assert "clean_water/acme" in traced.out


async def test_forever_ends_with_a_signal_and_its_account() -> None:
    telling = await told("--forever", *SHORT)
    address = await telling.until(r"ops page (\S+)")
    page = await telling.until(r"mails (http\S+)")
    await telling.until("an operator closes")
    async with httpx2.AsyncClient(trust_env=False) as client:
        metrics = (await client.get(f"{address}/metrics")).text
        mails = (await client.get(page)).text
        clicked = await client.post(unescape(silent_link(mails)))

    ended = await telling.end(signal.SIGINT)

    assert 'flow_received_total{pipeline="crm-acme",queue="acme.crm"}' in metrics
    assert 'flow_received_total{pipeline="moderate",queue="sady.moderate"}' in metrics
    assert clicked.status_code == 200
    assert (ended.code, ended.err) == (0, "")
    found = account(ended.out)
    assert found["unexplained"] == found["done twice"] == 0
    assert found["submitted"] > 30
    assert "SIGINT: nothing more is submitted" in ended.out


def silent_link(mails: str) -> str:
    """Return the link to accept from the mail of somebody who follows none; found on the page of mails."""
    for to, link in re.findall(r"<td>(supporter\+\d+@example\.org)<td>.*?<a href=\"([^\"]+)\">accept", mails):
        if role(number_of(to)) is Role.SILENT:
            return str(link)
    raise AssertionError("no such mail")


async def test_a_second_signal_ends_it_at_once() -> None:
    telling = await told("--forever", *SHORT)
    await telling.until("told the CRM [1-9]")
    telling.process.send_signal(signal.SIGTERM)
    await telling.until("SIGTERM: nothing more")

    ended = await telling.end(signal.SIGTERM)

    assert ended.code == 128 + signal.SIGTERM


async def test_a_message_that_somebody_takes_away_is_not_explained() -> None:
    telling = await told("--forever", *SHORT)
    broker = await telling.until(r"broker (amqp\S+)")
    await telling.until("parked [1-9]")
    thief = await aiormq.connect(broker)
    channel = await thief.channel()
    stolen = (await channel.queue_purge("system.dead")).message_count or 0
    await thief.close()

    ended = await telling.end(signal.SIGINT)

    assert stolen
    assert ended.code == 1
    assert account(ended.out)["unexplained"] >= 1
    assert re.search(r"(action|poison)-\d+: (parked nowhere instead of|not parked from) ", ended.out)
    assert ended.out.endswith("\nNot every signature is explained.\n")


def on_a_terminal(columns: int, **more: str) -> tuple[int, str]:
    """Run a short demo on a pseudo terminal; return its exit code and all that it wrote there."""
    controller, device = os.openpty()
    fcntl.ioctl(device, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    surroundings = {name: os.environ[name] for name in ("LANG", "LC_ALL", "HOME") if name in os.environ}
    process = subprocess.Popen(
        [sys.executable, "-m", "flow", "demo", *SHORT],
        stdin=device,
        stdout=device,
        stderr=device,
        env=surroundings | {"TERM": "xterm-256color", "PYTHONUTF8": "1"} | more,
    )
    os.close(device)
    written = b""
    with os.fdopen(controller, "rb", buffering=0) as reader:
        while True:
            try:
                part = reader.read(65536)
            except OSError:  # Linux tells the end of a terminal so
                break
            if not part:
                break
            written += part
    return process.wait(60), written.decode()


@pytest.mark.parametrize("columns", [80, 120])
def test_on_a_terminal_the_figures_stay_in_place(columns: int) -> None:
    code, written = on_a_terminal(columns)

    assert code == 0
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", CONTROL.sub("", written))]
    assert max(map(len, lines)) <= columns
    heads = [line for line in lines if line.startswith("flow demo · ")]
    assert len(heads) > 10  # the same table over and over
    assert {head.split("  ")[0] for head in heads} >= {"flow demo · consuming", "flow demo · drained"}
    assert written.count("\x1b[2K") > 10 * len(heads) / 2  # lines are written over, not below each other
    assert COLOUR.search(written)
    assert written.rstrip().endswith("Every signature is explained.")
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")  # the cursor is given back


def test_no_color_is_respected() -> None:
    code, written = on_a_terminal(80, NO_COLOR="1")

    assert code == 0
    assert "flow demo · consuming" in CONTROL.sub("", written)
    assert COLOUR.search(written) is None


async def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "mine").touch()

    ended = await run_flow("demo", "--keep", str(tmp_path), **NOWHERE)

    assert ended.code == 78
    assert "is not empty: give a new folder with --keep" in ended.err


async def test_what_is_missing_is_told_with_the_extra() -> None:
    code = "import sys; sys.modules['uvicorn'] = None; from flow.cli import main; main(['demo'])"
    ended = await anyio.run_process([sys.executable, "-c", code], check=False)

    assert ended.returncode == 78
    assert ended.stderr == b"flow: flow demo needs uvicorn: install proca-flow[ops]\n"


def test_make_demo_asks_for_no_rabbitmq() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--always-make", "demo"],
        cwd=ROOT,
        env={name: value for name, value in os.environ.items() if not name.startswith("MAKE")},
        capture_output=True,
        text=True,
        check=True,
    )

    assert shown.stdout.rstrip().endswith("flow demo")
    assert "rabbitmq" not in shown.stdout
