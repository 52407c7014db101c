"""`flow demo`: the main job with everything that goes wrong, and an account of every message."""

import importlib.util
import sys
from textwrap import wrap

import anyio
import click

from flow.cli.errors import FAILED
from flow.errors import ConfigError

NEEDED = ("httpx2", "starlette", "uvicorn")
SECONDS, ROUND = 20.0, 60.0


@click.command()
@click.option(
    "--signatures",
    type=click.IntRange(200, 100_000),
    default=3000,
    show_default=True,
    help="How many are published; with --forever in each round.",
)
@click.option(
    "--seconds",
    type=click.FloatRange(5.0, 3600.0),
    help="About how long it lasts (20), or with --forever how long a round is (60).",
)
@click.option("--forever", is_flag=True, help="Go on until Ctrl-C, then drain and give the account.")
@click.option(
    "--ops-port",
    type=click.IntRange(0, 65535),
    default=0,
    show_default=True,
    help="The port of metrics and health; 0: a free one.",
)
@click.option("--plain", is_flag=True, help="Write lines on a terminal, too.")
def demo(signatures: int, seconds: float | None, forever: bool, ops_port: int, plain: bool) -> None:
    """Show the main job on embedded parts: outages, poison, retries, and an account of every message.

    Nothing needs to be installed or running: broker and CRM are in this process, on free ports of this
    machine. On a terminal the figures stay in place (with rich: proca-flow[rich]); NO_COLOR is respected.

    Exit code 0: every message is explained, and none was delivered twice.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"flow demo needs {' and '.join(missing)}: install proca-flow[http,ops]")
    from flow.demo.story import Script, Story
    from flow.demo.view import view_for

    view = view_for(sys.stdout, click.echo, plain=plain)
    script = Script(
        signatures=signatures,
        seconds=seconds or (ROUND if forever else SECONDS),
        forever=forever,
        ops_port=ops_port,
    )
    story = Story(view, script)
    fast = importlib.util.find_spec("uvloop") is not None
    explanation = anyio.run(story.run, backend_options={"use_uvloop": fast})
    indent = "  "
    received = wrap(story.received, 80, initial_indent=indent, subsequent_indent=indent)
    view.print(["", *explanation.lines(), "", *received, ""])
    view.print(["Every message is explained." if explanation.complete else "Not every message is explained."])
    sys.exit(0 if explanation.complete else FAILED)
