"""`flow` as a process of its own."""

import os
import signal
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE

import anyio

from flow.broker.declaring import Declarer
from flow.broker.url import BrokerUrl

OWN = ("AMQP_URL", "PROCA_URL", "FLOW_")


@dataclass(frozen=True)
class Ended:
    """What a process left behind."""

    code: int
    out: str
    err: str


def surroundings(url: str | None) -> dict[str, str]:
    """Return this environment with *url* as the only thing that tells of a broker."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(OWN)}
    return kept | ({"AMQP_URL": url} if url else {})


async def run_flow(
    *arguments: str, url: str | None = None, stdin: bytes = b"", folder: Path | None = None, **more: str
) -> Ended:
    """Run `flow` to its end, in a *folder*, with *more* environment variables."""
    with anyio.fail_after(90):
        ended = await anyio.run_process(
            [sys.executable, "-m", "flow", *arguments],
            input=stdin,
            check=False,
            stdout=PIPE,
            stderr=PIPE,
            env=surroundings(url) | more,
            cwd=folder,
        )
    return Ended(ended.returncode, ended.stdout.decode(), ended.stderr.decode())


async def start_flow(*arguments: str, url: str, **more: str) -> anyio.abc.Process:
    """Start `flow` with pipes, and with *more* environment variables."""
    command = [sys.executable, "-m", "flow", *arguments]
    surrounding = surroundings(url) | more
    return await anyio.open_process(command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=surrounding)


async def answered(
    *arguments: str,
    dialogue: Sequence[tuple[bytes, bytes]],
    meanwhile: Callable[[], Awaitable[None]] = anyio.lowlevel.checkpoint,
    url: str | None = None,
    **more: str,
) -> Ended:
    """Run `flow` on a terminal, where it asks the questions of the *dialogue* and gets its answers."""
    here, there = os.openpty()
    command = [sys.executable, "-m", "flow", *arguments]
    process = await anyio.open_process(command, stdin=there, env=surroundings(url) | more)
    os.close(there)
    assert process.stderr is not None
    for question, answer in dialogue:
        asked = b""
        with anyio.fail_after(60):
            while len(asked) < len(question):
                asked += await process.stderr.receive()
        assert asked == question
        await meanwhile()
        os.write(here, answer)
    ended = await end_of(process)
    os.close(here)
    return ended


async def end_of(process: anyio.abc.Process, number: signal.Signals | None = None) -> Ended:
    """Send a signal, if any, and return what the process left behind."""
    if number is not None:
        process.send_signal(number)
    with anyio.fail_after(60):
        texts: list[bytes] = []
        for stream in (process.stdout, process.stderr):
            assert stream is not None
            texts.append(b"".join([chunk async for chunk in stream]))
        code = await process.wait()
    await process.aclose()
    return Ended(code, texts[0].decode(), texts[1].decode())


async def until_ready(url: BrokerUrl, queue: str, enough: Callable[[int], bool]) -> int:
    """Wait until *queue* has *enough* messages ready, and return how many."""
    async with Declarer(url) as declarer:
        with anyio.fail_after(30):
            while not enough(count := (await declarer.look(queue)).ready):
                continue
    return count
