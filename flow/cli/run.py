"""`flow run`: consume until stopped."""

import asyncio
import importlib.util
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import anyio
import click

from flow.broker.url import BrokerUrl
from flow.cli.embedded import GONE, Embedded, check_dev, dev_option
from flow.cli.envfile import env_file
from flow.cli.errors import fail
from flow.cli.logs import configure
from flow.cli.options import amqp_url, dead_letter_option
from flow.cli.supervise import supervise, supervised, supervision
from flow.cli.trial import is_trial, trial_options, try_out
from flow.cli.variables import unknown
from flow.errors import ConfigError, FlowError
from flow.pipeline import Pipeline
from flow.records.database import Database
from flow.records.url import DatabaseUrl
from flow.runner import Runner, RunOptions
from flow.service import Service
from flow.settings import strangers
from flow.target import check_one, check_workers, chosen
from flow.trial.files import Dump
from flow.worker import Worker

log = logging.getLogger("flow")


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@env_file()
@amqp_url
@dev_option
@click.option(
    "--queue", envvar=["FLOW_QUEUE", "PROCA_QUEUE"], help="Consume this queue instead of the pipeline's own."
)
@click.option(
    "--concurrency",
    type=int,
    envvar="FLOW_CONCURRENCY",
    help="Messages in handle_message at once, instead of the pipeline's own number.",
)
@click.option(
    "--prefetch",
    type=int,
    envvar="FLOW_PREFETCH",
    help="How many messages may be here unsettled, instead of what the pipeline asks for.",
)
@click.option(
    "--shutdown-timeout",
    type=click.FloatRange(0.1),
    default=25.0,
    show_default=True,
    envvar="FLOW_SHUTDOWN_TIMEOUT",
    help="Seconds to finish what was received after a request to stop.",
)
@click.option(
    "--retry-delay",
    type=float,
    envvar="FLOW_RETRY_DELAY",
    help="Seconds that a rejected message waits in the retry loop: as for flow setup.",
)
@dead_letter_option
@supervision
@click.option(
    "--state-dir",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="FLOW_STATE_DIR",
    help="A folder for notes that outlive a crash: it guards against messages that kill the process.",
)
@click.option(
    "--wait",
    is_flag=True,
    envvar="FLOW_WAIT",
    help="While the set-up is wrong, try again every minute instead of ending.",
)
@click.option(
    "--strict", is_flag=True, envvar="FLOW_STRICT", help="End where a warning about options would be logged."
)
@click.option(
    "--ops-host",
    default="127.0.0.1",
    show_default=True,
    envvar="FLOW_OPS_HOST",
    help="The address where metrics and health are served; they are not for the public.",
)
@click.option(
    "--ops-port",
    type=click.IntRange(0, 65535),
    default=9300,
    show_default=True,
    envvar="FLOW_OPS_PORT",
    help="The port of metrics and health; 0: any free one.",
)
@click.option("--no-ops", is_flag=True, envvar="FLOW_NO_OPS", help="Serve no metrics and no health.")
@click.option(
    "--log-format",
    type=click.Choice(["console", "json"]),
    default="console",
    show_default=True,
    envvar="FLOW_LOG_FORMAT",
    help="How the log is written to standard error: lines for people, or one JSON object on each line.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="FLOW_LOG_LEVEL",
    help="From which level on flow and the packages of TARGET log; other libraries log warnings and errors.",
)
@click.option(
    "--tracebacks",
    is_flag=True,
    envvar="FLOW_TRACEBACKS",
    help="Log full tracebacks; they may quote personal data.",
)
@trial_options
def run(
    targets: tuple[str, ...],
    url: BrokerUrl,
    log_format: str,
    log_level: str,
    tracebacks: bool,
    strict: bool,
    **options: Any,
) -> None:
    """Run the pipelines of each TARGET: a module, or module:Class.

    Stops at SIGTERM or SIGINT: finishes what was received, accounts for every message and exits with 0, or
    with 3 when callbacks had to be cancelled. A second signal ends it at once. Exit code 78: the set-up is
    wrong.

    --dry-run, --dump-only and --from try a pipeline out instead, and end by themselves.
    """
    worker = Worker.taken_from(os.environ)
    configure(
        log_format,
        log_level,
        tracebacks=tracebacks,
        worker=None if worker is None else worker.number,
        packages=[target.partition(":")[0].partition(".")[0] for target in targets],
    )
    try:
        check_dev(options)
        if worker is None and supervised(options) and not is_trial(options):
            leave(supervise(options))
        classes = chosen(targets)
        if options["queue"] is not None:
            check_one(classes, targets)
        if options["dead_letter"] is not None:
            check_one(classes, targets, "--dead-letter")
        if worker is None or worker.number == 1:
            for sentence in unknown(click.get_current_context(), os.environ, *classes):
                log.warning("%s", sentence)
        if is_trial(options):
            leave(try_out(classes, url, options, lambda cls: made(cls, options, strict=strict)))
        workers = 1 if worker is None else worker.of
        embedded = Embedded() if options["dev"] else None
        wanted = classes if embedded is None else [embedded.of(cls) for cls in classes]
        pipelines = [made(cls, options, workers, strict=strict) for cls in wanted]
        code = anyio.run(
            serve if embedded is None else partial(serve_embedded, embedded),
            pipelines,
            url,
            options,
            worker,
            backend_options={"use_uvloop": importlib.util.find_spec("uvloop") is not None},
        )
    except FlowError as error:
        fail(error)
    leave(code)


