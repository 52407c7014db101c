"""Options that several commands share."""

import logging
import os
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from typing import Any, TypeVar

import click

from flow.broker.url import BrokerUrl
from flow.errors import ConfigError
from flow.records.database import Database
from flow.records.url import FORM, VARIABLE, DatabaseUrl

F = TypeVar("F", bound=Callable[..., Any])

log = logging.getLogger("flow")


def amqp_url(command: F) -> F:
    """Add `--amqp-url`; the command gets a `BrokerUrl` as *url*."""
    return click.option(
        "--amqp-url",
        "url",
        metavar="URL",
        callback=_broker_url,
        allow_from_autoenv=False,
        help="The broker: amqps://USER:PASSWORD@HOST/VHOST. Defaults to FLOW_AMQP_URL, AMQP_URL or PROCA_URL "
        "(or one of them with _FILE), which keep the password out of the list of processes.",
    )(command)


def retry_delay_option(command: F) -> F:
    """Add `--retry-delay`; the command gets the seconds as *retry_delay*."""
    return click.option(
        "--retry-delay",
        type=float,
        default=30.0,
        show_default=True,
        envvar="FLOW_RETRY_DELAY",
        help="Seconds that a rejected message waits for its next attempt.",
    )(command)


def dead_letter_option(command: F) -> F:
    """Add `--dead-letter`; the command gets it as *dead_letter*, None when it is not given."""
    return click.option(
        "--dead-letter",
        type=click.Choice(["assume", "refuse"]),
        envvar="FLOW_DEAD_LETTER",
        help="assume: the queue of the pipeline has a retry loop, as flow setup --queue makes it; without "
        "one, what is rejected is lost. refuse: it has none. Defaults to what the pipeline says.",
    )(command)


def database_url(command: F) -> F:
    """Add `--database-url`; the command gets a `DatabaseUrl` as *database_url*."""
    return click.option(
        "--database-url",
        "database_url",
        metavar="URL",
        callback=_database_url,
        allow_from_autoenv=False,
        help="The records: sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE. Defaults to "
        "FLOW_DATABASE_URL or FLOW_DATABASE_URL_FILE, which keep the password out of the list of processes.",
    )(command)


def _database_url(context: click.Context, _: click.Parameter, value: str | None) -> DatabaseUrl | None:
    """Leave the check to `DatabaseUrl`: click would quote the value, which may hold a password."""
    if context.resilient_parsing:
        return None
    url = DatabaseUrl.from_environment(os.environ) if value is None else DatabaseUrl.parse(value)
    if url is None:
        raise ConfigError(f"No database is named: set {VARIABLE} to {FORM}")
    return url


def _broker_url(context: click.Context, _: click.Parameter, value: str | None) -> BrokerUrl | None:
    """Leave the check to `BrokerUrl`: click would quote the value, which may hold a password.

    A command that reads a file instead of a queue (`flow run --from`), has a broker of its own
    (`flow run --dev`) or is not to publish needs none.
    """
    params = context.params
    if context.resilient_parsing or params.get("source") is not None or params.get("no_publish"):
        return None
    if params.get("dev"):
        if value is not None:
            raise click.UsageError("--dev does not go with --amqp-url: it brings its own broker")
        return None
    return BrokerUrl.from_environment(os.environ) if value is None else BrokerUrl.parse(value)


def opened(url: DatabaseUrl | None) -> AbstractAsyncContextManager[Database | None]:
    """Open the database of *url*, once for all pipelines, and wait for it; without one there is none."""
    return nullcontext() if url is None else Database.awaited(url, log.error)
