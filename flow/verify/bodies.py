"""What a pipeline is given to work: made for the types that it declares, or read from a file."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from flow.errors import ConfigError
from flow.pipeline import Pipeline
from flow.schema import ActionMessage, EventMessage, IdsMessage
from flow.testing.bodies import action, event, ids
from flow.trial.files import bodies

FIRST = 7_000_001  # an id that does not stand in anything else
PAGES = 3
BROKEN = b'{"schema": "proca:action:2", "this is not'
STAGES = {"moderate": "action_confirm", "confirm": "supporter_confirm"}
"""What a message in a queue of this last name is about; in others it is delivered."""
MAKERS: Mapping[type, Callable[..., msgspec.Struct]] = {
    ActionMessage: action,
    EventMessage: event,
    IdsMessage: ids,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One message to be."""

    name: str
    """What the report calls it."""
    body: bytes


def made(cls: type[Pipeline[Any, Any]], count: int, queue: str) -> list[Sample]:
    """Make *count* bodies of the types that *cls* reads from *queue*, in turn, and one that cannot be read.

    Raises:
        ConfigError: none of its types can be made.
    """
    makers = [MAKERS[kind] for kind in cls.message_types() if kind in MAKERS]
    if not makers:
        names = " and ".join(kind.__name__ for kind in cls.message_types())
        raise ConfigError(
            f"{cls.__name__} reads {names}, of which flow makes no examples: give some with --bodies FILE"
        )
    samples = []
    stage = STAGES.get(queue.rpartition(".")[2], "deliver")
    for number in range(count):
        make = makers[number % len(makers)]
        staged = {} if make is event else {"stage": stage}
        body = make(id=FIRST + number, page=1 + number % PAGES, **staged)
        samples.append(Sample(name=f"{make.__name__} {FIRST + number}", body=msgspec.json.encode(body)))
    return [*samples, Sample(name="the broken body", body=BROKEN)]


def read(path: Path, count: int | None) -> list[Sample]:
    """Read the first *count* bodies of the file at *path* (JSON lines, or the folder of a dump); None: all.

    Raises:
        ConfigError: there is none.
    """
    samples = [Sample(name=place, body=body) for place, body in islice(bodies(path), count)]
    if not samples:
        raise ConfigError(f"there is no body in {path}: it should hold a JSON document on each line")
    return samples
