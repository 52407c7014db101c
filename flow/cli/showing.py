"""Shows what a dry run came to."""

from typing import Any

import click
import msgspec

from flow.account import Account
from flow.batch import Batch
from flow.cli.masking import masked, printable, revealed
from flow.message import Message
from flow.trial.rehearsal import Rehearsal


def show(rehearsal: Rehearsal, account: Account, *, revealing: bool) -> None:
    """Print what would be delivered and what would not; bodies masked unless *revealing*."""
    for batch in rehearsal.batches:
        key = printable(repr(batch.key)) if revealing else kind(batch.key)
        click.echo(f"batch of {len(batch)} for {batch.batcher}, key {key}, closed by {batch.trigger.value}")
        for message in batch:
            show_message(message, revealing)
    for message in rehearsal.messages:
        show_message(message, revealing)
    for message, decision in rehearsal.others:
        outcome, reason = (
            ("not finished", "") if decision is None else (decision.outcome.value, decision.reason)
        )
        click.echo(f"{outcome} {name(message)}{': ' if reason else ''}{printable(reason)}")
    click.echo(summary(rehearsal.batches, account))


def show_message(message: Message[Any], revealing: bool) -> None:
    """Print the body as the delivering callback gets it, or as it was received if that is no JSON."""
    click.echo(f"  {name(message)}")
    try:
        body = msgspec.json.encode(telling(message.body))
    except (TypeError, ValueError, RecursionError):
        body = message.raw
    text = revealed(body) if revealing else masked(body)
    click.echo("\n".join(f"    {line}" for line in text.split("\n")))


def telling(body: object) -> Any:
    """Return *body* as plain values, without fields of Structs that are null: most were never sent.

    A null in a dict stays: somebody wrote it.

    Raises:
        TypeError: it cannot be written as JSON.
    """
    plain = msgspec.to_builtins(body, str_keys=True)
    prune(body, plain)
    return plain


def prune(value: Any, plain: Any) -> None:
    """Remove from *plain*, what *value* is written as, the fields of Structs that are null."""
    if isinstance(value, msgspec.Struct) and isinstance(plain, dict):
        for field, written in zip(value.__struct_fields__, value.__struct_encode_fields__, strict=True):
            found = getattr(value, field)
            if found is None:
                plain.pop(written, None)
            elif written in plain:
                prune(found, plain[written])
    elif isinstance(value, dict) and isinstance(plain, dict):
        for one, other in zip(value.values(), plain.values(), strict=False):
            prune(one, other)
    elif isinstance(value, list | tuple) and isinstance(plain, list | tuple):
        for one, other in zip(value, plain, strict=False):
            prune(one, other)


def name(message: Message[Any]) -> str:
    """Return what *message* is called."""
    return (
        "a message without an id" if message.record_id is None else printable(f"record {message.record_id}")
    )


def kind(key: object) -> str:
    """Return the type of a batch key: its value may be about a person."""
    if isinstance(key, tuple):
        return f"({', '.join(kind(one) for one in key)})"
    return "None" if key is None else type(key).__name__


def summary(batches: list[Batch[Any]], account: Account) -> str:
    """Say it all in one line."""
    within = f" in {len(batches)} batches" if batches else ""
    parts = [f"{account.delivered} would be delivered{within}"]
    for outcome in ("skipped", "retrying", "parked"):
        if count := getattr(account, outcome):
            parts.append(f"{count} {outcome}")
    if account.returned:
        parts.append(f"{account.returned} not finished")
    return f"of {account.received} messages {', '.join(parts)}"
