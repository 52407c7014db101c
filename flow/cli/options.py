"""Options that several commands share."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import click

from flow.broker.url import BrokerUrl

F = TypeVar("F", bound=Callable[..., Any])


def amqp_url(command: F) -> F:
    """Add `--amqp-url`; the command gets a `BrokerUrl` as *url*."""
    return click.option(
        "--amqp-url",
        "url",
        metavar="URL",
        callback=_broker_url,
        help="The broker, amqp:// or amqps://. Defaults to AMQP_URL, FLOW_AMQP_URL or PROCA_URL.",
    )(command)


def _broker_url(context: click.Context, _: click.Parameter, value: str | None) -> BrokerUrl | None:
    """Leave the check to `BrokerUrl`: click would quote the value, which may hold a password."""
    if context.resilient_parsing:
        return None
    return BrokerUrl.from_environment(os.environ) if value is None else BrokerUrl.parse(value)
