"""What can be known without a broker: modules, classes, settings, and what must be installed."""

import re
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from flow.checking.finding import Finding, caution, ok, unchecked, wrong
from flow.checking.keeping import STATE_DIR, Keeping
from flow.deadletters import doubt, rejects
from flow.errors import ConfigError
from flow.pipeline import Pipeline, with_options
from flow.records.stores import forgetful
from flow.records.url import VARIABLE
from flow.settings import load as load_settings
from flow.settings import strangers, variables
from flow.sizing import CONSUMER_TIMEOUT
from flow.target import check_one, check_workers, distinct

PipelineClass = type[Pipeline[Any, Any]]

# The value at the end of a sentence about a setting, as `repr` writes it.
VALUE = re.compile(r""", got ('(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")""")

EXTRAS = {
    "ops": (("starlette", "uvicorn"), None, "metrics and health (or give flow run --no-ops)"),
    "http": (("httpx2",), "flow.targets.http", "targets over HTTP"),
}
"""Each extra: its packages, the module whose import tells that it is needed (None: always), and what for."""


def options_of(
    cls: PipelineClass, options: Mapping[str, object], *, workers: int = 1, strict: bool
) -> tuple[list[Finding], PipelineClass | None]:
    """Check options and callbacks; return the class with the *options*, or None when it cannot be run.

    *workers* is the number of processes that would run it. With *strict* a warning is wrong.
    """
    try:
        made = with_options(cls, options) if options else cls
        made.check()
        check_workers(made, workers)
    except ConfigError as error:
        return [wrong(str(error))], None
    name, warnings = cls.__name__, made.warnings()
    found = [ok(f"{name}: options and callbacks")]
    found += [(wrong if strict else caution)(warning) for warning in warnings]
    if not warnings:
        prefetch = f"{name}: the prefetch of {made.granted()} fills its batches"
        found.append(ok(f"{prefetch}; its timeouts end before {CONSUMER_TIMEOUT} s (consumer_timeout)"))
    return found, made


def settings_of(cls: PipelineClass, environment: Mapping[str, str]) -> Finding:
    """Check that the settings are there; values are never told."""
    wanted = cls.settings_type()
    name = cls.__name__
    if wanted is None:
        return ok(f"{name}: needs no settings")
    try:
        load_settings(wanted, environment)
    except ConfigError as error:
        return wrong(VALUE.sub("", str(error)))
    names = [variable for variable in sorted(variables(wanted)) if environment.get(variable)]
    return ok(f"{name}: settings from {', '.join(names) or 'their defaults'}")


def strangers_of(cls: PipelineClass, environment: Mapping[str, str]) -> list[Finding]:
    """Tell of variables that are set with the prefix of the settings, and that no field reads."""
    wanted = cls.settings_type()
    return [] if wanted is None else [caution(one) for one in strangers(wanted, environment)]


def together(
    classes: Sequence[PipelineClass], targets: Sequence[str], options: Mapping[str, object]
) -> list[Finding]:
    """Check that the *classes* of *targets* can be run in one process, with these *options*."""
    found = []
    try:
        distinct(classes)
        if "queue" in options:
            check_one(classes, targets)
        if "dead_letter" in options:
            check_one(classes, targets, "--dead-letter")
    except ConfigError as error:
        found.append(wrong(str(error)))
    consumers: dict[str, list[str]] = {}
    for cls in classes:
        if hasattr(cls, "queue") and "queue" not in options:
            consumers.setdefault(cls.queue, []).append(cls.__name__)
    for queue, names in consumers.items():
        if len(names) > 1:
            sharing = f"{' and '.join(names)} consume the same queue {queue}"
            found.append(caution(f"{sharing}: each of its messages goes to one of them only"))
    return found


def extras() -> list[Finding]:
    """Check that what the imported modules need is installed."""
    found = []
    for extra, (packages, module, purpose) in EXTRAS.items():
        if module is not None and module not in sys.modules:
            continue
        missing = [package for package in packages if find_spec(package) is None]
        if missing:
            install = f"install proca-flow[{extra}]"
            found.append(wrong(f"{' and '.join(missing)} is needed for {purpose}: {install}"))
        else:
            found.append(ok(f"the extra {extra} is installed"))
    return found


def loop_of(cls: PipelineClass) -> Finding:
    """Say what becomes of rejected messages, as far as the name of the queue and the class tell."""
    name, queue = cls.__name__, cls.queue
    if cls.dead_letter == "refuse":
        return ok(f'{name}: retries are held and made here (dead_letter = "refuse")')
    if cls.dead_letter == "assume":
        return ok(f'{name}: retries go to the dead-letter exchange of {queue} (dead_letter = "assume")')
    if rejects(cls, queue):
        return ok(f"{name}: retries go through the retry loop that {queue} has by its name")
    return caution(f"{name}: {doubt(queue)}")


def memory_of(cls: PipelineClass, consumers: int | None, keeping: Keeping) -> list[Finding]:
    """Say what a lost connection, other workers and a crash may repeat; *consumers* are there already."""
    name, queue = cls.__name__, cls.queue
    if keeping.database == "unknown":
        return [unchecked(f"{name}: what a crash or another worker may repeat: needs the database")]
    found = [claim_of(cls, keeping)] if cls.claim is not None else []
    if keeping.database == "kept":
        written = "what was written into the ledger is not done again, after a crash, and by no other worker"
        crashes = "a message that kills the process is parked after two such starts"
        return [*found, ok(f"{name}: {written}"), ok(f"{name}: {crashes}")]
    found.append(
        ok(f"{name}: what was finished when a connection breaks is not done again by the same process")
    )
    window = f"up to {cls.granted()} messages may be done again by another one when it ends unasked"
    advice = f"set {VARIABLE} for a ledger that all share"
    if consumers:
        verb = "consumer is" if consumers == 1 else "consumers are"
        there = f"{consumers} {verb} on {queue} already; workers share no memory"
        found.append(caution(f"{name}: {there}: {window}; {advice}"))
    elif consumers is None:
        unknown = f"whether others consume {queue}; workers share no memory"
        found.append(unchecked(f"{name}: {unknown}: {window}; {advice}"))
    if keeping.folder == "unknown":
        found.append(
            unchecked(f"{name}: what becomes of a message that kills the process: needs {STATE_DIR}")
        )
    elif keeping.folder == "kept":
        found.append(ok(f"{name}: a message that kills the process is parked after two such starts"))
    else:
        kills = "a message that kills the process is delivered again without end"
        found.append(caution(f"{name}: {kills}: set {STATE_DIR} or {VARIABLE}, which survive a restart"))
    return found


def claim_of(cls: PipelineClass, keeping: Keeping) -> Finding:
    """Say how far a claim protects from doing something twice."""
    name = cls.__name__
    if keeping.database == "none" and (reason := forgetful(cls)):
        return wrong(reason)
    if keeping.database != "kept":
        return caution(
            f"{name}: its claims are known to one process only, and forgotten with it: set {VARIABLE}"
        )
    if cls.claim is not None and cls.claim.unknown == "park":
        return ok(f"{name}: nothing is done twice (claim); what is unknown after a crash is parked")
    return ok(f"{name}: nothing is done twice (claim), except what is unknown after a crash")
