"""`flow check`: tell what is wrong before anything is consumed."""

import os
import sys
from collections.abc import Sequence
from typing import Any

import anyio
import click
import msgspec

from flow.broker.url import BrokerUrl
from flow.checking.checking import check_queues, check_targets
from flow.checking.finding import Finding, State, caution, unchecked, wrong
from flow.checking.keeping import check_keeping
from flow.cli.masking import printable
from flow.cli.options import dead_letter_option
from flow.cli.variables import unknown
from flow.errors import ConfigError
from flow.exits import CONFIGURATION

COLOURS: dict[State, str] = {"ok": "green", "wrong": "red", "caution": "yellow", "not checked": "cyan"}
WIDTH = max(len(state) for state in COLOURS)


class Report:
    """Prints the findings."""

    def __init__(self, *, as_json: bool) -> None:
        self.wrong = 0
        """How many findings must be seen to."""
        self._json = as_json
        self._colour = False if os.environ.get("NO_COLOR") else None  # None: on a terminal only

    def __call__(self, finding: Finding) -> None:
        """Print one line."""
        self.wrong += finding.state == "wrong"
        if self._json:
            click.echo(msgspec.json.encode(finding))
            return
        state = click.style(f"{finding.state:{WIDTH}}", fg=COLOURS[finding.state])
        click.echo(f"{state}  {printable(finding.text)}", color=self._colour)


@click.command()
@click.argument("targets", metavar="TARGET...", nargs=-1, required=True)
@click.option(
    "--amqp-url",
    "url",
    metavar="URL",
    allow_from_autoenv=False,
    help="The broker; defaults to the variables that flow run reads.",
)
@click.option("--queue", envvar=["FLOW_QUEUE", "PROCA_QUEUE"], help="As for flow run.")
@click.option("--concurrency", type=int, envvar="FLOW_CONCURRENCY", help="As for flow run.")
@click.option("--prefetch", type=int, envvar="FLOW_PREFETCH", help="As for flow run.")
@click.option("--retry-delay", type=float, envvar="FLOW_RETRY_DELAY", help="As for flow run.")
@dead_letter_option
@click.option("--workers", type=click.IntRange(1), default=1, envvar="FLOW_WORKERS", help="As for flow run.")
@click.option("--strict", is_flag=True, envvar="FLOW_STRICT", help="Count warnings about options as wrong.")
@click.option(
    "--json", "as_json", is_flag=True, envvar="FLOW_CHECK_JSON", help="One JSON object on each line."
)
def check(
    targets: Sequence[str], url: str | None, workers: int, strict: bool, as_json: bool, **options: Any
) -> None:
    """Tell what is wrong with the pipelines of TARGET, their settings and their queues.

    Nothing is consumed, published or changed. FLOW_MANAGEMENT_URL, like https://USER:PASSWORD@HOST:15671,
    names the management API of RabbitMQ, which tells what AMQP does not. Exit code 78: something is wrong.
    """
    report = Report(as_json=as_json)
    given = {name: value for name, value in options.items() if value is not None}
    classes = check_targets(targets, given, os.environ, report, workers=workers, strict=strict)
    for sentence in unknown(click.get_current_context(), os.environ, *classes):
        report(caution(sentence))
    keeping = anyio.run(check_keeping, os.environ, report)
    try:
        broker = BrokerUrl.from_environment(os.environ) if url is None else BrokerUrl.parse(url)
    except ConfigError as error:
        report(wrong(str(error)))
        report(unchecked("the broker and its queues: it has no address"))
    else:
        anyio.run(check_queues, broker, classes, os.environ, keeping, report)
    sys.exit(CONFIGURATION if report.wrong else 0)
