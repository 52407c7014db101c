"""`flow submit`: store and process signatures from lines of JSON, without any server."""

import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO

import anyio
import click
import msgspec

from flow.broker.publisher import Publisher
from flow.broker.url import BrokerUrl
from flow.cli.errors import exit_code, say
from flow.cli.options import amqp_url, database_url
from flow.cli.private import new_file
from flow.errors import DatabaseError
from flow.exits import FAILED
from flow.plumbing.intake import Intake, Wrong
from flow.plumbing.lines import Lines, Source
from flow.plumbing.outbox import Account, Outbox
from flow.plumbing.submission import Action
from flow.plumbing.submitting import Submitted, Submitting
from flow.plumbing.sweeper import counted
from flow.records import outbox
from flow.records.database import Database
from flow.records.url import DatabaseUrl

TOLD = 10  # wrong lines that are told one by one
PROGRESS = 0.2  # seconds between two looks at the progress
LOOK = 0.5  # seconds between two looks at the outbox while lines are stored


@click.command()
@click.argument("file", type=click.File("rb"), default="-")
@click.option(
    "--no-publish",
    is_flag=True,
    is_eager=True,
    help="Leave the messages in the outbox, for `flow sweep`; no broker is needed.",
)
@amqp_url
@database_url
@click.option(
    "--wrong",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="NEW_FILE",
    help="Write the lines that are not stored there, to be submitted again. Defaults to the name of FILE "
    "with .wrong, or submit.wrong for standard input, and a number if that is there.",
)
@click.option(
    "--results",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="NEW_FILE",
    help="Write there for each action, as a line of JSON, its actionId, contactRef and status.",
)
def submit(
    file: BinaryIO,
    no_publish: bool,
    url: BrokerUrl | None,
    database_url: DatabaseUrl,
    wrong: Path | None,
    results: Path | None,
) -> None:
    """Store the signatures of FILE (default: standard input), process and publish them.

    Each line is a JSON object with a "type": organisation, campaign, actionPage, or action if it has none;
    docs/processing.md has them all. A wrong line is told with its number and kept in a file; the exit code
    is then 1. An action with a "submission" is stored once, however often it is submitted.
    """
    source = Source(file.fileno())
    with Report(wrong, wrong_name(file), results) as report:
        code = anyio.run(submit_all, database_url, None if no_publish else url, Lines(source), report)
    sys.exit(code)


def wrong_name(file: BinaryIO) -> Path:
    """Return the name of the file for wrong lines that is taken when none is given."""
    name = getattr(file, "name", "-")
    path = Path(name) if isinstance(name, str) and name not in ("-", "<stdin>") else Path("submit")
    first = path.with_name(f"{path.name}.wrong")
    found, number = first, 1
    while found.exists():
        number += 1
        found = first.with_name(f"{first.name}.{number}")
    return found


