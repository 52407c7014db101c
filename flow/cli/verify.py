"""`flow verify`: does a pipeline keep its messages under faults?"""

import importlib
import importlib.util
import logging
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anyio
import click

from flow.cli.envfile import env_file
from flow.cli.logs import configure
from flow.cli.run import leave
from flow.errors import ConfigError
from flow.exits import FAILED
from flow.target import chosen
from flow.verify.bodies import made, read
from flow.verify.double import Answer, usual
from flow.verify.marks import Marks
from flow.verify.report import conclusion, lines
from flow.verify.review import WAITING, Review
from flow.verify.run import Plan, run, where

MESSAGES = 40


@click.command()
@click.argument("target", metavar="TARGET")
@env_file()
@click.option("--queue", envvar="FLOW_QUEUE", help="The queue's name, instead of the pipeline's own.")
@click.option(
    "--seed",
    type=click.IntRange(0),
    default=1,
    show_default=True,
    help="Decides which faults strike when; the first of several.",
)
@click.option(
    "--schedules", type=click.IntRange(1), default=5, show_default=True, help="Runs, each with another seed."
)
@click.option(
    "--messages",
    type=click.IntRange(1, 10_000),
    help=f"Messages in each run.  [default: {MESSAGES}; of a file all]",
)
@click.option(
    "--bodies",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    help="Bodies, a JSON document on each line, or the folder of a dump; else they are made up.",
)
@click.option(
    "--target-setting",
    "named",
    multiple=True,
    metavar="VARIABLE",
    help="The setting that gets the address of the double, like CRM_URL; repeatable.  [default: every URL]",
)
@click.option(
    "--answer",
    metavar="MODULE:FUNCTION",
    help="What the double answers: a function of method, path and decoded body that returns JSON.",
)
@click.option(
    "--optional",
    multiple=True,
    metavar="PATH",
    help="The path of calls that may fail, like /tags or '/tags/*'; repeatable.",
)
@click.option("--verbose", is_flag=True, help="Show the log of the runs.")
def verify(
    target: str,
    queue: str | None,
    seed: int,
    schedules: int,
    messages: int | None,
    bodies: Path | None,
    named: Sequence[str],
    answer: str | None,
    optional: Sequence[str],
    verbose: bool,
) -> None:
    """Run the pipelines of TARGET under faults, and tell whether they keep every message.

    They consume from a broker in memory and call a double of their target; both fail now and then, as the
    seed decides. Exit code 0: every message was settled, and what is called delivered had reached the target.
    1: something is wrong; the report says what, and how to see it again.
    """
    configure("console", "warning" if verbose else "error", tracebacks=False)
    if not verbose:
        for name in ("flow", "asyncio"):
            logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    good = True
    for cls in chosen([target]):
        samples = (
            made(cls, messages or MESSAGES, where(cls, queue)) if bodies is None else read(bodies, messages)
        )
        plan = Plan(
            cls=cls,
            samples=samples,
            marks=Marks([sample.body for sample in samples]),
            queue=queue,
            named=named,
            answer=usual if answer is None else function(answer),
            optional=optional,
        )
        times = "1 run" if schedules == 1 else f"{schedules} runs"
        click.echo(f"{cls.__name__}: {times} of {len(samples)} messages from {plan.where}")
        reviews = anyio.run(runs, plan, range(seed, seed + schedules), backend_options=backend())
        said, right = conclusion(reviews)
        for line in said:
            click.echo(line)
        bad = next((one.seed for one in reviews if one.wrong), seed)
        if not right:
            arguments = again(target, bad, messages, bodies, queue, named, answer, optional)
            click.echo(f"see it again: flow verify {arguments}")
        good = good and right
    leave(0 if good else FAILED)


def backend() -> dict[str, Any]:
    """Return the options of the loop: the fast one, if it is installed."""
    return {"use_uvloop": importlib.util.find_spec("uvloop") is not None}


async def runs(plan: Plan, seeds: Sequence[int]) -> list[Review]:
    """Run the plan with each of *seeds*, and tell of each at once; end with one whose end all would share."""
    reviews = []
    for seed in seeds:
        reviews.append(await run(plan, seed))
        for line in lines(reviews[-1], plan.samples):
            click.echo(line)
        if WAITING in reviews[-1].fates.values() or reviews[0].vain:
            break
    return reviews


def function(name: str) -> Answer:
    """Return the function called MODULE:FUNCTION.

    Raises:
        ConfigError: there is none.
    """
    module, _, wanted = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), wanted)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"--answer must be MODULE:FUNCTION, and {name} is not found: {error}") from None
    if not callable(found):
        raise ConfigError(f"--answer must be MODULE:FUNCTION, and {name} cannot be called")
    answer: Answer = found
    return answer


def again(
    target: str,
    seed: int,
    messages: int | None,
    bodies: Path | None,
    queue: str | None,
    named: Sequence[str],
    answer: str | None,
    optional: Sequence[str],
) -> str:
    """Return the arguments with which the run of *seed* is made once more."""
    words = [target, "--seed", str(seed), "--schedules", "1"]
    for flag, value in (
        ("--messages", messages),
        ("--bodies", bodies),
        ("--queue", queue),
        ("--answer", answer),
    ):
        if value is not None:
            words += [flag, str(value)]
    for variable in named:
        words += ["--target-setting", variable]
    for path in optional:
        words += ["--optional", path]
    return shlex.join(words)