def made(
    cls: type[Pipeline[Any, Any]], options: dict[str, Any], workers: int = 1, *, strict: bool
) -> Pipeline[Any, Any]:
    """Make the pipeline with the options given on the command line and its settings from the environment.

    As one of several *workers* it has a share of the rate limit.

    Raises:
        ConfigError: an option, a setting or the class is wrong.
    """
    given = {
        name: options[name] for name in ("queue", "concurrency", "prefetch", "retry_delay", "dead_letter")
    }
    changed = {name: value for name, value in given.items() if value is not None}
    if workers > 1:
        check_workers(cls, workers)
    pipeline = cls.configured(os.environ, **changed)
    if workers > 1 and pipeline.rate_limit is not None:  # of the class, or as its settings say
        pipeline.rate_limit = pipeline.rate_limit.divided(workers)
    wanted = cls.settings_type()
    for sentence in () if wanted is None else strangers(wanted, os.environ):
        log.warning("%s", sentence)
    for warning in pipeline.warnings():
        if strict:
            raise ConfigError(warning)
        log.warning("%s", warning)
    return pipeline


async def serve(
    pipelines: list[Pipeline[Any, Any]], url: BrokerUrl, options: dict[str, Any], worker: Worker | None
) -> int:
    """Run *pipelines* until a signal; return the exit code."""
    dump = Dump(options["dump"]) if options["dump"] else None
    given = {name: options[name] for name in ("shutdown_timeout", "wait", "state_dir")}
    port = None if options["no_ops"] else options["ops_port"]
    named = DatabaseUrl.from_environment(os.environ)
    database = None if named is None else Database(named)
    run_options = RunOptions(**given, database=database, copy=dump.copy if dump else None)
    runners = [Runner(pipeline, url, run_options) for pipeline in pipelines]
    told: dict[str, Any] = {"unfinished": GONE} if options["dev"] else {}
    if dump is not None:
        told["ending"] = dump.tell
    return await Service(
        runners,
        ops_host=options["ops_host"],
        ops_port=port,
        worker=worker,
        database=database,
        **told,
    ).run()


async def serve_embedded(
    embedded: Embedded,
    pipelines: list[Pipeline[Any, Any]],
    _: BrokerUrl | None,
    options: dict[str, Any],
    worker: Worker | None,
) -> int:
    """Run *pipelines* on the broker *embedded* until a signal; return the exit code."""
    async with embedded:
        url = await embedded.start(pipelines)
        asyncio.get_running_loop().call_soon(embedded.tell)  # it has its turn once signals are obeyed
        return await serve(pipelines, url, options, worker)


def leave(code: int) -> NoReturn:
    """End the process with *code*, even when a worker thread still runs."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
