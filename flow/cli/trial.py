"""`flow run --dry-run`, `--dump-only` and `--from`: try a pipeline out, and show what it does."""

import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import anyio
import click

from flow.account import Account
from flow.broker.url import BrokerUrl
from flow.cli.errors import fail, first_of, say
from flow.cli.options import opened
from flow.cli.private import new_file
from flow.cli.showing import show
from flow.errors import ConfigError, FlowError
from flow.exits import FAILED
from flow.pipeline import Pipeline, with_options
from flow.records.stores import kept
from flow.records.url import DatabaseUrl
from flow.retries import describe
from flow.trial.borrowing import borrowed
from flow.trial.files import Dump, bodies
from flow.trial.rehearsal import PipelineClass, Rehearsal
from flow.trial.results import Results
from flow.trial.trial import Trial

LIMIT = 20
NAME = "flow trial"
RETURNED = (
    "the messages are back in {}: the same as before, but marked redelivered, "
    "and their order and delivery count may have changed"
)

F = TypeVar("F", bound=Callable[..., Any])
Make = Callable[[PipelineClass], Pipeline[Any, Any]]
"""Makes the pipeline of a class with the options of the command line."""

log = logging.getLogger("flow")

folder = click.Path(file_okay=False, path_type=Path)
OPTIONS = (
    click.option(
        "--dry-run",
        is_flag=True,
        envvar="FLOW_DRY_RUN",
        help="Show what would be delivered, deliver nothing and give everything back.",
    ),
    click.option(
        "--limit",
        type=click.IntRange(1, 65_535),
        envvar="FLOW_LIMIT",
        help=f"The most messages for --dry-run, --dump-only or --from.  [default: {LIMIT}; of a file all]",
    ),
    click.option(
        "--show-personal-data",
        is_flag=True,
        allow_from_autoenv=False,  # a person asks for it, not a surrounding
        help="Let --dry-run show bodies as they are, not only their structure.",
    ),
    click.option(
        "--dump",
        type=folder,
        metavar="DIR",
        envvar="FLOW_DUMP",
        help="Copy the body of every message into DIR, for --from; it is consumed all the same.",
    ),
    click.option(
        "--dump-only",
        type=folder,
        metavar="DIR",
        envvar="FLOW_DUMP_ONLY",
        help="Copy the bodies of messages into DIR and give all of them back.",
    ),
    click.option(
        "--from",
        "source",
        type=click.Path(exists=True, path_type=Path),
        metavar="FILE",
        envvar="FLOW_FROM",
        is_eager=True,  # the broker's address is not needed then
        help="Consume FILE instead of a queue: a JSON document, one on each line, or the folder of a dump.",
    ),
)


def trial_options(command: F) -> F:
    """Add the options for trials to `flow run`."""
    for option in reversed(OPTIONS):
        command = option(command)
    return command


def is_trial(options: dict[str, Any]) -> bool:
    """Tell whether the *options* ask for a trial.

    Raises:
        click.UsageError: they do not go together.
    """
    dry, dump, dump_only, source = (options[name] for name in ("dry_run", "dump", "dump_only", "source"))
    asked = bool(dry or dump_only or source)
    if dump and asked:
        raise click.UsageError("--dump goes with consuming a queue: for a look alone there is --dump-only")
    if dump_only and (dry or source):
        raise click.UsageError("--dump-only goes neither with --dry-run nor with --from: it works nothing")
    if options["limit"] and not asked:
        raise click.UsageError("--limit goes with --dry-run, --dump-only or --from")
    if options["show_personal_data"] and not dry:
        raise click.UsageError("--show-personal-data goes with --dry-run: nothing else shows a body")
    return asked


def try_out(classes: Sequence[PipelineClass], url: BrokerUrl, options: dict[str, Any], make: Make) -> int:
    """Run the trial that the *options* ask for; return the exit code."""
    if len(classes) > 1:
        names = ", ".join(cls.__name__ for cls in classes)
        raise ConfigError(f"a trial goes with one pipeline, but there are {names}: name one as MODULE:Class")
    if not options["queue"] and not hasattr(classes[0], "queue"):
        raise ConfigError(
            f"{classes[0].__name__} names its queues while it runs: give one of them with --queue"
        )
    cls, limit, timeout = classes[0], options["limit"], options["shutdown_timeout"]
    try:
        if options["dump_only"]:
            queue = queue_of(cls, options["queue"])
            return anyio.run(dump_only, queue, url, options["dump_only"], limit or LIMIT)
        if options["dry_run"]:
            rehearsal = Rehearsal()
            pipeline = make(rehearsal.of(cls))
            source = options["source"]
            account = anyio.run(rehearse, pipeline, rehearsal, url, source, limit or LIMIT, timeout)
            show(rehearsal, account, revealing=options["show_personal_data"])
            if options["source"] is None:
                say(RETURNED.format(pipeline.queue))
            return 0
        return from_file(make(cls), options["source"], limit, timeout)
    except (Exception, BaseExceptionGroup) as group:  # noqa: BLE001  # the user's lifespan, or a bug, as in a service
        error = first_of(group)
        if isinstance(error, FlowError):
            fail(error)
        if isinstance(error, click.ClickException):
            raise error from None
        log.error("%s ended: %s", cls.name, describe(error), extra={"error": error})
        return FAILED


