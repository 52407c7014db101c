"""The whole check, one finding after another."""

from collections.abc import Mapping, Sequence

from flow.broker.url import BrokerUrl
from flow.checking.broker import check_broker, check_park, check_queue, tell_unreached
from flow.checking.declared import (
    PipelineClass,
    extras,
    loop_of,
    memory_of,
    options_of,
    settings_of,
    strangers_of,
    together,
)
from flow.checking.finding import Tell, ok, unchecked, wrong
from flow.checking.keeping import Keeping
from flow.checking.managed import check_managed, tell_unmanaged
from flow.checking.server import check_server
from flow.errors import ConfigError
from flow.management import VARIABLE
from flow.options import variable
from flow.target import load


def check_targets(
    targets: Sequence[str],
    options: Mapping[str, object],
    environment: Mapping[str, str],
    tell: Tell,
    *,
    workers: int = 1,
    strict: bool,
) -> list[PipelineClass]:
    """Check what needs no broker; return the classes, with the *options*, that could be run.

    *workers* is the number of processes that would run them.
    """
    runnable = []
    all_classes: list[PipelineClass] = []
    for target in targets:
        try:
            classes = load(target)
        except ConfigError as error:
            tell(wrong(str(error)))
            continue
        tell(ok(f"{target} has {', '.join(cls.__name__ for cls in classes)}"))
        for cls in classes:
            if cls in all_classes:
                continue
            all_classes.append(cls)
            found, made = options_of(cls, options, workers=workers, strict=strict)
            for finding in found:
                tell(finding)
            if made is None:
                continue
            settings = settings_of(made, environment)
            tell(settings)
            for finding in strangers_of(made, environment):
                if finding.text not in settings.text:
                    tell(finding)
            if hasattr(made, "queue"):
                runnable.append(made)
            else:
                tell(unchecked(f"{made.__name__}: the queues that it names while it runs"))
    for finding in [*together(all_classes, targets, options), *extras()]:
        tell(finding)
    return runnable


async def check_queues(
    url: BrokerUrl,
    classes: list[PipelineClass],
    environment: Mapping[str, str],
    keeping: Keeping,
    tell: Tell,
) -> None:
    """Check the broker and what the queues of *classes* are like there; nothing is consumed or changed.

    What a crash may repeat depends on *keeping*, what outlives the process.
    """
    reached = await check_broker(url, tell)
    for cls in classes:
        consumers = None
        if reached:
            consumers = await check_queue(url, cls, tell)
            await check_server(url, cls.queue, tell)
            await check_park(url, cls, tell)
        else:
            tell_unreached(cls, tell)
        tell(loop_of(cls))
        for finding in memory_of(cls, consumers, keeping):
            tell(finding)
    try:
        address = variable(environment, VARIABLE)
    except ConfigError as error:
        tell(wrong(str(error)))
        address = ""
    if address:
        await check_managed(address, url, classes, tell)
    else:
        for cls in classes:
            tell_unmanaged(url.user, cls, tell)
