"""Hopeless messages in a folder, and their way into the park."""

import os
import stat
from pathlib import Path

import pytest

from flow.errors import ConfigError, PublishFailed
from flow.parking import MESSAGE_ID, QUEUE
from flow.plumbing.spool import Spool, spooled

BODY = b'{"email": "anna@example.org"}'
HEADERS: dict[str, str | int] = {QUEUE: "acme.crm", "x-flow-reason": "never", MESSAGE_ID: "m-1"}


@pytest.mark.anyio
async def test_each_message_is_a_file_for_its_owner_only(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")

    await spool.put("acme.crm", HEADERS, BODY)
    await spool.put("acme.crm", HEADERS, BODY)
    await spool.put("acme.crm", {**HEADERS, MESSAGE_ID: "m-2"}, BODY)

    files = spooled(tmp_path / "spool")
    assert len(files) == 2
    assert {stat.S_IMODE(os.stat(path).st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(os.stat(tmp_path / "spool").st_mode) == 0o700


@pytest.mark.anyio
async def test_a_spool_that_fails_later_fails_the_message_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool")
    os.rmdir(tmp_path / "spool")

    with pytest.raises(PublishFailed, match="cannot be written: No such file or directory"):
        await spool.put("acme.crm", HEADERS, BODY)


def test_a_folder_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(ConfigError, match="cannot be written"):
        Spool(tmp_path / "file")
