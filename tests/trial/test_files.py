"""Copies of bodies: byte for byte, private, and read back as they were."""

import logging
import resource
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as some

from flow.errors import ConfigError
from flow.trial.files import Dump, as_line, bodies
from tests.messages import MemoryOrigin

BODIES = [b'{"n": 1}', b'{\n  "n": 2\n}\n', b"\xff\x00 no JSON", b'{"n": 3}\r\n']


def read(path: Path) -> list[bytes]:
    return [body for _, body in bodies(path)]


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let files grow to *size* bytes, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_dump_is_read_back_byte_for_byte_and_in_order(tmp_path: Path) -> None:
    dump, origin = Dump(tmp_path / "new" / "copies"), MemoryOrigin()

    dump.copy([origin.message(body) for body in BODIES])

    assert read(tmp_path / "new" / "copies") == BODIES
    assert (dump.copied, dump.missed) == (4, 0)


def test_only_the_owner_may_read_a_dump(tmp_path: Path) -> None:
    Dump(tmp_path / "copies").copy([MemoryOrigin().message(b"{}")])

    [file] = (tmp_path / "copies").iterdir()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "copies").stat().st_mode) == 0o700


def test_a_second_dump_into_the_same_folder_adds_to_it(tmp_path: Path) -> None:
    for number in (1, 2):
        Dump(tmp_path).copy([MemoryOrigin().message(number)])

    assert read(tmp_path) == [b"1", b"2"]


def test_a_folder_that_cannot_be_written_to_is_refused_in_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"the folder \S+ cannot be written to \(.+\): name another"):
        Dump(tmp_path / "file" / "below")


def test_a_full_disk_is_said_once_and_leaves_no_half_copy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    dump, origin = Dump(tmp_path), MemoryOrigin()
    large = [origin.message(b"x" * 100_000) for _ in range(3)]

    with caplog.at_level(logging.ERROR, "flow"), largest_file(1000):
        dump.copy([*large, origin.message(b"small")])

    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "consumed all the same" in caplog.text
    assert (dump.copied, dump.missed) == (1, 3)
    assert read(tmp_path) == [b"small"]


def test_a_body_that_was_not_taken_is_not_copied_as_an_empty_one(tmp_path: Path) -> None:
    message = MemoryOrigin().message(b"x" * 10)
    message.raw = b""
    dump = Dump(tmp_path)

    dump.copy([message])

    assert (dump.copied, read(tmp_path)) == (0, [])


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.json", b'{"n": 1}', [b'{"n": 1}']),
        ("a.json", b'{\n  "n": 1\n}\n', [b'{\n  "n": 1\n}\n']),
        ("a.json", b'{"n": 1}\n{"n": 2}\n', [b'{"n": 1}', b'{"n": 2}']),
        ("a.txt", b'{"n": 1}\r\n\n{"n": \n', [b'{"n": 1}', b'{"n": ']),
        ("a.jsonl", b'{"n": \n{"n": 2}', [b'{"n": ', b'{"n": 2}']),
        ("a.json", b"no JSON\nat all", [b"no JSON\nat all"]),
        ("a.json", b"", []),
    ],
)
def test_a_file_is_one_document_or_lines(
    tmp_path: Path, name: str, content: bytes, expected: list[bytes]
) -> None:
    (tmp_path / name).write_bytes(content)

    assert read(tmp_path / name) == expected


def test_bodies_are_told_with_their_places(tmp_path: Path) -> None:
    (tmp_path / "b.jsonl").write_bytes(b"1\n\n2\n")
    (tmp_path / "a.json").write_bytes(b"1\n2\n")
    (tmp_path / "notes.txt").write_bytes(b"none of them")

    assert [place for place, _ in bodies(tmp_path)] == ["a.json", "b.jsonl:1", "b.jsonl:3"]


def meaning(body: bytes) -> object:
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError):
        return "no JSON"


@example(b'"a\nb"')
@given(some.text('{}[]":,\n\r ab1\\').map(str.encode))
def test_a_body_means_the_same_as_one_line(body: bytes) -> None:
    line = as_line(body)

    assert line.count(b"\n") == 1
    assert meaning(line) == meaning(body)