class Report:
    """Tells what is wrong, and keeps the lines that have to be submitted again."""

    def __init__(self, named: Path | None, otherwise: Path, results: Path | None) -> None:
        """Write wrong lines to the file that is *named*, or else to another at the first of them."""
        self._path = named or otherwise
        self._file = new_file(named) if named else None
        self._results = new_file(results) if results else None
        self.told = 0
        self.kept = 0

    def __enter__(self) -> "Report":
        return self

    def __exit__(self, *_: object) -> None:
        """Leave no empty file behind."""
        if self._results is not None:
            self._results.close()
        if self._file is not None:
            self._file.close()
            if not self.kept:
                self._path.unlink()

    def wrong(self, wrong: Wrong) -> None:
        """Tell the first few errors, each with its line and never with its contents."""
        if wrong.error is not None:
            self.told += 1
            if self.told <= TOLD:
                say(f"line {wrong.number}: {wrong.error}")
        self.keep(wrong.line)

    def keep(self, line: bytes) -> None:
        """Write a line that is not stored."""
        self.kept += 1
        if self._file is None:
            self._file = new_file(self._path)
        self._file.write(line + b"\n")

    def stored(self, number: int, action: Action, submitted: Submitted) -> None:
        """Write what became of an action."""
        if self._results is not None:
            result = {
                "line": number,
                "submission": action.submission,
                "actionId": submitted.action_id,
                "supporterId": submitted.supporter_id,
                "contactRef": submitted.contact_ref,
                "status": submitted.status or "submitted before",
            }
            self._results.write(msgspec.json.encode(result) + b"\n")

    def close(self, intake: Intake, account: Account, waiting: int, seconds: float) -> int:
        """Say how it ended; return the exit code."""
        if self.told > TOLD:
            say(f"{self.told - TOLD} more lines are wrong")
        if intake.fault:
            say(str(intake.fault))
        if account.fault and str(account.fault) != str(intake.fault):
            say(str(account.fault))
        for reason, number in account.refused.items():
            say(f"{counted(number, 'message')} not taken by the broker, kept to be tried again: {reason}")
        if self.kept:
            lines = f"{counted(self.kept, 'line')} {'is' if self.kept == 1 else 'are'}"
            say(f"{lines} not stored: submit {self._path} once what is wrong is corrected")
        if waiting:
            say(f"{counted(waiting, 'message')} in the outbox: flow sweep publishes them")
        stored, defined = counted(intake.stored, "action"), counted(intake.defined, "definition")
        published = counted(account.published, "message")
        click.echo(
            f"read {counted(intake.read, 'line')} in {seconds:.1f} s: stored {stored}, "
            f"{intake.repeated} submitted before, {defined}, {intake.wrong} wrong; published {published}"
        )
        if intake.fault:
            return exit_code(intake.fault)
        return FAILED if self.kept or intake.stopped or account.fault or account.refused else 0


async def submit_all(url: DatabaseUrl, broker: BrokerUrl | None, lines: Lines, report: Report) -> int:
    """Store all *lines*, publish what comes of them, and return the exit code."""
    account, start = Account(), time.monotonic()
    async with Database.opened(url) as database:
        intake = Intake(Submitting(database), report.wrong, report.stored)
        async with anyio.create_task_group() as group:
            group.start_soon(stop_at_signal, intake, group.cancel_scope)
            if sys.stderr.isatty():
                group.start_soon(show_progress, intake, account)
            async with anyio.create_task_group() as working:
                stored = anyio.Event()
                if broker is not None:
                    working.start_soon(publish, database, broker, account, stored)
                await intake.run(lines)
                stored.set()
            group.cancel_scope.cancel()
        if intake.stopped:
            await keep_the_rest(lines, report)
        waiting = 0 if intake.fault else (await outbox.waiting(database))[0]
    return report.close(intake, account, waiting, time.monotonic() - start)


async def publish(database: Database, broker: BrokerUrl, account: Account, stored: anyio.Event) -> None:
    """Publish while lines are stored, and what is left at the end, or until the database fails.

    It is never cancelled in the middle: what is on its way then would be published a second time.
    """
    publisher = Publisher(broker, name="flow submit")
    box = Outbox(database, publisher)
    try:
        last = False
        while not last:
            last = stored.is_set()
            done = await box.publish()
            account.published += done.published
            account.refused.update(done.refused)
            account.fault = done.fault
            with anyio.move_on_after(LOOK):
                await stored.wait()
    except DatabaseError as error:
        account.fault = error
    finally:
        with anyio.CancelScope(shield=True):
            await publisher.close()


async def keep_the_rest(lines: Lines, report: Report) -> None:
    """Keep the lines that were not tried: of a pipe that may be endless only those that were read."""
    if lines.endless:
        for line in lines.taken():
            report.keep(line)
        return
    async for line in lines:
        report.keep(line)


async def stop_at_signal(intake: Intake, scope: anyio.CancelScope) -> None:
    """Read no more after the first SIGINT or SIGTERM; wait for nothing after the second."""
    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            if intake.stopped:
                scope.cancel()
            intake.stop()


async def show_progress(intake: Intake, account: Account) -> None:
    """Write the numbers over themselves on the terminal."""
    try:
        while True:
            numbers = f"stored {intake.stored}, wrong {intake.wrong}, published {account.published}"
            click.echo(f"\r{numbers}", nl=False, err=True)
            await anyio.sleep(PROGRESS)
    finally:
        click.echo("\r\033[K", nl=False, err=True)
