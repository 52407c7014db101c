"""`flow push`: publish one JSON document, or one for each line, confirmed."""

import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO

import anyio
import click

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.cli.errors import say
from flow.cli.options import amqp_url
from flow.cli.progress import Progress, show
from flow.cli.unconfirmed import Report
from flow.errors import ConfigError, DecodeError
from flow.plumbing.lines import LONGEST, Lines, Source
from flow.plumbing.park import LARGEST_BODY
from flow.plumbing.push import (
    WINDOW,
    Outgoing,
    Push,
    Unconfirmed,
    check_document,
    check_line,
    check_nothing,
)
from flow.plumbing.report import read

PATIENCE = 60.0  # seconds for a lost broker to come back, once it has confirmed something


@click.command()
@click.argument("exchange", required=False)
@click.argument("routing_key", required=False)
@click.argument("file", type=click.File("rb"), default="-")
@amqp_url
@click.option("--lines", is_flag=True, help="FILE holds one JSON document on each line.")
@click.option("--raw", is_flag=True, help="Push bodies as they are, JSON or not.")
@click.option(
    "--unconfirmed",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="NEW_FILE",
    help="Write there what is not known to be confirmed, instead of to a new file in the current folder.",
)
@click.option(
    "--again",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Push what such a file holds, each message to where it was bound and with the id that it had.",
)
def push(
    exchange: str | None,
    routing_key: str | None,
    file: BinaryIO,
    url: BrokerUrl,
    lines: bool,
    raw: bool,
    unconfirmed: Path | None,
    again: Path | None,
) -> None:
    """Publish the JSON of FILE (default: standard input) to EXCHANGE with ROUTING_KEY.

    Returns once the broker has confirmed everything. A message that no queue is bound for, or that a full
    queue refuses, is an error that names its line; the exit code is then 1. A connection that breaks is
    opened again for the rest; what was under way may have arrived or not, and is kept in a file.
    """
    if again is not None and (exchange or lines):
        raise click.UsageError("--again goes alone: its file tells exchange, routing key and bodies")
    if again is None and (exchange is None or routing_key is None):
        raise click.UsageError(f"Missing argument '{'ROUTING_KEY' if exchange else 'EXCHANGE'}'.")
    check = check_nothing if raw else check_document if not lines and again is None else check_line
    if again is not None:
        check_report(again)
        file = again.open("rb")
    source = Source(file.fileno())
    if again is not None:
        messages = Messages(Lines(source), read)
    else:
        bodies = Lines(source) if lines else document(source)
        messages = Messages(bodies, to(exchange or "", routing_key or ""))
    with file, Report(unconfirmed, by_line=lines or again is not None) as report:
        code = anyio.run(publish_all, url, messages, check, report, source)
    sys.exit(code)


def check_report(path: Path) -> None:
    """Check every line before the first is pushed.

    Raises:
        ConfigError: it is no report.
    """
    with path.open("rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LONGEST + 1), b""), 1):
            try:
                if len(line) > LONGEST:
                    raise DecodeError(f"it is longer than {LONGEST} bytes")
                read(line)
            except DecodeError as error:
                raise ConfigError(f"line {number} of {path}: {error}") from None


def to(exchange: str, routing_key: str) -> Callable[[bytes], Outgoing]:
    """Return what makes a message of a body: with a new id, to one place."""
    return lambda body: Outgoing(exchange=exchange, routing_key=routing_key, body=body)


class Messages:
    """Iterates over what is to be pushed."""

    def __init__(self, bodies: AsyncIterator[bytes], made: Callable[[bytes], Outgoing]) -> None:
        """Read *bodies*, of which a message is *made* each."""
        self._bodies = bodies
        self._made = made

    @property
    def endless(self) -> bool:
        """Whether they may go on for ever."""
        return isinstance(self._bodies, Lines) and self._bodies.endless

    def __aiter__(self) -> "Messages":
        return self

    async def __anext__(self) -> Outgoing:
        """Return the next message; a cancelled wait loses nothing."""
        return self._made(await anext(self._bodies))

    def taken(self) -> list[Outgoing]:
        """Take out what was read already and not asked for."""
        lines = self._bodies.taken() if isinstance(self._bodies, Lines) else []
        return [self._made(line) for line in lines]


async def publish_all(
    url: BrokerUrl, messages: Messages, check: Callable[[bytes], bool], report: Report, source: Source
) -> int:
    """Publish all *messages*; return the exit code."""
    publisher = Publisher(url, name="flow push", window=WINDOW)

    async def publish(one: Outgoing) -> None:
        await publisher.publish(one.exchange, one.routing_key, one.body, message_id=one.message_id)

    push = Push(publish, lambda one: check(one.body), report.failed, patience=PATIENCE)
    start = time.monotonic()
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(stop_at_signal, push, group.cancel_scope)
            group.start_soon(show, Progress(push, source))
            await push.run(messages)
            group.cancel_scope.cancel()
    finally:
        with anyio.CancelScope(shield=True):
            await publisher.close()
    seconds = time.monotonic() - start
    for unconfirmed in push.unconfirmed():
        report.keep(unconfirmed)
    if push.stopped:
        await keep_the_rest(messages, report, push.read, whole=push.fault is not None or not messages.endless)
    return report.close(push, seconds, repeatable=not source.endless)


async def keep_the_rest(messages: Messages, report: Report, read: int, *, whole: bool) -> None:
    """Keep what was not tried: of a pipe that may be endless only what was read."""
    if not whole:
        for number, message in enumerate(messages.taken(), read + 1):
            report.keep(Unconfirmed(number, message, None))
        return
    if messages.endless:
        say("the rest of the input is read and kept")
    async for message in messages:
        read += 1
        report.keep(Unconfirmed(read, message, None))


async def document(source: Source) -> AsyncIterator[bytes]:
    """Yield everything that *source* holds, once.

    Raises:
        DecodeError: it is too large for a message.
    """
    yield await source.document(LARGEST_BODY)


async def stop_at_signal(push: Push[Outgoing], scope: anyio.CancelScope) -> None:
    """Read no more after the first SIGINT or SIGTERM; wait for nothing after the second."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if push.stopped:
                scope.cancel()
            push.stop()
