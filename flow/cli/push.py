"""`flow push`: publish one JSON document, or one for each line, confirmed."""

import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import BinaryIO

import anyio
import click

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.cli.errors import FAILED, exit_code, say
from flow.cli.options import amqp_url
from flow.cli.private import new_file
from flow.plumbing.lines import Lines, Source
from flow.plumbing.push import WINDOW, Check, Push, Unconfirmed, check_document, check_line, check_nothing

TOLD = 10  # failed lines that are told one by one
PROGRESS = 0.2  # seconds between two looks at the progress


@click.command()
@click.argument("exchange")
@click.argument("routing_key")
@click.argument("file", type=click.File("rb"), default="-")
@amqp_url
@click.option("--lines", is_flag=True, help="FILE holds one JSON document on each line.")
@click.option("--raw", is_flag=True, help="Push bodies as they are, JSON or not.")
@click.option(
    "--unconfirmed",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="NEW_FILE",
    help="Write the lines there that are not known to be confirmed, so that they can be pushed again.",
)
def push(
    exchange: str,
    routing_key: str,
    file: BinaryIO,
    url: BrokerUrl,
    lines: bool,
    raw: bool,
    unconfirmed: Path | None,
) -> None:
    """Publish the JSON of FILE (default: standard input) to EXCHANGE with ROUTING_KEY.

    Returns once the broker has confirmed everything. A message that no queue is bound for, or that a full
    queue refuses, is an error that names its line; the exit code is then 1.
    """
    if unconfirmed and not lines:
        raise click.UsageError("--unconfirmed needs --lines: it holds lines")
    check = check_nothing if raw else check_line if lines else check_document
    source = Source(file.fileno())
    with Report(unconfirmed, by_line=lines) as report:
        bodies = Lines(source) if lines else document(source)
        code = anyio.run(publish_all, url, (exchange, routing_key), bodies, check, report)
    sys.exit(code)


class Report:
    """Tells what failed, and keeps the lines that may have to be pushed again."""

    def __init__(self, path: Path | None, *, by_line: bool) -> None:
        self._path = path
        self._by_line = by_line
        self._file = new_file(path) if path else None
        self.keeps = self._file is not None
        """Whether unconfirmed lines are written to a file."""
        self.told = 0
        self.unconfirmed = 0

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no empty file behind."""
        if self._file is not None and self._path is not None:
            self._file.close()
            if not self.unconfirmed:
                self._path.unlink()

    def failed(self, unconfirmed: Unconfirmed) -> None:
        """Tell the first few errors, each with its line and never with its body."""
        self.told += 1
        if self.told <= TOLD:
            say(
                f"line {unconfirmed.number}: {unconfirmed.error}" if self._by_line else str(unconfirmed.error)
            )
        self.keep(unconfirmed.body)

    def keep(self, body: bytes) -> None:
        """Write a line that is not known to be confirmed."""
        self.unconfirmed += 1
        if self._file is not None:
            self._file.write(body + b"\n")

    def close(self, push: Push, seconds: float) -> int:
        """Say how it ended; return the exit code."""
        if self.told > TOLD:
            say(f"{self.told - TOLD} more lines failed")
        if push.fault:
            say(str(push.fault))
        if self.unconfirmed and self._by_line:
            where = f": they are in {self._path}" if self._path else "; --unconfirmed would have kept them"
            lines = "1 line is" if self.unconfirmed == 1 else f"{self.unconfirmed} lines are"
            say(f"{lines} not known to be confirmed{where}")
        rate = push.confirmed / seconds if seconds else 0
        click.echo(f"pushed {push.pushed}, confirmed {push.confirmed} in {seconds:.1f} s ({rate:.0f}/s)")
        if push.fault:
            return exit_code(push.fault)
        return FAILED if push.failed or push.stopped else 0


async def publish_all(
    url: BrokerUrl, target: tuple[str, str], bodies: AsyncIterator[bytes], check: Check, report: Report
) -> int:
    """Publish all *bodies* to the *target* (exchange, routing key); return the exit code."""
    publisher = Publisher(url, name="flow push", window=WINDOW)
    push = Push(lambda body: publisher.publish(*target, body), check, report.failed)
    start = time.monotonic()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(stop_at_signal, push, group.cancel_scope)
            if sys.stderr.isatty():
                group.start_soon(show_progress, push)
            await push.run(bodies)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await publisher.close()
    seconds = time.monotonic() - start
    for unconfirmed in push.unconfirmed():
        report.keep(unconfirmed.body)
    if push.stopped and isinstance(bodies, Lines):
        await keep_the_rest(bodies, report, whole=push.fault is not None or not bodies.endless)
    return report.close(push, seconds)


async def keep_the_rest(lines: Lines, report: Report, *, whole: bool) -> None:
    """Keep the lines that were not tried: of a pipe that may be endless only those that were read."""
    if not whole or not report.keeps:
        for line in lines.taken():
            report.keep(line)
        return
    async for line in lines:
        report.keep(line)


async def document(source: Source) -> AsyncIterator[bytes]:
    """Yield everything that *source* holds, once."""
    yield await source.document()


async def stop_at_signal(push: Push, scope: anyio.CancelScope) -> None:
    """Read no more after the first SIGINT or SIGTERM; wait for nothing after the second."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if push.stopped:
                scope.cancel()
            push.stop()


async def show_progress(push: Push) -> None:
    """Write the numbers over themselves on the terminal."""
    try:
        while True:
            click.echo(f"\rpushed {push.pushed}, confirmed {push.confirmed}", nl=False, err=True)
            await anyio.sleep(PROGRESS)
    finally:
        click.echo("\r\033[K", nl=False, err=True)
