"""Taking lines in: whatever ends it early, each line is stored or handed back."""

from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest
from sqlalchemy import text

from flow.errors import DecodeError
from flow.plumbing.intake import BATCH, Intake, Wrong
from flow.plumbing.lines import CHUNK, Lines, Source
from flow.plumbing.submission import Action
from flow.plumbing.submitting import Submitted, Submitting
from flow.records.database import Database
from tests.plumbing.signature_model import Org
from tests.plumbing.signatures import define, statuses

pytestmark = pytest.mark.anyio


async def test_a_database_that_fails_hands_every_line_back_that_was_taken(
    database: Database, tmp_path: Path
) -> None:
    """The lines of one read of the file are no whole number of batches."""
    page = msgspec.json.encode({"actionPage": "rivers/acme"})
    written = [page + b" " * number for number in range(3 * BATCH)]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(written))
    assert file.stat().st_size < CHUNK
    file.write_bytes(b"\n".join(written * 3))
    back: list[Wrong] = []
    async with database.begin() as connection:
        await connection.execute(text("DROP TABLE action_pages" + " CASCADE" * (not database.is_sqlite)))

    with file.open("rb") as opened:
        lines = Lines(Source(opened.fileno()))
        intake = Intake(Submitting(database), back.append, lambda *_: None)
        await intake.run(lines)
        rest = [line async for line in lines]

    assert "has not the tables of this version" in str(intake.fault)
    assert [one.line for one in back] + rest == written * 3
    assert [one.number for one in back] == list(range(1, len(back) + 1))
    assert intake.read == len(back)
    assert rest


async def test_who_stops_it_in_the_middle_of_a_batch_learns_what_became_of_each_line(
    database: Database, tmp_path: Path
) -> None:
    await define(database, Org("acme"))
    page = msgspec.json.encode({"actionPage": "rivers/acme"})
    written = [page + b" " * number for number in range(2 * BATCH)]
    file = tmp_path / "lines"
    file.write_bytes(b"\n".join(written))
    back: list[Wrong] = []
    stored: list[int] = []

    class Stopping(Submitting):
        async def submit(self, actions: Sequence[Action]) -> list[Submitted | DecodeError]:
            intake.stop()
            return await super().submit(actions)

    with file.open("rb") as opened:
        lines = Lines(Source(opened.fileno()))
        intake = Intake(Stopping(database), back.append, lambda number, *_: stored.append(number))
        await intake.run(lines)
        rest = [line async for line in lines]

    assert stored == list(range(1, BATCH + 1))
    assert len(await statuses(database)) == BATCH
    assert [one.line for one in back] + rest == written[BATCH:]
