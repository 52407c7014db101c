"""`flow demo`: the whole story with everything that goes wrong, and an account of every signature."""

import importlib.util
import sys
from pathlib import Path

import anyio
import click

from flow.errors import ConfigError
from flow.exits import FAILED

NEEDED = {
    "httpx2": "http",
    "starlette": "ops",
    "uvicorn": "ops",
    "sqlalchemy": "sql",
    "aiosqlite": "sql",
    "alembic": "sql",
    "aiosmtplib": "mail",
    "jinja2": "mail",
    "aiobotocore": "sqs",
    "itsdangerous": "serve",
}
SECONDS, ROUND = 20.0, 60.0


@click.command()
@click.option(
    "--signatures",
    type=click.IntRange(100, 100_000),
    default=240,
    show_default=True,
    help="How many are submitted; with --forever in each round.",
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
@click.option(
    "--keep",
    type=click.Path(path_type=Path, file_okay=False),
    help="A new folder in which records and mails stay; without it they are deleted at the end.",
)
@click.option("--plain", is_flag=True, help="Write lines on a terminal, too.")
def demo(
    signatures: int, seconds: float | None, forever: bool, ops_port: int, keep: Path | None, plain: bool
) -> None:
    """Show the whole story on embedded parts: submit, confirm mail, click, CRM, thank-you mail, SQS.

    Nothing needs to be installed or running: records, broker, mail server, CRM and SQS are in this process,
    on free ports of this machine, and all of them fail now and then. On a terminal the figures stay in place
    (with rich: proca-flow[rich]); NO_COLOR is respected.

    Exit code 0: every signature is explained, and nothing was done twice.
    """
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        extras = ",".join(sorted({NEEDED[name] for name in missing}))
        raise ConfigError(f"flow demo needs {' and '.join(missing)}: install proca-flow[{extras}]")
    if keep is not None and keep.exists() and any(keep.iterdir()):
        raise ConfigError(f"{keep} is not empty: give a new folder with --keep")
    from flow.demo.story import Script, Story
    from flow.demo.view import view_for

    view = view_for(sys.stdout, click.echo, plain=plain)
    script = Script(
        signatures=signatures,
        seconds=seconds or (ROUND if forever else SECONDS),
        forever=forever,
        ops_port=ops_port,
        kept=keep,
    )
    story = Story(view, script)
    fast = importlib.util.find_spec("uvloop") is not None
    explanation = anyio.run(story.run, backend_options={"use_uvloop": fast})
    view.print(["", *explanation.lines(), "", *story.received, ""])
    if keep is not None:
        view.print([f"Records and mails are in {keep}.", ""])
    done = explanation.complete
    view.print(["Every signature is explained." if done else "Not every signature is explained."])
    sys.exit(0 if done else FAILED)