def queue_of(cls: PipelineClass, given: str | None) -> str:
    """Return the queue of *cls*, or the one *given* instead; its settings are not needed for that.

    Raises:
        ConfigError: there is none, or the class is wrong.
    """
    made = with_options(cls, {"queue": given}) if given else cls
    made.check()
    return made.queue


async def dump_only(queue: str, url: BrokerUrl, path: Path, limit: int) -> int:
    """Copy up to *limit* messages of *queue* and give them back; return the exit code."""
    dump, scope, code = Dump(path), anyio.CancelScope(), 0
    async with obeying(scope.cancel), borrowed(url, queue, limit, name=NAME) as messages:
        with scope:
            async for message in messages:
                try:
                    dump.write(message)
                except OSError as error:
                    say(f"the copies in {path} are not complete: {error.strerror}")
                    code = FAILED
                    break
    click.echo(f"copied {dump.copied} messages of {queue} to {path}")
    say(RETURNED.format(queue))
    return code


async def rehearse(
    pipeline: Pipeline[Any, Any],
    rehearsal: Rehearsal,
    url: BrokerUrl,
    source: Path | None,
    limit: int,
    timeout: float,
) -> Account:
    """Let *pipeline* work up to *limit* messages of its queue, or of the file *source*."""
    trial = Trial(pipeline, limit + 1, rehearsal.settled)  # the window is never full, so nothing starves

    async def feed(trial: Trial) -> None:
        if source is not None:
            for _, body in islice(bodies(source), limit):
                trial.receive(trial.origin.message(body))
            return
        queue, max_body = pipeline.queue, pipeline.max_body
        async with borrowed(url, queue, limit, name=NAME, max_body=max_body) as messages:
            async for message in messages:
                trial.receive(trial.origin.adopt(message))

    async with obeying(trial.stop):
        await trial.run(feed, timeout)
    return trial.account


def from_file(pipeline: Pipeline[Any, Any], source: Path, limit: int | None, timeout: float) -> int:
    """Consume the file *source*, tell what became of its messages, and return the exit code."""
    failed = beside(source, "failed")
    advice = "move away what another run left there"
    with (
        new_file(beside(source, "outcomes"), advice) as outcomes,
        new_file(failed, advice) as bodies_to_feed,
    ):
        results = Results(outcomes, bodies_to_feed)
        unread = islice(bodies(source), limit)
        try:
            account = anyio.run(consume, pipeline, unread, results, timeout)
        except BaseException:
            if not results.told:  # the next run shall find its place free
                for file in (outcomes, bodies_to_feed):
                    Path(file.name).unlink()
            raise
        for place, body in unread:
            results.left(place, body)
    click.echo(f"{pipeline.name}: {account}")
    if results.failed:
        say(
            f"{results.failed} messages were not delivered: their bodies are in {failed}, feed it with --from"
        )
    return FAILED if results.failed else 0


async def consume(
    pipeline: Pipeline[Any, Any], source: Iterator[tuple[str, bytes]], results: Results, timeout: float
) -> Account:
    """Let *pipeline* work everything in *source*, with ledger and claims as when it consumes a queue.

    Raises:
        ConfigError: its claims need a database, and there is none.
    """
    async with opened(DatabaseUrl.from_environment(os.environ)) as database:
        trial = Trial(pipeline, pipeline.granted(), results.settled, kept(pipeline, database))
        await _consume(trial, source, results, timeout)
    return trial.account


async def _consume(
    trial: Trial, source: Iterator[tuple[str, bytes]], results: Results, timeout: float
) -> None:
    async def feed(trial: Trial) -> None:
        while True:
            await trial.origin.room()  # before reading on: what is read is worked, or left for the results
            found = next(source, None)
            if found is None:
                return
            message = trial.origin.message(found[1])
            results.places[message.tag] = found[0]
            trial.receive(message)

    async with obeying(trial.stop):
        await trial.run(feed, timeout)


def beside(source: Path, what: str) -> Path:
    """Return where the results of a run on *source* are written: beside it."""
    path = source.resolve()
    return path.with_name(f"{path.name if path.is_dir() else path.stem}.{what}.jsonl")


@asynccontextmanager
async def obeying(stop: Callable[[], None]) -> AsyncIterator[None]:
    """Call *stop* at the first signal to end; end at once at the second."""

    async def obey(signals: Any) -> None:
        stopping = False
        async for number in signals:
            if stopping:
                os._exit(128 + number)
            stopping = True
            log.info("%s: giving back what is not finished", signal.Signals(number).name)
            stop()

    with anyio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(obey, signals)
            yield
            tasks.cancel_scope.cancel()
