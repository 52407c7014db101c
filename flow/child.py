"""The supervisor's side of one worker process: its start, its reports, its end."""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL

import anyio
import anyio.abc
import msgspec

from flow.exits import DRAINED, FAILED, HUNG
from flow.report import Report
from flow.worker import MARK, Worker

LARGEST = 1 << 24  # bytes of a report

log = logging.getLogger("flow")


class Child:
    """One worker process, started anew and never forked: it shares nothing with this one."""

    def __init__(self, number: int, of: int, heard: Callable[[Report], None]) -> None:
        """Take which worker it is, and *heard*, which is called with each report."""
        self.report: Report | None = None
        """The last one."""
        self.heard_at = 0.0
        """When it came, on the loop's clock."""
        self.asked = False
        """Whether it was asked to stop."""
        self.ending = "could not be started"
        """How it ended, in words, once it has."""
        self._number = number
        self._of = of
        self._heard = heard
        self._process: anyio.abc.Process | None = None
        self._ended = anyio.Event()
        self._hung = False

    async def run(self, command: Sequence[str], environment: Mapping[str, str]) -> int:
        """Start it, take its reports until it ends, and return its exit code.

        0: drained as asked; 1 also for every end by a signal; 3: it had to be killed.
        """
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                self._process = await self._start(command, environment, theirs.fileno())
            log.info("worker %d is process %d", self._number, self._process.pid)
            async with self._process as process:
                if self.asked:
                    process.terminate()
                await self._listen(ours)
                return self._judged(await process.wait())
        except OSError as error:
            log.error("worker %d cannot be started: %s", self._number, error.strerror)
            return FAILED
        finally:
            ours.close()
            self._ended.set()

    async def stop(self, patience: float) -> None:
        """Ask it to drain; kill it when it still runs *patience* seconds later."""
        if self.asked:
            return
        self.asked = True
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.terminate()
        with anyio.move_on_after(patience):
            await self._ended.wait()
            return
        log.error("worker %d did not end within %g s and was killed", self._number, patience)
        self._hung = True
        self.kill()

    def kill(self) -> None:
        """End it at once; the broker takes back what it had not settled."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                self._process.kill()

    async def _start(
        self, command: Sequence[str], environment: Mapping[str, str], channel: int
    ) -> anyio.abc.Process:
        mark = Worker(self._number, self._of, channel)
        return await anyio.open_process(
            command,
            stdin=DEVNULL,
            stdout=None,
            stderr=None,
            env={**environment, MARK: str(mark)},
            pass_fds=[channel],
            start_new_session=True,  # Ctrl-C is for the supervisor, which passes it on
        )

    async def _listen(self, channel: socket.socket) -> None:
        reader, writer = await asyncio.open_unix_connection(sock=channel, limit=LARGEST)
        try:
            async for line in reader:
                if line.endswith(b"\n"):  # else it was killed while it wrote
                    self.report = msgspec.json.decode(line, type=Report)
                    self.heard_at = anyio.current_time()
                    self._heard(self.report)
        finally:
            writer.close()

    def _judged(self, code: int) -> int:
        self.ending = f"was killed by {named(-code)}" if code < 0 else f"ended (exit code {code})"
        if self._hung:
            return HUNG
        if self.asked and code == -signal.SIGTERM:  # before it had begun
            return DRAINED
        return FAILED if code < 0 or code > 128 else code


def named(number: int) -> str:
    """Return the name of a signal; those for real time have none."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
