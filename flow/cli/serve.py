"""`flow serve`: answers the links in mails and messages."""

import importlib.util
import logging
import os
from collections.abc import Sequence

import anyio
import click

from flow.broker.url import BrokerUrl
from flow.cli.logs import configure
from flow.cli.options import amqp_url, database_url
from flow.cli.variables import unknown
from flow.links import SECRET, Tokens
from flow.options import variable
from flow.records.url import DatabaseUrl
from flow.serving import trusted
from flow.serving.admission import Policy
from flow.serving.service import OPS_PORT, Serving
from flow.serving.tokens import ApiTokens
from flow.settings import Secret

TOKENS = "FLOW_API_TOKENS"

log = logging.getLogger("flow")


@click.command()
@amqp_url
@database_url
@click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen at.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8080,
    show_default=True,
    help="The port; 0: any free one.",
)
@click.option(
    "--redirect-host",
    "redirect_hosts",
    multiple=True,
    metavar="HOST",
    help="A host that a link may send the browser on to (redir=); repeatable.",
)
@click.option(
    "--trusted-proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="An address or network whose X-Forwarded-For is believed; repeatable.",
)
@click.option(
    "--requests",
    type=click.IntRange(1),
    default=60,
    show_default=True,
    help="How many requests an address may make in a minute; more are refused.",
)
@click.option(
    "--sweep-every",
    type=click.FloatRange(0.1),
    default=10.0,
    show_default=True,
    metavar="SECONDS",
    help="How often the outbox is looked through for what a crash left behind.",
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
    default=OPS_PORT,
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
    help="How the log is written to standard error: lines for people, or one JSON object on each line.",
)
def serve(
    url: BrokerUrl,
    database_url: DatabaseUrl,
    host: str,
    port: int,
    redirect_hosts: Sequence[str],
    proxies: Sequence[str],
    requests: int,
    sweep_every: float,
    ops_host: str,
    ops_port: int,
    no_ops: bool,
    log_format: str,
) -> None:
    """Answer the links by which supporters confirm and moderators decide, and publish what follows.

    FLOW_LINK_SECRET (or _FILE) verifies moderators' links; FLOW_API_TOKENS (or _FILE) holds a line with
    ORGANISATION TOKEN for each program that may act.
    """
    configure(log_format, "info", tracebacks=False)
    for sentence in unknown(click.get_current_context(), os.environ):
        log.warning("%s", sentence)
    secret = variable(os.environ, SECRET)
    tokens = variable(os.environ, TOKENS)
    policy = Policy(
        tokens=ApiTokens.parse(Secret(tokens) if tokens else None),
        moderation=Tokens(secret) if secret else None,
        redirect_hosts=trusted.redirect_hosts(redirect_hosts),
        requests=requests,
    )
    serving = Serving(
        database_url,
        url,
        policy,
        host=host,
        port=port,
        proxies=trusted.proxies(proxies),
        every=sweep_every,
        ops_host=ops_host,
        ops_port=None if no_ops else ops_port,
    )
    fast = importlib.util.find_spec("uvloop") is not None
    anyio.run(serving.run, backend_options={"use_uvloop": fast})
