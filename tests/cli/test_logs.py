"""What a process of `flow` logs, its own and everybody else's: no text that may quote a person's data."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import end_of, start_flow
from tests.cli.test_dev_run import next_line

CANARY = "ada@example.org"
SPEAKING = """
import asyncio, gc, logging, sys, warnings
from flow.cli.logs import configure

configure(sys.argv[1], "info", tracebacks=sys.argv[2] == "whole", packages=["mine"])


async def bad(text):
    raise ValueError("could not mail " + text)


async def main():
    loop = asyncio.get_running_loop()
    task = asyncio.create_task(bad("ada@example.org"))
    await asyncio.wait([task])
    del task
    gc.collect()
    loop.call_soon(int, "ada@example.org")
    await asyncio.sleep(0)


asyncio.run(main())
try:
    int("ada@example.org")
except ValueError:
    logging.getLogger("some.library").exception("it went wrong")
warnings.warn("an old way", RuntimeWarning)
logging.getLogger("some.library").info("GET https://target.example/?who=ada@example.org")
logging.getLogger("mine.part").info("seen")
logging.getLogger("flow").info("flow says")
"""
SAID = [
    ("error", "asyncio", "Task exception was never retrieved"),
    ("error", "asyncio", "Exception in callback int"),
    ("error", "some.library", "it went wrong"),
    ("info", "mine.part", "seen"),
    ("info", "flow", "flow says"),
]


def speak(style: str, how: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", SPEAKING, style, how], capture_output=True, check=True)
    return done.stderr.decode().splitlines()


def test_every_line_is_an_object_and_quotes_no_error() -> None:
    lines = [json.loads(line) for line in speak("json", "short")]

    warned = [line for line in lines if line["logger"] == "py.warnings"]
    assert CANARY not in str(lines)
    assert [(one["level"], one["logger"], one["message"]) for one in lines if one not in warned] == SAID
    assert ["RuntimeWarning: an old way" in one["message"] for one in warned] == [True]
    assert [one.get("error") for one in lines if one["level"] == "error"] == [
        "ValueError in bad (<string>:9)",
        "ValueError",
        "ValueError in <module> (<string>:24)",
    ]


def test_every_line_for_people_quotes_no_error() -> None:
    lines = [line for line in speak("console", "short") if "old way" not in line and line.strip()]

    assert CANARY not in str(lines)
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines if "warn" not in line] == [
        "ERROR   Task exception was never retrieved (ValueError in bad (<string>:9))",
        "ERROR   Exception in callback int (ValueError)",
        "ERROR   it went wrong (ValueError in <module> (<string>:24))",
        "INFO    seen",
        "INFO    flow says",
    ]


@pytest.mark.parametrize("style", ["console", "json"])
def test_tracebacks_are_whole_when_asked_for(style: str) -> None:
    said = "\n".join(speak(style, "whole"))

    assert said.count(f"ValueError: could not mail {CANARY}") == 1
    assert said.count("Traceback (most recent call last)") == 3
    assert "who=" not in said


MINE = """
import asyncio, contextlib, gc, logging
from flow import Pipeline
from flow.schema import IdsMessage

logging.getLogger(__name__).info("imported")


async def bad():
    raise ValueError("ada@example.org")


class Mine(Pipeline[IdsMessage]):
    queue = "acme.crm"

    @contextlib.asynccontextmanager
    async def lifespan(self):
        task = asyncio.create_task(bad())
        await asyncio.wait([task])
        del task
        gc.collect()
        yield

    async def handle_message(self, message):
        pass
"""


@pytest.mark.anyio
async def test_a_run_writes_all_of_it_in_its_format(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MINE)
    process = await start_flow(
        *("run", "mine", "--dev", "--no-ops", "--log-format", "json"), url="", PYTHONPATH=str(tmp_path)
    )
    await next_line(process)

    ended = await end_of(process, signal.SIGTERM)

    lines = [json.loads(line) for line in ended.err.splitlines()]
    assert ended.code == 0
    assert CANARY not in ended.err
    assert ("mine", "imported") in [(one["logger"], one["message"]) for one in lines]
    assert "ValueError in bad (mine.py:10)" in [one.get("error") for one in lines]


# Everything that a command may meet outside of its own errors, with a person's address in each text.
MEETING = """
import asyncio, gc, sys, threading
import click
from flow.cli import main


async def bad():
    raise ValueError("ada@example.org")


async def meet():
    task = asyncio.create_task(bad())
    await asyncio.wait([task])
    del task
    gc.collect()


class Dying:
    def __del__(self):
        raise ValueError("ada@example.org")


@click.command()
def meeting():
    asyncio.run(meet())
    thread = threading.Thread(target=int, args=["ada@example.org"])
    thread.start()
    thread.join()
    Dying()
    raise ExceptionGroup("several", [KeyError("ada@example.org")])


sys.modules["meeting"] = sys.modules["__main__"]
from flow import cli
cli.COMMANDS["sweep"] = ("meeting:meeting", "")
main(["sweep"])
"""


def test_no_command_prints_the_text_of_an_error_that_is_not_of_flow() -> None:
    done = subprocess.run([sys.executable, "-c", MEETING], capture_output=True, check=False)
    lines = done.stderr.decode().splitlines()

    assert done.returncode == 1
    assert CANARY not in done.stderr.decode()
    assert [re.sub(r"^\d\d:\d\d:\d\d |(?<=errors\.py):\d+", "", line) for line in lines] == [
        "ERROR   Task exception was never retrieved (ValueError in bad (<string>:8))",
        "ERROR   a thread ended unexpectedly (ValueError)",
        "ERROR   an error came to nobody's notice (ValueError in __del__ (<string>:20))",
        "CRITICAL the process ended unexpectedly at errors.py (KeyError in <module> (<string>:36))",
    ]


def test_an_interrupt_is_no_error_of_the_program() -> None:
    program = "from flow.cli.logs import configure\nconfigure('console', 'info', tracebacks=False)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}raise KeyboardInterrupt"], capture_output=True, check=False
    )

    assert b"unexpectedly" not in done.stderr
    assert done.returncode == -signal.SIGINT


def test_the_traceback_of_what_ends_the_process_is_whole_when_asked_for() -> None:
    program = "from flow.cli.logs import configure\nconfigure('json', 'info', tracebacks=True)\nint('ada')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)

    [line] = [json.loads(line) for line in done.stderr.splitlines()]
    assert (line["level"], line["message"]) == ("critical", "the process ended unexpectedly at <string>:3")
    assert "invalid literal for int() with base 10: 'ada'" in line["traceback"]
