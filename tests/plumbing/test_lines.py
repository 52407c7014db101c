import os
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from flow.errors import DecodeError
from flow.plumbing.lines import CHUNK, Lines, Source

pytestmark = pytest.mark.anyio


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    """The two ends of a pipe; a test may close the writing one itself."""
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        try:
            os.close(end)
        except OSError:
            continue


async def lines_of(path: Path) -> list[bytes]:
    with path.open("rb") as file:
        return [line async for line in Lines(Source(file.fileno()))]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", []),
        (b"one", [b"one"]),
        (b"one\ntwo\n", [b"one", b"two"]),
        (b"one\n\ntwo", [b"one", b"", b"two"]),
        (b"\n\n", [b"", b""]),
        (b"one\r\n\xff\xfe\n", [b"one\r", b"\xff\xfe"]),
        (b"a" * (CHUNK - 1) + b"\nb", [b"a" * (CHUNK - 1), b"b"]),
        (b"a" * (3 * CHUNK) + b"\n" + b"b" * CHUNK, [b"a" * (3 * CHUNK), b"b" * CHUNK]),
    ],
)
async def test_a_file_is_cut_into_its_lines(tmp_path: Path, content: bytes, expected: list[bytes]) -> None:
    path = tmp_path / "lines"
    path.write_bytes(content)

    assert await lines_of(path) == expected


async def test_the_null_device_has_no_lines() -> None:
    assert await lines_of(Path("/dev/null")) == []


async def test_a_line_of_a_pipe_is_there_before_the_pipe_ends(pipe: tuple[int, int]) -> None:
    lines = Lines(Source(pipe[0]))
    os.write(pipe[1], b"one\ntw")

    with anyio.fail_after(10):
        assert await anext(lines) == b"one"


async def test_waiting_for_a_pipe_can_be_given_up_and_taken_up_again(pipe: tuple[int, int]) -> None:
    lines = Lines(Source(pipe[0]))
    os.write(pipe[1], b"one\ntw")
    assert await anext(lines) == b"one"

    with anyio.move_on_after(0.05) as scope:
        await anext(lines)
    os.write(pipe[1], b"o\nthree")
    os.close(pipe[1])

    assert scope.cancelled_caught
    with anyio.fail_after(10):
        assert [line async for line in lines] == [b"two", b"three"]


async def test_what_was_read_already_can_be_taken_without_waiting(pipe: tuple[int, int]) -> None:
    lines = Lines(Source(pipe[0]))
    os.write(pipe[1], b"one\ntwo\nthr")
    assert await anext(lines) == b"one"

    assert lines.taken() == [b"two", b"thr"]
    assert lines.taken() == []


@pytest.mark.parametrize("rest", [b"", b"\n", b"\nthree\n"])
@pytest.mark.parametrize("longest", [5, CHUNK - 1, CHUNK, 3 * CHUNK])
async def test_a_line_without_an_end_is_named_after_all_before_it(
    tmp_path: Path, longest: int, rest: bytes
) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\n" + b"x" * longest + b"\n" + b"y" * (longest + 1) + rest)

    with path.open("rb") as file:
        lines = Lines(Source(file.fileno()), longest=longest)
        read = [await anext(lines), await anext(lines)]
        with pytest.raises(DecodeError) as caught:
            await anext(lines)
        left = [*lines.taken(), *[line async for line in lines]]

    assert read == [b"one", b"x" * longest]
    assert str(caught.value) == f"line 3 is longer than {longest} bytes: it and what follows it is not read"
    assert left == []


async def test_what_an_endless_line_takes_is_bounded(pipe: tuple[int, int]) -> None:
    source = Source(pipe[0])
    os.write(pipe[1], b"x" * 1000)

    with anyio.fail_after(10), pytest.raises(DecodeError, match="line 1 is longer than 999 bytes: "):
        await anext(Lines(source, longest=999))


async def test_a_document_is_everything_up_to_the_end(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b'{\n"a": 1}\n')
    os.close(pipe[1])

    with anyio.fail_after(10):
        assert await Source(pipe[0]).document(10) == b'{\n"a": 1}\n'


async def test_a_document_that_is_too_long_is_not_read_to_its_end(pipe: tuple[int, int]) -> None:
    os.write(pipe[1], b"1" * 11)  # and no end

    with anyio.fail_after(10), pytest.raises(DecodeError, match="the document is longer than 10 bytes"):
        await Source(pipe[0]).document(10)
