"""Running messages through a pipeline without a broker."""

from collections.abc import Iterable, Mapping
from typing import Any

from flow.message import Message
from flow.options import whole
from flow.pipeline import Pipeline
from flow.testing.bench import Bench
from flow.testing.messages import Body, unsent
from flow.testing.result import Result


async def run_messages(
    pipeline: Pipeline[Any, Any],
    messages: Iterable[Body | Message[Any]],
    *,
    attempt: int = 1,
    follow_retries: bool = False,
) -> list[Result]:
    """Run *messages* through *pipeline* as `flow run` would, without a broker; return what became of each.

    All of them wait in the queue from the start. The lifespan surrounds the run. What callbacks raise are
    results and is not raised here.

    Time is virtual: it stands still while a callback runs, and jumps to the next deadline (of a batch, the
    rate limit, a held retry, a probe) when nothing else is left to do. What callbacks themselves sleep and
    wait for is real. After 5 real seconds, or its own limit if that is shorter, a callback holds the time no
    longer: so one that hangs is ended by `handler_timeout` or `batch_timeout`.

    A target that is still down after 10 virtual minutes ends the run: what waits for it is retrying.

    Args:
        pipeline: an instance, with its settings.
        messages: bodies (Structs, mappings, JSON text, bytes) and messages made by `message`.
        attempt: which attempt it is for the bodies, from 1.
        follow_retries: deliver what is retrying again after its delay, until it is delivered, skipped or
            parked. By default a message is worked once, and its retry is the result.

    Raises:
        ConfigError: something is missing in the class of the pipeline, or *attempt* is below 1.
        TypeError: it is one body and no list of them, a body cannot be written as JSON, or a message is not
            made by `message`.
        Exception: what the lifespan raises.
    """
    pipeline.check()
    whole("run_messages(attempt)", attempt)
    if isinstance(messages, str | bytes | Mapping):
        raise TypeError(f"run_messages takes a list of bodies, got one of {type(messages).__name__}")
    waiting = [unsent(one, attempt) for one in messages]
    async with pipeline.lifespan():
        return await Bench(pipeline, follow_retries=follow_retries).run(waiting)
